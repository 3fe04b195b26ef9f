//! The bridge of one host, in memory: where the router's frames end.

use std::io::IoSlice;

use crate::forward::TapSink;
use crate::wire::VnetHeader;

use super::ethernet::{self, Seen};

/// The TAP's other end.
#[derive(Default)]
pub struct Bridge {
    /// What came since it was last asked.
    pub seen: Vec<Seen>,
    /// True where another bridge is joined to this one, and wants all that comes.
    pub joined: bool,
    /// What came since then, for that bridge.
    pub copies: Vec<Vec<u8>>,
    buffer: Vec<u8>,
}

impl TapSink for Bridge {
    fn gso(&self, _gso_type: u8) -> bool {
        true
    }

    fn csum(&self) -> bool {
        true
    }

    fn write(&mut self, _header: &VnetHeader, parts: &[IoSlice<'_>]) {
        self.buffer.clear();
        for part in parts {
            self.buffer.extend_from_slice(part);
        }
        self.seen.push(ethernet::read(&self.buffer));
        if self.joined {
            self.copies.push(self.buffer.clone());
        }
    }
}
