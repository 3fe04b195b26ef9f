//! Where frames for this host's bridge go, as the rules see it.

use std::io::IoSlice;

use crate::wire::VnetHeader;

use super::cut::Cut;
use super::frame::Frame;
use super::rejoin::write_single;

/// The TAP's writing end.
pub trait TapSink {
    /// True where super frames of this `gso_type` may be written: of TCP over either IP, perhaps with CWR, or runs of UDP datagrams (Linux 6.2).
    fn gso(&self, gso_type: u8) -> bool;

    /// True where frames with a partial checksum may be written.
    fn csum(&self) -> bool;

    /// Writes one frame, the concatenation of `parts`. What the kernel refuses is the sink's to count.
    fn write(&mut self, header: &VnetHeader, parts: &[IoSlice<'_>]);
}

/// Writes the super frame `parts`, which the kernel has refused as one, as the frames it was joined from; false where it contradicts its header,
/// and nothing is written.
pub fn write_segments(header: &VnetHeader, parts: &[IoSlice<'_>], tap: &mut dyn TapSink) -> bool {
    let mut bytes = Vec::with_capacity(parts.iter().map(|part| part.len()).sum());
    parts.iter().for_each(|part| bytes.extend_from_slice(part));
    let Some(frame) = Frame::parse(&bytes) else { return false };
    // There is no path here that they would have to fit: each is as long as it came.
    let Ok(cut) = Cut::prepare(&mut bytes, &frame, header, usize::MAX) else { return false };
    let mut segment = Vec::new();
    for index in 0..cut.count() {
        segment.resize(cut.frame_len(index), 0);
        cut.write(&bytes, index, &mut segment);
        write_single(&mut segment, &frame, true, tap);
    }
    true
}

#[cfg(test)]
mod tests;
