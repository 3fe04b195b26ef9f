//! For tests, benches and fuzzing: frames made to order, a TAP in memory, and routers wired together in memory.

pub mod kernel;
mod mesh;

use std::io::IoSlice;

use crate::wire::vnet::{GSO_ECN, GSO_NONE, GSO_TCPV4, GSO_TCPV6, GSO_UDP_L4, NEEDS_CSUM, VnetHeader};

use super::checksum::{pseudo, write_ipv4_header};
use super::frame::{Frame, TCP, UDP};
use super::tap::TapSink;

pub use mesh::{Mesh, Node, Wiring, address, name};

/// The MAC with number `n`.
pub fn mac(n: u8) -> [u8; 6] {
    [0x02, 0xc0, 0, 0, 0, n]
}

/// An ARP packet, 1 a request and 2 an answer, from the station `mac` that says it has the address `sender`.
pub fn arp(to: [u8; 6], operation: u8, mac: [u8; 6], sender: [u8; 4], target: [u8; 4]) -> Vec<u8> {
    let target_mac = if operation == 2 { to } else { [0; 6] };
    [&to[..], &mac, &[8, 6, 0, 1, 8, 0, 6, 4, 0, operation], &mac, &sender, &target_mac, &target].concat()
}

/// A TAP that keeps what is written to it.
#[derive(Debug)]
pub struct MemoryTap {
    /// What [`TapSink::gso`] says of TCP over IPv4.
    pub gso: bool,
    /// What it says of TCP over IPv6.
    pub gso6: bool,
    /// What it says of UDP.
    pub uso: bool,
    /// What it says of CWR.
    pub ecn: bool,
    /// What [`TapSink::csum`] says.
    pub csum: bool,
    /// Every frame written, oldest first.
    pub frames: Vec<(VnetHeader, Vec<u8>)>,
}

impl Default for MemoryTap {
    fn default() -> MemoryTap {
        MemoryTap { gso: true, gso6: true, uso: true, ecn: true, csum: true, frames: Vec::new() }
    }
}

impl MemoryTap {
    /// Takes out the bytes of all frames written so far.
    pub fn take(&mut self) -> Vec<Vec<u8>> {
        self.frames.drain(..).map(|(_, bytes)| bytes).collect()
    }
}

impl TapSink for MemoryTap {
    fn gso(&self, gso_type: u8) -> bool {
        let kind = match gso_type & !GSO_ECN {
            GSO_TCPV4 => self.gso,
            GSO_TCPV6 => self.gso6,
            GSO_UDP_L4 => self.uso,
            _ => false,
        };
        kind && (self.ecn || gso_type & GSO_ECN == 0)
    }

    fn csum(&self) -> bool {
        self.csum
    }

    fn write(&mut self, header: &VnetHeader, parts: &[IoSlice<'_>]) {
        self.frames.push((*header, parts.iter().flat_map(|part| part.iter().copied()).collect()));
    }
}

/// A TAP that counts what is written to it and keeps nothing: for benches and tests of allocation.
#[derive(Debug, Default)]
pub struct CountingTap {
    /// Frames written.
    pub frames: usize,
    /// Bytes written.
    pub bytes: usize,
}

impl TapSink for CountingTap {
    fn gso(&self, _: u8) -> bool {
        true
    }

    fn csum(&self) -> bool {
        true
    }

