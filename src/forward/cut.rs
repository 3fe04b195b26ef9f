//! Cutting a super frame into self-contained frames, each a legal packet with a partial transport checksum.
//!
//! The super frame's own header becomes the template of a full segment, in place; a segment is then the template, its
//! payload and at most five patched fields, written straight to where it will be sealed.

use crate::wire::vnet::{GSO_ECN, GSO_TCPV4, GSO_TCPV6, GSO_UDP_L4, VnetHeader};

use super::checksum::{fold, pseudo, resized, sum};
use super::frame::{Frame, Net, Transport, be16, be32};

/// TCP flag FIN.
pub(super) const FIN: u8 = 0x01;
/// TCP flag PSH.
pub(super) const PSH: u8 = 0x08;
/// TCP flag CWR.
pub(super) const CWR: u8 = 0x80;

/// Smaller segments than this are not worth a datagram: such a path is as good as broken.
const SMALLEST_SEGMENT: usize = 8;

/// Why a super frame is not cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Uncut {
    /// The vnet header and the frame contradict each other.
    Malformed,
    /// Its segments fit no datagram, and smaller ones would change what it says.
    TooBig,
}

/// A super frame ready to be cut: which pieces it makes is known, and writing them cannot fail.
#[derive(Clone, Copy, Debug)]
pub struct Cut {
    frame: Frame,
    transport: Transport,
    headers: usize,
    size: usize,
    total: usize,
    count: usize,
    ecn: bool,
    sequence: u32,
    tcp_flags: u8,
    id: u16,
    /// Sum of the IPv4 header without length, id and checksum.
    ip_sum: u64,
    last_pseudo: u16,
}

impl Cut {
    /// Prepares `bytes`, of which `frame` is the parse, to be cut into frames of at most `room` bytes.
    ///
    /// Changes only header bytes. On an error nothing is changed.
    pub fn prepare(bytes: &mut [u8], frame: &Frame, vnet: &VnetHeader, room: usize) -> Result<Cut, Uncut> {
        let transport = agreed_transport(frame, vnet).ok_or(Uncut::Malformed)?;
        let headers = usize::from(frame.payload);
        let (l3, l4) = (usize::from(frame.l3), usize::from(frame.l4));
        let payload = bytes.len() - headers;
        let mut size = usize::from(vnet.gso_size);
        // A frame that ends elsewhere than its packet was cut short on the way to us.
        if size == 0 || payload == 0 || frame.ip_end as usize != bytes.len() {
            return Err(Uncut::Malformed);
        }
        if headers + size > room {
            if transport == Transport::Udp || room < headers + SMALLEST_SEGMENT {
                return Err(Uncut::TooBig);
            }
            size = room - headers;
        }
        let size = size.min(payload);
        let count = payload.div_ceil(size);
        if count > usize::from(u16::MAX) || headers - l3 + size > usize::from(u16::MAX) {
            return Err(Uncut::Malformed);
        }
        let last = payload - (count - 1) * size;
        let given = be16(bytes, l4 + usize::from(transport.checksum_offset())).unwrap_or(0);
        // Behind a routing header or a home address the sum is over other addresses than the header's (RFC 8200, section 8.1).
        let partial = |length| match vnet.needs_csum() && frame.has_extensions() {
            true => resized(given, bytes.len() - l4, length),
            false => pseudo(bytes, frame, length),
        };
        let mut cut = Cut {
            frame: *frame,
            transport,
            headers,
            size,
            total: bytes.len(),
            count,
            ecn: vnet.gso_type & GSO_ECN != 0,
            sequence: be32(bytes, l4 + 4).unwrap_or(0),
            tcp_flags: bytes.get(l4 + 13).copied().unwrap_or(0),
            id: be16(bytes, l3 + 4).unwrap_or(0),
            ip_sum: 0,
            last_pseudo: partial(headers - l4 + last),
        };
        let full_pseudo = partial(headers - l4 + size);
        cut.write_template(bytes, full_pseudo);
        Ok(cut)
    }

