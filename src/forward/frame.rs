//! An Ethernet frame, parsed once into offsets.
//!
//! A [`Frame`] exists only if every offset in it lies inside the bytes it was parsed from; everything after may rely on that.

use crate::wire::vnet::VnetHeader;

/// Bytes of an Ethernet header.
pub const ETHERNET_LEN: usize = 14;
/// Bytes of one VLAN tag.
pub const TAG_LEN: usize = 4;
/// Protocol number of TCP.
pub const TCP: u8 = 6;
/// Protocol number of UDP.
pub const UDP: u8 = 17;

const DOT1Q: u16 = 0x8100;
const DOT1AD: u16 = 0x88a8;
/// More extension headers than this are left unparsed: no honest packet has them.
const MAX_EXTENSIONS: usize = 8;

/// The network layer of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Net {
    /// Not IP, or IP that is malformed: carried as bytes.
    Other,
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// The transport of a frame, where its header lies whole in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

impl Transport {
    /// Where the checksum lies in the transport header.
    pub fn checksum_offset(self) -> u16 {
        match self {
            Transport::Tcp => 16,
            Transport::Udp => 6,
        }
    }
}

/// Where things lie in a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame {
    /// VLAN id of the outermost tag; 0 for untagged and priority-tagged frames.
    pub vlan: u16,
    /// The network layer.
    pub net: Net,
    /// The protocol behind IP and its extension headers; 0 for other frames.
    pub protocol: u8,
    /// TCP or UDP, where its header lies whole in this frame and the packet is not a fragment.
    pub transport: Option<Transport>,
    /// Offset of the network header.
    pub l3: u16,
    /// Offset behind the IP header and its extensions; `l3` for other frames.
    pub l4: u16,
    /// Offset behind the transport header, or `l4` where there is none.
    pub payload: u16,
    /// True for an IPv4 packet that must not be fragmented.
    pub dont_fragment: bool,
    /// True for a fragment of an IP packet, the first included.
    pub fragment: bool,
    /// Offset at which the IP packet ends by its own word; 0 for other frames.
    pub ip_end: u32,
}

/// Destination and source MAC; `None` for less than an Ethernet header.
pub fn macs(bytes: &[u8]) -> Option<([u8; 6], [u8; 6])> {
    let &[a, b, c, d, e, f, g, h, i, j, k, l, _, _] = bytes.first_chunk::<ETHERNET_LEN>()?;
    Some(([a, b, c, d, e, f], [g, h, i, j, k, l]))
}

/// The big-endian number at `at`.
pub fn be16(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(*bytes.get(at..)?.first_chunk()?))
}

/// The big-endian number at `at`.
pub fn be32(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(*bytes.get(at..)?.first_chunk()?))
}

impl Frame {
    /// Parses a frame; `None` for less than an Ethernet header. What is malformed further in is [`Net::Other`].
    pub fn parse(bytes: &[u8]) -> Option<Frame> {
        let mut ethertype = be16(bytes, 12)?;
        let mut l3 = ETHERNET_LEN;
        let mut vlan = None;
        for _ in 0..2 {
            if !matches!(ethertype, DOT1Q | DOT1AD) {
                break;
            }
            let (Some(tag), Some(inner)) = (be16(bytes, l3), be16(bytes, l3 + 2)) else { break };
            vlan = vlan.or(Some(tag & 0x0fff));
            ethertype = inner;
            l3 += TAG_LEN;
        }
        let mut frame = Frame {
            vlan: vlan.unwrap_or(0),
            net: Net::Other,
            protocol: 0,
            transport: None,
            l3: l3 as u16,
            l4: l3 as u16,
            payload: l3 as u16,
            dont_fragment: false,
            fragment: false,
            ip_end: 0,
        };
        match ethertype {
            0x0800 => frame.parse_v4(bytes, l3),
            0x86dd => frame.parse_v6(bytes, l3),
            _ => None,
        };
        Some(frame)
    }

    fn parse_v4(&mut self, bytes: &[u8], l3: usize) -> Option<()> {
        let header: &[u8; 20] = bytes.get(l3..)?.first_chunk()?;
        let length = usize::from(header[0] & 0x0f) * 4;
        if header[0] >> 4 != 4 || length < 20 || l3 + length > bytes.len() {
            return None;
        }
        let fragment = u16::from_be_bytes([header[6], header[7]]);
        self.net = Net::V4;
        self.protocol = header[9];
        self.dont_fragment = fragment & 0x4000 != 0;
        self.fragment = fragment & 0x3fff != 0;
        self.ip_end = (l3 + usize::from(u16::from_be_bytes([header[2], header[3]]))) as u32;
        self.l4 = (l3 + length) as u16;
        self.payload = self.l4;
        self.parse_transport(bytes)
    }

