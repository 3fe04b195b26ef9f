//! Bundles: the plaintext of a data datagram is a run of frames, each behind a small header of its own.
//!
//! ```text
//!  byte 0: form (2 bits) | PARTIAL | LAST | ECN | 3 bits zero
//!  WHOLE     [byte 0][length u16]                        one Ethernet frame
//!  SEGMENT   [byte 0][length u16][index u16]             one self-contained frame cut from a super frame
//!  FRAGMENT  [byte 0][length u16][id u16][index u8]      a slice of a frame that fits no datagram
//! ```
//!
//! PARTIAL says that the frame's TCP or UDP checksum field holds the folded pseudo-header sum only; the receiver
//! finds the field by parsing the frame itself. LAST marks the last segment of a super frame, or the last slice of a
//! frame. ECN (segments) says that the super frame carried CWR. Segments of one super frame have consecutive
//! counters and indices. Numbers are big endian.

use std::ops::Range;

/// Bytes of the header of a whole frame.
pub const WHOLE_LEN: usize = 3;
/// Bytes of the header of a segment.
pub const SEGMENT_LEN: usize = 5;
/// Bytes of the header of a fragment; the largest of the three.
pub const FRAGMENT_LEN: usize = 6;
/// Most slices of one frame: their index is one byte.
pub const MAX_FRAGMENTS: usize = 256;

const FORM: u8 = 0xc0;
const SEGMENT: u8 = 0x40;
const FRAGMENT: u8 = 0x80;
const PARTIAL: u8 = 0x20;
const LAST: u8 = 0x10;
const ECN: u8 = 0x08;
const RESERVED: u8 = 0x07;

/// What stands behind a frame's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// An Ethernet frame.
    Whole,
    /// An Ethernet frame that was cut from a super frame.
    Segment {
        /// Position in the super frame, from 0.
        index: u16,
        /// True for the last segment.
        last: bool,
        /// True where the super frame carried CWR.
        ecn: bool,
    },
    /// A slice of an Ethernet frame.
    Fragment {
        /// Tells apart the frames of one sender's lane.
        id: u16,
        /// Position in the frame, from 0.
        index: u8,
        /// True for the last slice.
        last: bool,
    },
}

/// The header of one frame in a bundle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameHeader {
    /// What follows.
    pub form: Form,
    /// True where the transport checksum is partial.
    pub partial: bool,
    /// Bytes that follow.
    pub length: u16,
}

impl FrameHeader {
    /// Bytes of the header itself.
    pub fn header_len(&self) -> usize {
        match self.form {
            Form::Whole => WHOLE_LEN,
            Form::Segment { .. } => SEGMENT_LEN,
            Form::Fragment { .. } => FRAGMENT_LEN,
        }
    }

    /// Writes header and content into `out`, which must hold exactly both.
    pub fn write(&self, content: &[u8], out: &mut [u8]) {
        self.write_header(out).copy_from_slice(content);
    }

    /// Writes the header to the front of `out` and returns what is left of `out`.
    ///
    /// # Panics
    /// Where `out` is shorter than the header.
    pub fn write_header<'a>(&self, out: &'a mut [u8]) -> &'a mut [u8] {
        let bit = |on: bool, bit: u8| if on { bit } else { 0 };
        let length = self.length.to_be_bytes();
        let partial = bit(self.partial, PARTIAL);
        match self.form {
            Form::Whole => {
                let (header, rest) = out.split_at_mut(WHOLE_LEN);
                header.copy_from_slice(&[partial, length[0], length[1]]);
                rest
            }
            Form::Segment { index, last, ecn } => {
                let index = index.to_be_bytes();
                let (header, rest) = out.split_at_mut(SEGMENT_LEN);
                header.copy_from_slice(&[SEGMENT | partial | bit(last, LAST) | bit(ecn, ECN), length[0], length[1], index[0], index[1]]);
                rest
            }
            Form::Fragment { id, index, last } => {
                let id = id.to_be_bytes();
                let (header, rest) = out.split_at_mut(FRAGMENT_LEN);
                header.copy_from_slice(&[FRAGMENT | partial | bit(last, LAST), length[0], length[1], id[0], id[1], index]);
                rest
            }
        }
    }

    /// Reads one header from the front of `bytes`; `None` where it is malformed or cut short.
    fn read(bytes: &[u8]) -> Option<FrameHeader> {
        let (&[flags, hi, lo], rest) = bytes.split_first_chunk()?;
        if flags & RESERVED != 0 {
            return None;
        }
        let last = flags & LAST != 0;
        let form = match flags & FORM {
            0 if flags & (LAST | ECN) == 0 => Form::Whole,
            SEGMENT => {
                let &[a, b] = rest.first_chunk()?;
                Form::Segment { index: u16::from_be_bytes([a, b]), last, ecn: flags & ECN != 0 }
            }
            FRAGMENT if flags & ECN == 0 => {
                let &[a, b, index] = rest.first_chunk()?;
                Form::Fragment { id: u16::from_be_bytes([a, b]), index, last }
            }
            _ => return None,
        };
        Some(FrameHeader { form, partial: flags & PARTIAL != 0, length: u16::from_be_bytes([hi, lo]) })
    }
}

