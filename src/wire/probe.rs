//! Probes for loops: Ethernet frames that a router puts on its own bridge, and that must not be seen on any other's.
//!
//! ```text
//!  destination MAC 6 · source MAC 6 · ethertype 2 · version 1 · flags 1 · name 6 · incarnation 8 · counter 8 · signature 64
//! ```
//!
//! They never cross the mesh, so a router that sees one of another router, or its own again, stands on a bridge that is joined to that
//! router's outside the mesh. The signature covers what stands between ethertype and signature. Flag 1: the sender floods nothing from
//! or to its bridge now. Numbers are big endian.

use sha2::{Digest, Sha256};

use super::PeerName;
use super::beat::ETHERTYPE;

/// The domain in which probes are signed.
pub const DOMAIN: &str = "weave-router loop probe v1";
/// A group that nobody joins, so that every bridge floods it: locally administered, not among those that bridges keep to themselves.
pub const GROUP: [u8; 6] = [0x03, 0x77, 0x65, 0x61, 0x76, 0x65];
/// The version of the frame; 1 is a heartbeat of the fast datapath ([`super::beat`]).
const VERSION: u8 = 2;
/// Where what is signed begins and ends.
const SIGNED: std::ops::Range<usize> = 14..38;
/// Bytes of the frame.
pub const LEN: usize = SIGNED.end + 64;

/// One probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Probe {
    /// Who sent it.
    pub from: PeerName,
    /// The sender's incarnation.
    pub incarnation: u64,
    /// Counts up with every probe of an incarnation.
    pub counter: u64,
    /// True where the sender floods nothing from or to its bridge.
    pub silent: bool,
}

/// The source MAC of a router's probes: a hash of its name, so that no bridge takes it for its own address.
pub fn mac_of(router: PeerName) -> [u8; 6] {
    let hash = Sha256::new().chain_update("weave-router probe mac ").chain_update(router.0).finalize();
    [hash[0] & 0xfc | 0x02, hash[1], hash[2], hash[3], hash[4], hash[5]]
}

/// True for a frame that is a probe, or claims to be one.
pub fn is_probe(frame: &[u8]) -> bool {
    frame.get(12..15) == Some(&[(ETHERTYPE >> 8) as u8, ETHERTYPE as u8, VERSION])
}

impl Probe {
    /// The frame; `sign` is handed the bytes that the signature covers.
    pub fn to_frame(&self, sign: impl FnOnce(&[u8]) -> [u8; 64]) -> Vec<u8> {
        let mut frame = Vec::with_capacity(LEN);
        frame.extend_from_slice(&GROUP);
        frame.extend_from_slice(&mac_of(self.from));
        frame.extend_from_slice(&ETHERTYPE.to_be_bytes());
        let start = frame.len();
        frame.extend_from_slice(&[VERSION, u8::from(self.silent)]);
        frame.extend_from_slice(&self.from.0);
        frame.extend_from_slice(&self.incarnation.to_be_bytes());
        frame.extend_from_slice(&self.counter.to_be_bytes());
        let signature = sign(&frame[start..]);
        frame.extend_from_slice(&signature);
        frame
    }

    /// The probe in a frame, the bytes that were signed and the signature, which is for the caller to check; `None` where it is none.
    pub fn parse(frame: &[u8]) -> Option<(Probe, &[u8], &[u8; 64])> {
        if !is_probe(frame) {
            return None;
        }
        let signed = frame.get(SIGNED)?;
        let signature = frame.get(SIGNED.end..)?.first_chunk()?;
        let ([_, flags], rest) = signed.split_first_chunk()?;
        let (from, rest) = rest.split_first_chunk()?;
        let (incarnation, rest) = rest.split_first_chunk()?;
        let (counter, _) = rest.split_first_chunk()?;
        let probe = Probe {
            from: PeerName(*from),
            incarnation: u64::from_be_bytes(*incarnation),
            counter: u64::from_be_bytes(*counter),
            silent: flags & 1 != 0,
        };
        Some((probe, signed, signature))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn golden_probe() {
        let probe = Probe { from: PeerName([2, 0, 0, 0, 0, 7]), incarnation: 3, counter: 0x0102, silent: true };
        let frame = probe.to_frame(|signed| {
            assert_eq!(signed.len(), SIGNED.len());
            [0x5a; 64]
        });
        let head = [3, 0x77, 0x65, 0x61, 0x76, 0x65];
        let body = [0x88, 0xb6, 2, 1, 2, 0, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 1, 2];
        assert_eq!((&frame[..6], &frame[6..12], &frame[12..38]), (&head[..], &mac_of(probe.from)[..], &body[..]));
        assert_eq!((&frame[38..], frame.len()), (&[0x5a; 64][..], LEN));
        let (parsed, signed, signature) = Probe::parse(&frame).expect("a probe");
        assert_eq!((parsed, signed, signature), (probe, &frame[14..38], &[0x5a; 64]));
        // Ethernet pads what is short.
        assert!(Probe::parse(&[&frame[..], &[0; 9]].concat()).is_some());
    }

    #[test]
    fn what_is_no_probe_is_none() {
        let frame = Probe { from: PeerName([2; 6]), incarnation: 1, counter: 1, silent: false }.to_frame(|_| [0; 64]);
        for len in 0..frame.len() {
            assert_eq!(Probe::parse(&frame[..len]), None, "{len}");
        }
        let beat = super::super::beat::Beat { to_mac: [2; 6], from_mac: [2; 6], to: PeerName([2; 6]), from: PeerName([2; 6]), hears: true };
        assert!(!is_probe(&beat.to_frame(200)));
        assert_eq!(mac_of(PeerName([2; 6]))[0] & 3, 2);
    }
}