    fn parse_v6(&mut self, bytes: &[u8], l3: usize) -> Option<()> {
        let header: &[u8; 40] = bytes.get(l3..)?.first_chunk()?;
        if header[0] >> 4 != 6 {
            return None;
        }
        let mut next = header[6];
        let mut at = l3 + 40;
        let mut fragment = false;
        for _ in 0..MAX_EXTENSIONS {
            let length = match next {
                0 | 43 | 60 => (usize::from(*bytes.get(at + 1)?) + 1) * 8,
                51 => (usize::from(*bytes.get(at + 1)?) + 2) * 4,
                44 => 8,
                _ => break,
            };
            if at + length > bytes.len() {
                return None;
            }
            fragment |= next == 44;
            next = bytes[at];
            at += length;
            if fragment {
                break;
            }
        }
        self.net = Net::V6;
        self.protocol = next;
        self.fragment = fragment;
        self.ip_end = (l3 + 40 + usize::from(u16::from_be_bytes([header[4], header[5]]))) as u32;
        self.l4 = u16::try_from(at).ok()?;
        self.payload = self.l4;
        self.parse_transport(bytes)
    }

    fn parse_transport(&mut self, bytes: &[u8]) -> Option<()> {
        if self.fragment {
            return None;
        }
        let l4 = usize::from(self.l4);
        let (transport, length) = match self.protocol {
            TCP => (Transport::Tcp, usize::from(bytes.get(l4 + 12)? >> 4) * 4),
            UDP => (Transport::Udp, 8),
            _ => return None,
        };
        let shortest = if transport == Transport::Tcp { 20 } else { 8 };
        if length < shortest || l4 + length > bytes.len() {
            return None;
        }
        self.transport = Some(transport);
        self.payload = u16::try_from(l4 + length).ok()?;
        Some(())
    }

    /// True where IPv6 extension headers stand before the transport.
    pub fn has_extensions(&self) -> bool {
        self.net == Net::V6 && self.l4 != self.l3 + 40
    }

    /// True where the checksum place of `vnet` is the one this frame's own headers lead to.
    pub fn agrees(&self, vnet: &VnetHeader) -> bool {
        self.checksum_place() == Some((vnet.csum_start, vnet.csum_offset))
    }

    /// Where the transport checksum starts, and where it lies from there.
    pub fn checksum_place(&self) -> Option<(u16, u16)> {
        self.transport.map(|transport| (self.l4, transport.checksum_offset()))
    }

    /// A hash of the flow, never finer than the kernel's own (`__skb_get_hash_symmetric`): packets that are one flow to the kernel have one
    /// hash here too. Without ports for fragments and behind extension headers; 0 for what is not IP.
    pub fn flow(&self, bytes: &[u8]) -> u32 {
        let (l3, l4) = (usize::from(self.l3), usize::from(self.l4));
        let word = |at: usize| be32(bytes, at).unwrap_or(0);
        let addresses = match self.net {
            Net::V4 => word(l3 + 12) ^ word(l3 + 16).rotate_left(16),
            Net::V6 => word(l3 + 20) ^ word(l3 + 36).rotate_left(16),
            Net::Other => return 0,
        };
        let ports = if self.transport.is_some() && !self.has_extensions() { word(l4) } else { 0 };
        let mixed = (addresses ^ ports.wrapping_mul(0x85eb_ca6b)).wrapping_mul(0x9e37_79b1);
        (mixed ^ mixed >> 15).wrapping_mul(0xc2b2_ae35)
    }

    /// A hash of the flow, 0 to 15: relays share equal paths by it.
    pub fn label(&self, bytes: &[u8]) -> u8 {
        let (l3, l4) = (usize::from(self.l3), usize::from(self.l4));
        let word = |at: usize| be32(bytes, at).unwrap_or(0);
        let mixed = match self.net {
            Net::V4 => word(l3 + 12) ^ word(l3 + 16).rotate_left(16),
            Net::V6 => word(l3 + 20) ^ word(l3 + 36).rotate_left(16),
            Net::Other => word(2) ^ word(8).rotate_left(16),
        };
        let ports = if self.transport.is_some() { word(l4) } else { 0 };
        ((mixed ^ ports).wrapping_mul(0x9e37_79b1) >> 28) as u8
    }
}

#[cfg(test)]
mod tests;