/// The bundle is malformed from here on; what was yielded before is good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadBundle;

/// Walks the frames of a bundle without borrowing it, so that the bytes may be changed between steps.
#[derive(Clone, Copy, Debug)]
pub struct Cursor {
    at: usize,
    end: usize,
}

impl Cursor {
    /// A cursor over the bundle that lies at `range` of a buffer.
    pub fn new(range: Range<usize>) -> Cursor {
        Cursor { at: range.start, end: range.end }
    }

    /// The next frame's header and where its content lies in `buffer`; `None` at the end.
    pub fn next(&mut self, buffer: &[u8]) -> Option<Result<(FrameHeader, Range<usize>), BadBundle>> {
        let rest = buffer.get(self.at..self.end).filter(|rest| !rest.is_empty())?;
        let found = FrameHeader::read(rest).and_then(|header| {
            let start = self.at + header.header_len();
            let end = start + usize::from(header.length);
            (header.length > 0 && end <= self.end).then_some((header, start..end))
        });
        match found {
            Some((header, range)) => {
                self.at = range.end;
                Some(Ok((header, range)))
            }
            None => {
                self.at = self.end;
                Some(Err(BadBundle))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn golden_bundle() {
        let frames = [
            (FrameHeader { form: Form::Whole, partial: true, length: 2 }, &[0xaa, 0xbb][..]),
            (FrameHeader { form: Form::Segment { index: 0x0102, last: true, ecn: true }, partial: true, length: 1 }, &[0xcc][..]),
            (FrameHeader { form: Form::Fragment { id: 0x0304, index: 5, last: false }, partial: false, length: 1 }, &[0xdd][..]),
            (FrameHeader { form: Form::Fragment { id: 0x0304, index: 6, last: true }, partial: false, length: 1 }, &[0xee][..]),
        ];
        let mut bytes = Vec::new();
        for (header, content) in &frames {
            let at = bytes.len();
            bytes.resize(at + header.header_len() + content.len(), 0);
            header.write(content, &mut bytes[at..]);
        }
        let golden = [0x20, 0, 2, 0xaa, 0xbb, 0x78, 0, 1, 1, 2, 0xcc, 0x80, 0, 1, 3, 4, 5, 0xdd, 0x90, 0, 1, 3, 4, 6, 0xee];
        assert_eq!(bytes, golden);
        let mut cursor = Cursor::new(0..bytes.len());
        for (header, content) in frames {
            let (read, range) = cursor.next(&bytes).expect("a frame").expect("a good frame");
            assert_eq!((read, &bytes[range]), (header, content));
        }
        assert_eq!(cursor.next(&bytes), None);
    }

    #[test]
    fn refuses_malformed_headers() {
        for bad in [
            &[0x00][..],
            &[0x00, 0, 0],
            &[0x00, 0, 2, 1],
            &[0x01, 0, 1, 1],
            &[0x10, 0, 1, 1],
            &[0x08, 0, 1, 1],
            &[0x40, 0, 1, 1],
            &[0x88, 0, 1, 0, 0, 0, 1],
            &[0xc0, 0, 1, 1, 1, 1, 1],
        ] {
            let mut cursor = Cursor::new(0..bad.len());
            assert_eq!(cursor.next(bad), Some(Err(BadBundle)), "{bad:?}");
            assert_eq!(cursor.next(bad), None);
        }
        assert_eq!(Cursor::new(5..9).next(&[0; 6]), None);
    }
}
