//! Where frames for this host's bridge go, as the rules see it.

use std::io::IoSlice;

use crate::wire::VnetHeader;

/// The TAP's writing end.
pub trait TapSink {
    /// True where TCP super frames may be written.
    fn gso(&self) -> bool;

    /// True where runs of UDP datagrams may be written as one frame (Linux 6.2).
    fn uso(&self) -> bool {
        self.gso()
    }

    /// True where TCP super frames that carry CWR may be written.
    fn ecn(&self) -> bool {
        self.gso()
    }

    /// True where frames with a partial checksum may be written.
    fn csum(&self) -> bool;

    /// Writes one frame, the concatenation of `parts`. What the kernel refuses is the sink's to count.
    fn write(&mut self, header: &VnetHeader, parts: &[IoSlice<'_>]);
}