    fn write(&mut self, _: &VnetHeader, parts: &[IoSlice<'_>]) {
        self.frames += 1;
        self.bytes += parts.iter().map(|part| part.len()).sum::<usize>();
    }
}

/// A TCP or UDP frame to order.
#[derive(Clone, Debug)]
pub struct Recipe {
    /// IPv6 instead of IPv4.
    pub v6: bool,
    /// VLAN ids, outermost first.
    pub tags: Vec<u16>,
    /// 32-bit words of IPv4 options, at most 10.
    pub ip_options: usize,
    /// Don't fragment (IPv4).
    pub dont_fragment: bool,
    /// TCP instead of UDP.
    pub tcp: bool,
    /// 32-bit words of TCP options, at most 10.
    pub tcp_options: usize,
    /// TCP flags.
    pub flags: u8,
    /// Number of the source's MAC and address.
    pub source: u8,
    /// Number of the destination's.
    pub destination: u8,
    /// Bytes of payload.
    pub payload: usize,
    /// IPv4 id.
    pub id: u16,
    /// TCP sequence number; its low byte also starts the pattern of the payload.
    pub sequence: u32,
}

impl Default for Recipe {
    fn default() -> Recipe {
        Recipe {
            v6: false,
            tags: Vec::new(),
            ip_options: 0,
            dont_fragment: true,
            tcp: true,
            tcp_options: 3,
            flags: 0x10,
            source: 1,
            destination: 2,
            payload: 100,
            id: 0x1234,
            sequence: 0xffff_f000,
        }
    }
}

impl Recipe {
    /// The frame, with a partial transport checksum, as a container's stack hands it to the TAP.
    pub fn frame(&self) -> Vec<u8> {
        let mut out = [mac(self.destination), mac(self.source)].concat();
        for tag in &self.tags {
            out.extend_from_slice(&[0x81, 0]);
            out.extend_from_slice(&tag.to_be_bytes());
        }
        let transport = self.transport();
        let protocol = if self.tcp { TCP } else { UDP };
        let l3 = out.len() + 2;
        if self.v6 {
            out.extend_from_slice(&[0x86, 0xdd, 0x60, 0, 0, 0]);
            out.extend_from_slice(&(transport.len() as u16).to_be_bytes());
            out.extend_from_slice(&[protocol, 64]);
            for host in [self.source, self.destination] {
                out.extend_from_slice(&[0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, host]);
            }
        } else {
            let header = 20 + 4 * self.ip_options;
            out.extend_from_slice(&[0x08, 0, 0x40 | (header / 4) as u8, 0]);
            out.extend_from_slice(&((header + transport.len()) as u16).to_be_bytes());
            out.extend_from_slice(&self.id.to_be_bytes());
            out.extend_from_slice(&[if self.dont_fragment { 0x40 } else { 0 }, 0, 64, protocol, 0, 0]);
            out.extend_from_slice(&[10, 0, 0, self.source, 10, 0, 0, self.destination]);
            out.resize(l3 + header, 1);
            write_ipv4_header(&mut out[l3..]);
        }
        let l4 = out.len();
        out.extend_from_slice(&transport);
        let frame = Frame::parse(&out).expect("longer than an Ethernet header");
        let partial = pseudo(&out, &frame, transport.len());
        let at = l4 + if self.tcp { 16 } else { 6 };
        out[at..at + 2].copy_from_slice(&partial.to_be_bytes());
        out
    }

    fn transport(&self) -> Vec<u8> {
        let mut out = vec![0x9c, 0x40, 0x14, 0x51];
        if self.tcp {
            out.extend_from_slice(&self.sequence.to_be_bytes());
            out.extend_from_slice(&[0, 0, 0, 7, (5 + self.tcp_options as u8) << 4, self.flags, 1, 0, 0, 0, 0, 0]);
            out.resize(20 + 4 * self.tcp_options, 1);
        } else {
            out.extend_from_slice(&((8 + self.payload) as u16).to_be_bytes());
            out.extend_from_slice(&[0, 0]);
        }
        let pattern = (0..self.payload).map(|at| (at as u32).wrapping_mul(7).wrapping_add(self.sequence) as u8 ^ (at >> 8) as u8);
        out.extend(pattern);
        out
    }

    /// The vnet header of [`Recipe::frame`], a super frame where its payload exceeds `gso_size`; 0 is never.
    pub fn vnet(&self, gso_size: u16) -> VnetHeader {
        let l4 = 14 + 4 * self.tags.len() + if self.v6 { 40 } else { 20 + 4 * self.ip_options };
        let is_super = gso_size > 0 && self.payload > usize::from(gso_size);
        let kind = match (self.tcp, self.v6) {
            (true, false) => GSO_TCPV4,
            (true, true) => GSO_TCPV6,
            (false, _) => GSO_UDP_L4,
        };
        VnetHeader {
            flags: NEEDS_CSUM,
            gso_type: if is_super { kind } else { GSO_NONE },
            hdr_len: 0,
            gso_size: if is_super { gso_size } else { 0 },
            csum_start: l4 as u16,
            csum_offset: if self.tcp { 16 } else { 6 },
        }
    }
}
