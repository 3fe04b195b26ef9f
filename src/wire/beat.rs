//! Heartbeats of the fast datapath: Ethernet frames that the routers send each other through their VXLAN devices.
//!
//! ```text
//!  destination MAC 6 · source MAC 6 · ethertype 2 · version 1 · flags 1 · destination name 6 · source name 6 · zeroes
//! ```
//!
//! Both MACs are those of VXLAN devices, so no bridge learns them and no container sees the frame. The zeroes make it as long as the
//! largest frame of a container, so that a path which carries only small ones does not pass for good. Flag 1: the sender hears the
//! receiver. Nothing is sealed here: who uses the fast datapath trusts the underlay.

use sha2::{Digest, Sha256};

use super::PeerName;

/// The second of the ethertypes for local experiments (IEEE 802).
pub const ETHERTYPE: u16 = 0x88b6;
/// The version of the frame.
const VERSION: u8 = 1;
/// Bytes of the frame before the zeroes.
const LEN: usize = 28;

/// MAC of a router's VXLAN device: a hash of its name, unicast and locally administered. Whoever names another MAC as his own wants frames
/// or heartbeats that are not his.
pub fn mac_of(router: PeerName) -> [u8; 6] {
    let hash = Sha256::new().chain_update("weave-router fastdp mac ").chain_update(router.0).finalize();
    [hash[0] & 0xfc | 0x02, hash[1], hash[2], hash[3], hash[4], hash[5]]
}

/// One heartbeat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Beat {
    /// MAC of the receiver's VXLAN device.
    pub to_mac: [u8; 6],
    /// MAC of the sender's VXLAN device.
    pub from_mac: [u8; 6],
    /// The receiver.
    pub to: PeerName,
    /// The sender.
    pub from: PeerName,
    /// True where heartbeats of the receiver reached the sender lately.
    pub hears: bool,
}

impl Beat {
    /// The frame, `len` bytes long.
    pub fn to_frame(&self, len: usize) -> Vec<u8> {
        let mut frame = Vec::with_capacity(len.max(LEN));
        frame.extend_from_slice(&self.to_mac);
        frame.extend_from_slice(&self.from_mac);
        frame.extend_from_slice(&ETHERTYPE.to_be_bytes());
        frame.extend_from_slice(&[VERSION, u8::from(self.hears)]);
        frame.extend_from_slice(&self.to.0);
        frame.extend_from_slice(&self.from.0);
        frame.resize(len.max(LEN), 0);
        frame
    }

    /// The heartbeat in a frame; `None` where it is none.
    pub fn parse(frame: &[u8]) -> Option<Beat> {
        let (to_mac, rest) = frame.split_first_chunk::<6>()?;
        let (from_mac, rest) = rest.split_first_chunk::<6>()?;
        let (ethertype, rest) = rest.split_first_chunk::<2>()?;
        let ([version, flags], rest) = rest.split_first_chunk::<2>()?;
        let (to, rest) = rest.split_first_chunk::<6>()?;
        let (from, _) = rest.split_first_chunk::<6>()?;
        let ours = u16::from_be_bytes(*ethertype) == ETHERTYPE && *version == VERSION;
        let beat = Beat { to_mac: *to_mac, from_mac: *from_mac, to: PeerName(*to), from: PeerName(*from), hears: flags & 1 != 0 };
        ours.then_some(beat)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn golden_beat() {
        let (to, from) = (PeerName([2, 0, 0, 0, 0, 1]), PeerName([2, 0, 0, 0, 0, 2]));
        let beat = Beat { to_mac: [6, 0, 0, 0, 0, 1], from_mac: [6, 0, 0, 0, 0, 2], to, from, hears: true };
        let frame = beat.to_frame(60);
        let golden = [6, 0, 0, 0, 0, 1, 6, 0, 0, 0, 0, 2, 0x88, 0xb6, 1, 1, 2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];
        assert_eq!((&frame[..LEN], frame.len()), (&golden[..], 60));
        assert_eq!(Beat::parse(&frame), Some(beat));
        assert_eq!(Beat::parse(&beat.to_frame(0)), Some(beat));
    }

    #[test]
    fn each_router_has_one_mac() {
        let (one, two) = (mac_of(PeerName([2, 0, 0, 0, 0, 1])), mac_of(PeerName([2, 0, 0, 0, 0, 2])));
        assert_ne!(one, two);
        assert_eq!([one[0] & 3, two[0] & 3], [2, 2]);
    }

    #[test]
    fn what_is_no_beat_is_none() {
        let name = PeerName([2, 0, 0, 0, 0, 1]);
        let frame = Beat { to_mac: [6; 6], from_mac: [6; 6], to: name, from: name, hears: false }.to_frame(LEN);
        for len in 0..LEN {
            assert_eq!(Beat::parse(&frame[..len]), None);
        }
        for at in [12, 13, 14] {
            let mut other = frame.clone();
            other[at] ^= 1;
            assert_eq!(Beat::parse(&other), None);
        }
    }
}
