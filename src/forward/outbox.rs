//! What the packet plane wants done: runs of datagrams to send, and punts to the mesh plane. Reused, never reallocated in
//! steady state.

use crate::wire::Address;

use super::punt::Punt;

/// Most bytes of one run: the payload limit of UDP over IPv4, which `UDP_SEGMENT` obeys for the whole run.
pub const MAX_RUN_BYTES: usize = 65_507;
/// Most datagrams of one run: kernels before 6.9 take 64, and count the UDP header against 64 times the segment size.
pub const MAX_RUN_DATAGRAMS: usize = 63;
/// Most runs between two drains: a super frame flooded to 100 links makes 200.
const MAX_RUNS: usize = 512;
/// Runs whose memory is kept: more are in use only while a flood goes out to many links.
const KEPT_RUNS: usize = 64;
/// Most punts between two drains.
const MAX_PUNTS: usize = 256;

/// One contiguous run of equal datagrams to one address; the last may be shorter. All are of one lane: the receiver's kernel looks at
/// the first when it picks the thread for all of them.
struct Run {
    address: Address,
    lane: u8,
    segment: usize,
    used: usize,
    datagrams: usize,
    closed: bool,
    bytes: Vec<u8>,
}

/// The packet plane's output.
#[derive(Default)]
pub struct Outbox {
    runs: Vec<Run>,
    /// A digest of each live run's address, searched before the address itself.
    digests: Vec<u64>,
    bytes: usize,
    /// What the mesh plane should hear of.
    pub punts: Vec<Punt>,
}

impl Outbox {
    /// An empty outbox.
    pub fn new() -> Outbox {
        Outbox::default()
    }

    /// Room for one datagram of `length` bytes on `lane` to `address`, behind everything already reserved for both; its bytes
    /// are arbitrary and must all be written. `None` where the outbox is full or the datagram cannot exist.
    pub fn reserve(&mut self, address: Address, lane: u8, length: usize) -> Option<&mut [u8]> {
        if length == 0 || length > MAX_RUN_BYTES {
            return None;
        }
        let digest = digest(address, lane);
        let found = self.digests.iter().rposition(|known| *known == digest);
        let open = found.filter(|&at| self.runs.get(at).is_some_and(|run| run.address == address && run.lane == lane && run.fits(length)));
        let at = match open {
            Some(at) => at,
            None => self.open_run(address, lane, digest, length)?,
        };
        let run = self.runs.get_mut(at)?;
        let start = run.used;
        run.used += length;
        run.datagrams += 1;
        run.closed = length < run.segment;
        self.bytes += length;
        if run.bytes.len() < run.used {
            run.bytes.resize(run.used, 0);
        }
        run.bytes.get_mut(start..start + length)
    }

    fn open_run(&mut self, address: Address, lane: u8, digest: u64, segment: usize) -> Option<usize> {
        let at = self.digests.len();
        if at >= MAX_RUNS {
            return None;
        }
        match self.runs.get_mut(at) {
            Some(run) => {
                (run.address, run.lane, run.segment, run.used, run.datagrams, run.closed) = (address, lane, segment, 0, 0, false);
            }
            None => self.runs.push(Run { address, lane, segment, used: 0, datagrams: 0, closed: false, bytes: Vec::new() }),
        }
        self.digests.push(digest);
        Some(at)
    }

    /// Adds a punt; false where there are too many.
    pub fn punt(&mut self, punt: Punt) -> bool {
        let room = self.punts.len() < MAX_PUNTS;
        if room {
            self.punts.push(punt);
        }
        room
    }

    /// The runs in order: address, bytes, and the size of all datagrams but perhaps the last.
    pub fn runs(&self) -> impl Iterator<Item = (Address, &[u8], usize)> + Clone {
        self.first_runs(self.digests.len())
    }

    /// As [`Outbox::runs`], without the last where that may take one more datagram as big as its first: worth keeping back while
    /// there is more to come. Followed by [`Outbox::clear_full`].
    pub fn full_runs(&self) -> impl Iterator<Item = (Address, &[u8], usize)> + Clone {
        self.first_runs(self.full())
    }

    fn first_runs(&self, count: usize) -> impl Iterator<Item = (Address, &[u8], usize)> + Clone {
        self.runs.iter().take(count).filter_map(|run| Some((run.address, run.bytes.get(..run.used)?, run.segment)))
    }

    /// How many runs there are before the last one that is still open.
    fn full(&self) -> usize {
        let live = self.digests.len();
        let open = live.checked_sub(1).and_then(|last| self.runs.get(last)).is_some_and(|run| run.fits(run.segment));
        live - usize::from(open)
    }

    /// Bytes waiting to be sent.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Runs waiting to be sent.
    pub fn len(&self) -> usize {
        self.digests.len()
    }

    /// True where no datagram waits.
    pub fn is_empty(&self) -> bool {
        self.digests.is_empty()
    }

    /// Forgets the datagrams, keeping the memory of a usual number. Punts stay: they go another way.
    pub fn clear(&mut self) {
        self.digests.clear();
        self.bytes = 0;
        self.runs.truncate(KEPT_RUNS);
    }

