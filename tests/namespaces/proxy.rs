//! A host between two others that passes their datagrams on, keeps copies, and can slip in its own.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use weave_router::host::lab::in_namespace;

/// The routers' port.
pub const PORT: u16 = 6783;

/// Copies that are kept, at most, of each direction.
const KEPT: usize = 4096;

/// Datagrams that a router sent, oldest first.
type Copies = Arc<Mutex<Vec<Vec<u8>>>>;

/// Stands between two routers; each takes it for the other.
pub struct Proxy {
    sides: [Side; 2],
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

struct Side {
    socket: UdpSocket,
    router: SocketAddr,
    heard: Copies,
}

impl Proxy {
    /// Starts it in a namespace: its own address on the first side and the router there, and the same for the second.
    pub fn start(namespace: &str, first: (IpAddr, IpAddr), second: (IpAddr, IpAddr)) -> Proxy {
        let side = |(own, router): (IpAddr, IpAddr)| {
            let socket = in_namespace(namespace, || UdpSocket::bind((own, PORT))).expect("a namespace").expect("a socket");
            socket.set_read_timeout(Some(Duration::from_millis(50))).expect("a timeout");
            Side { socket, router: SocketAddr::new(router, PORT), heard: Copies::default() }
        };
        let (sides, stop) = ([side(first), side(second)], Arc::new(AtomicBool::new(false)));
        let threads = [(0, 1), (1, 0)].map(|(from, to)| {
            let (source, sink) = (sides[from].socket.try_clone().expect("a socket"), sides[to].socket.try_clone().expect("a socket"));
            let (router, heard, stop) = (sides[to].router, sides[from].heard.clone(), stop.clone());
            std::thread::spawn(move || {
                let mut buffer = vec![0; 65_536];
                while !stop.load(Ordering::Relaxed) {
                    let Ok((len, _)) = source.recv_from(&mut buffer) else { continue };
                    let mut heard = heard.lock().expect("no panic while locked");
                    if heard.len() < KEPT {
                        heard.push(buffer[..len].to_vec());
                    }
                    drop(heard);
                    // What cannot be passed on is lost, as on any network.
                    let _ = sink.send_to(&buffer[..len], router);
                }
            })
        });
        Proxy { sides, stop, threads: threads.into() }
    }

    /// Copies of what the router on this side (0 or 1) has sent.
    pub fn heard(&self, side: usize) -> Vec<Vec<u8>> {
        self.sides[side].heard.lock().expect("no panic while locked").clone()
    }

    /// Sends a datagram to the router on this side (0 or 1), from the address it takes for its peer's.
    pub fn slip_in(&self, side: usize, datagram: &[u8]) {
        let side = &self.sides[side];
        side.socket.send_to(datagram, side.router).expect("sent");
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            drop(thread.join());
        }
    }
}