    /// Turns the super frame's header into that of a full segment in the middle.
    fn write_template(&mut self, bytes: &mut [u8], pseudo: u16) {
        let (l3, l4) = (usize::from(self.frame.l3), usize::from(self.frame.l4));
        self.write_lengths(bytes, self.size);
        let checksum = l4 + usize::from(self.transport.checksum_offset());
        bytes[checksum..checksum + 2].copy_from_slice(&pseudo.to_be_bytes());
        if self.transport == Transport::Tcp {
            bytes[l4 + 13] = self.tcp_flags & !(FIN | PSH | CWR);
        }
        if self.frame.net == Net::V4 {
            self.ip_sum = sum(&bytes[l3..l3 + 2]) + sum(&bytes[l3 + 6..l3 + 10]) + sum(&bytes[l3 + 12..l4]);
        }
    }

    /// Writes the length fields of a segment with `payload` bytes of payload.
    fn write_lengths(&self, out: &mut [u8], payload: usize) {
        let (l3, l4) = (usize::from(self.frame.l3), usize::from(self.frame.l4));
        let end = self.headers + payload;
        match self.frame.net {
            Net::V4 => out[l3 + 2..l3 + 4].copy_from_slice(&((end - l3) as u16).to_be_bytes()),
            Net::V6 => out[l3 + 4..l3 + 6].copy_from_slice(&((end - l3 - 40) as u16).to_be_bytes()),
            Net::Other => {}
        }
        if self.transport == Transport::Udp {
            out[l4 + 4..l4 + 6].copy_from_slice(&((end - l4) as u16).to_be_bytes());
        }
    }

    /// How many frames it makes.
    pub fn count(&self) -> usize {
        self.count
    }

    /// True where the super frame carried CWR.
    pub fn ecn(&self) -> bool {
        self.ecn
    }

    /// Bytes of the frame with number `index`, below [`Cut::count`].
    pub fn frame_len(&self, index: usize) -> usize {
        let start = index * self.size;
        self.headers + self.size.min((self.total - self.headers).saturating_sub(start))
    }

    /// Writes frame number `index` of the prepared super frame `bytes` to `out`, which has exactly its length.
    pub fn write(&self, bytes: &[u8], index: usize, out: &mut [u8]) {
        let (l3, l4) = (usize::from(self.frame.l3), usize::from(self.frame.l4));
        let start = self.headers + index * self.size;
        let payload = out.len() - self.headers;
        let (header, body) = out.split_at_mut(self.headers);
        header.copy_from_slice(&bytes[..self.headers]);
        body.copy_from_slice(&bytes[start..start + payload]);
        let last = index + 1 == self.count;
        if last {
            self.write_lengths(header, payload);
            let checksum = l4 + usize::from(self.transport.checksum_offset());
            header[checksum..checksum + 2].copy_from_slice(&self.last_pseudo.to_be_bytes());
        }
        if self.frame.net == Net::V4 {
            let id = self.id.wrapping_add(index as u16);
            let length = (self.headers + payload - l3) as u64;
            let checksum = !fold(self.ip_sum + u64::from(id) + length);
            header[l3 + 4..l3 + 6].copy_from_slice(&id.to_be_bytes());
            header[l3 + 10..l3 + 12].copy_from_slice(&checksum.to_be_bytes());
        }
        if self.transport == Transport::Tcp {
            let sequence = self.sequence.wrapping_add((index * self.size) as u32);
            header[l4 + 4..l4 + 8].copy_from_slice(&sequence.to_be_bytes());
            if last {
                header[l4 + 13] |= self.tcp_flags & (FIN | PSH);
            }
            if index == 0 {
                header[l4 + 13] |= self.tcp_flags & CWR;
            }
        }
    }
}

/// The transport of a super frame, where vnet header and parse say the same of it.
fn agreed_transport(frame: &Frame, vnet: &VnetHeader) -> Option<Transport> {
    let transport = frame.transport?;
    let right = match vnet.gso_kind() {
        GSO_TCPV4 => frame.net == Net::V4 && transport == Transport::Tcp,
        GSO_TCPV6 => frame.net == Net::V6 && transport == Transport::Tcp,
        GSO_UDP_L4 => transport == Transport::Udp,
        _ => false,
    };
    (right && (!vnet.needs_csum() || frame.agrees(vnet))).then_some(transport)
}

#[cfg(test)]
mod tests;