    /// Forgets the datagrams of [`Outbox::full_runs`].
    pub fn clear_full(&mut self) {
        let full = self.full();
        self.digests.drain(..full);
        match self.digests.is_empty() {
            true => self.bytes = 0,
            false => {
                self.runs.swap(0, full);
                self.bytes = self.runs.first().map_or(0, |run| run.used);
            }
        }
    }
}

impl Run {
    fn fits(&self, length: usize) -> bool {
        !self.closed && length <= self.segment && self.used + length <= MAX_RUN_BYTES && self.datagrams < MAX_RUN_DATAGRAMS
    }
}

/// What shares a digest never shares a run, it only ends the other's.
fn digest(address: Address, lane: u8) -> u64 {
    const ODD: u64 = 0x9e37_79b9_7f4a_7c15;
    let addr = address.socket_addr();
    let port = u64::from(addr.port());
    let lane = u64::from(lane) << 56;
    lane ^ match addr.ip() {
        std::net::IpAddr::V4(ip) => u64::from(ip.to_bits()) << 16 | port,
        std::net::IpAddr::V6(ip) => {
            let bits = ip.to_bits();
            ((bits >> 64) as u64).wrapping_mul(ODD) ^ (bits as u64).wrapping_mul(ODD.rotate_left(31) | 1) ^ port << 48
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(port: u16) -> Address {
        Address::udp(([10, 0, 0, 1], port).into())
    }

    fn shape(outbox: &Outbox) -> Vec<(u16, usize, usize)> {
        outbox.runs().map(|(address, bytes, segment)| (address.socket_addr().port(), bytes.len(), segment)).collect()
    }

    #[test]
    fn runs_hold_equal_datagrams_and_a_shorter_last() {
        let mut outbox = Outbox::new();
        for (port, length) in [(1, 100), (2, 50), (1, 100), (1, 40), (1, 40), (2, 60), (2, 60)] {
            assert_eq!(outbox.reserve(address(port), 1, length).map(|room| room.len()), Some(length));
        }
        assert_eq!(shape(&outbox), [(1, 240, 100), (2, 50, 50), (1, 40, 40), (2, 120, 60)]);
        assert_eq!((outbox.bytes(), outbox.len()), (450, 4));
        outbox.clear();
        assert!(outbox.is_empty() && outbox.bytes() == 0);
        assert!(outbox.reserve(address(3), 1, 7).is_some());
        assert_eq!(shape(&outbox), [(3, 7, 7)]);
    }

    #[test]
    fn each_lane_has_its_runs() {
        let mut outbox = Outbox::new();
        for lane in [1, 2, 1, 2] {
            assert!(outbox.reserve(address(1), lane, 100).is_some());
        }
        assert_eq!(shape(&outbox), [(1, 200, 100), (1, 200, 100)]);
    }

    #[test]
    fn runs_end_at_their_limits() {
        let mut outbox = Outbox::new();
        for _ in 0..MAX_RUN_DATAGRAMS + 1 {
            assert!(outbox.reserve(address(1), 1, 10).is_some());
        }
        for _ in 0..46 {
            assert!(outbox.reserve(address(2), 1, 1440).is_some());
        }
        assert_eq!(shape(&outbox), [(1, 630, 10), (1, 10, 10), (2, 45 * 1440, 1440), (2, 1440, 1440)]);
        assert!(outbox.reserve(address(1), 1, 0).is_none());
        assert!(outbox.reserve(address(1), 1, MAX_RUN_BYTES + 1).is_none());
    }

    #[test]
    fn an_open_run_is_kept_back() {
        let full_shape = |outbox: &Outbox| outbox.full_runs().map(|(_, bytes, segment)| (bytes.len(), segment)).collect::<Vec<_>>();
        let mut outbox = Outbox::new();
        assert_eq!(full_shape(&outbox), []);
        for _ in 0..46 {
            assert!(outbox.reserve(address(2), 1, 1440).is_some());
        }
        assert_eq!(full_shape(&outbox), [(45 * 1440, 1440)]);
        outbox.clear_full();
        assert_eq!((shape(&outbox), outbox.bytes()), (vec![(2, 1440, 1440)], 1440));
        // It goes on where it was, and one that has ended is not kept back.
        assert!(outbox.reserve(address(2), 1, 1440).is_some());
        assert!(outbox.reserve(address(2), 1, 100).is_some());
        assert_eq!(full_shape(&outbox), [(2980, 1440)]);
        outbox.clear_full();
        assert!(outbox.is_empty() && outbox.bytes() == 0);
    }

    #[test]
    fn a_full_outbox_refuses() {
        let mut outbox = Outbox::new();
        for port in 0..MAX_RUNS as u16 {
            assert!(outbox.reserve(address(port), 1, 10).is_some());
        }
        assert!(outbox.reserve(address(9999), 1, 10).is_none());
        assert!(outbox.reserve(address(5), 1, 10).is_some(), "open runs still take datagrams");
    }
}
