//! The address that is on the bridge of every host at once, so that containers find their own host's name server there.
//!
//! It is one host's own affair: ARP about it stays off the mesh in both directions, or containers would be answered by every host.

use std::net::Ipv4Addr;

use super::frame::be16;

/// The address: link-local (RFC 3927), as it must mean nothing beyond the bridge.
pub const SERVICE_ADDRESS: Ipv4Addr = Ipv4Addr::new(169, 254, 53, 53);

const ARP: u16 = 0x0806;
/// Where the sender's and the target's IPv4 address lie in an ARP packet (RFC 826, for Ethernet and IPv4).
const SENDER: usize = 14;
const TARGET: usize = 24;

/// True for ARP that asks for the service address, or says who has it. `l3` is where the network header lies.
pub fn is_about_service(frame: &[u8], l3: usize) -> bool {
    let about = |at: usize| frame.get(l3 + at..l3 + at + 4) == Some(&SERVICE_ADDRESS.octets()[..]);
    l3.checked_sub(2).and_then(|at| be16(frame, at)) == Some(ARP) && (about(SENDER) || about(TARGET))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arp(sender: Ipv4Addr, target: Ipv4Addr, tag: &[u8]) -> Vec<u8> {
        let head = [&[0xff; 6][..], &[2, 0, 0, 0, 0, 1], tag, &[8, 6, 0, 1, 8, 0, 6, 4, 0, 1]].concat();
        [&head[..], &[2, 0, 0, 0, 0, 1], &sender.octets(), &[0; 6], &target.octets()].concat()
    }

    #[test]
    fn arp_about_the_service_address_is_told() {
        let other = Ipv4Addr::new(10, 32, 0, 1);
        let tag = [0x81, 0, 0, 5];
        assert!(is_about_service(&arp(other, SERVICE_ADDRESS, &[]), 14), "a question");
        assert!(is_about_service(&arp(SERVICE_ADDRESS, other, &[]), 14), "an answer");
        assert!(is_about_service(&arp(other, SERVICE_ADDRESS, &tag), 18), "in a VLAN");
        assert!(!is_about_service(&arp(other, Ipv4Addr::new(169, 254, 53, 54), &[]), 14));
        let whole = arp(other, SERVICE_ADDRESS, &[]);
        for len in 0..whole.len() {
            assert!(!is_about_service(&whole[..len], 14), "{len}");
        }
        let mut other_protocol = whole;
        other_protocol[13] = 0;
        assert!(!is_about_service(&other_protocol, 14), "IPv4 of the same bytes");
    }
}
