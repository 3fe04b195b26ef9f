//! The virtio-net header that precedes every frame read from or written to a TAP with `IFF_VNET_HDR`
//! (virtio 1.2, section 5.1.6; Linux `include/uapi/linux/virtio_net.h`).

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Bytes of the header: what a new TAP has, and others are set to (`TUNSETVNETHDRSZ`).
pub const VNET_LEN: usize = 10;

/// `VIRTIO_NET_HDR_F_NEEDS_CSUM`: the checksum field holds the folded pseudo-header sum, to be completed by whoever needs it.
pub const NEEDS_CSUM: u8 = 1;
/// `gso_type` of a frame that is not a super frame.
pub const GSO_NONE: u8 = 0;
/// `gso_type` of a TCP-over-IPv4 super frame.
pub const GSO_TCPV4: u8 = 1;
/// `gso_type` of a TCP-over-IPv6 super frame.
pub const GSO_TCPV6: u8 = 4;
/// `gso_type` of a run of UDP datagrams.
pub const GSO_UDP_L4: u8 = 5;
/// Bit of `gso_type`: the super frame carries CWR, which belongs on the first segment only.
pub const GSO_ECN: u8 = 0x80;

/// The header, in the machine's byte order as the kernel has it by default.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct VnetHeader {
    /// [`NEEDS_CSUM`] or 0.
    pub flags: u8,
    /// One of the `GSO_` constants, perhaps with [`GSO_ECN`].
    pub gso_type: u8,
    /// Bytes of headers as the kernel believes; never to be trusted.
    pub hdr_len: u16,
    /// Payload bytes of each segment of a super frame.
    pub gso_size: u16,
    /// Where checksumming starts, from the Ethernet header.
    pub csum_start: u16,
    /// Where the checksum field lies, from `csum_start`.
    pub csum_offset: u16,
}

impl VnetHeader {
    /// True where the checksum is partial.
    pub fn needs_csum(&self) -> bool {
        self.flags & NEEDS_CSUM != 0
    }

    /// The GSO type without the ECN bit.
    pub fn gso_kind(&self) -> u8 {
        self.gso_type & !GSO_ECN
    }
}
