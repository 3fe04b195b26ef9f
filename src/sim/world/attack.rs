//! What somebody on the wire can do.

use super::super::node::Input;
use super::{Captured, RouterId, Sim};
use crate::wire::{Address, Header};

impl Sim {
    /// From now on bad datagrams are no problem of the simulation: somebody lies, or a network damages what it carries.
    pub fn expect_bad_datagrams(&mut self) {
        self.hostile = true;
    }

    /// Starts to copy all that arrives anywhere.
    pub fn capture(&mut self) {
        self.captured = Some(Vec::new());
    }

    /// Ends the capture.
    pub fn captured(&mut self) -> Vec<Captured> {
        self.captured.take().unwrap_or_default()
    }

    /// Gives a router a datagram that seems to come from this address; tells how many bytes of answer it sent there at once.
    pub fn inject(&mut self, to: RouterId, from: Address, bytes: Vec<u8>) -> usize {
        let control = Header::parse(&bytes).map_or(true, |header| header.kind.is_control());
        let segment = bytes.len();
        let before = self.sent_to.get(&(to, from)).copied().unwrap_or(0);
        self.feed(to, Input::Datagrams { from, bytes, segment, control });
        self.sent_to.get(&(to, from)).copied().unwrap_or(0) - before
    }
}
