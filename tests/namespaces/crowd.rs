//! Containers of many hosts, all of which can be asked at once who answers whom.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::net::{IpAddr, UdpSocket};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use weave_router::host::lab::clock::{Stopwatch, pause};
use weave_router::host::lab::traffic::Echo;

use crate::flow::udp;

/// Between two questions of one container to another that has not answered yet.
const AGAIN: Duration = Duration::from_millis(50);

/// A container, by its place.
pub type Place = usize;

/// Who asks whom.
pub type Pairs = Vec<(Place, Place)>;

/// Containers that answer each other.
pub struct Crowd {
    members: Vec<(UdpSocket, Echo)>,
    /// Questions asked so far, so that a late answer is not taken for one to the next.
    asked: AtomicU32,
}

/// Who answered whom.
#[derive(Debug, Default)]
pub struct Answers {
    /// Pairs without an answer in time.
    pub silent: Pairs,
    /// The time until the last of the others had one.
    pub slowest: Duration,
}

impl Crowd {
    /// Starts an echo service in each namespace, on this address of it.
    pub fn start(ends: &[(String, IpAddr)]) -> Crowd {
        let member =
            |(namespace, ip): &(String, IpAddr)| (udp(namespace, ip.is_ipv6()), Echo::start(namespace, *ip).expect("an echo service"));
        Crowd { members: ends.iter().map(member).collect(), asked: AtomicU32::new(0) }
    }

    /// All pairs, both ways.
    pub fn pairs(&self) -> Pairs {
        let all = 0..self.members.len();
        all.clone().flat_map(|a| all.clone().map(move |b| (a, b))).filter(|(a, b)| a != b).collect()
    }

    /// Has the first of each pair ask the second, again and again, until all have been answered or the time is over.
    pub fn ask(&self, pairs: &[(Place, Place)], patience: Duration) -> Answers {
        let round = self.asked.fetch_add(1, Ordering::Relaxed);
        let of = |place: Place| pairs.iter().filter(|(from, _)| *from == place).map(|(_, to)| *to).collect::<BTreeSet<Place>>();
        let found = std::thread::scope(|scope| {
            let asking = (0..self.members.len()).map(|place| {
                let wanted = of(place);
                scope.spawn(move || (place, self.ask_from(place, wanted, round, patience)))
            });
            let asking: Vec<_> = asking.collect();
            asking.into_iter().map(|thread| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))).collect::<Vec<_>>()
        });
        let mut answers = Answers::default();
        for (place, (silent, took)) in found {
            answers.silent.extend(silent.into_iter().map(|other| (place, other)));
            answers.slowest = answers.slowest.max(took);
        }
        answers
    }

    /// Those that have not answered, and when the last of the others did.
    fn ask_from(&self, place: Place, mut wanted: BTreeSet<Place>, round: u32, patience: Duration) -> (BTreeSet<Place>, Duration) {
        let (socket, _) = &self.members[place];
        let (clock, mut next, mut slowest) = (Stopwatch::start(), Duration::ZERO, Duration::ZERO);
        let mut buffer = [0; 16];
        while !wanted.is_empty() && clock.elapsed() < patience {
            if clock.elapsed() >= next {
                for other in &wanted {
                    let question = [round.to_be_bytes(), (*other as u32).to_be_bytes()].concat();
                    // Where there is no way now, the question is lost like any other.
                    let _ = socket.send_to(&question, self.members[*other].1.address());
                }
                next = clock.elapsed() + AGAIN;
            }
            let wait = next.saturating_sub(clock.elapsed()).max(Duration::from_millis(1));
            socket.set_read_timeout(Some(wait)).expect("a timeout");
            match socket.recv(&mut buffer) {
                Ok(8) if buffer[..4] == round.to_be_bytes() => {
                    let other = u32::from_be_bytes([buffer[4], buffer[5], buffer[6], buffer[7]]) as Place;
                    if wanted.remove(&other) {
                        slowest = clock.elapsed();
                    }
                }
                Ok(_) => {}
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
                // An ICMP error ends a wait early.
                Err(_) => pause(Duration::from_millis(1)),
            }
        }
        (wanted, slowest)
    }
}
