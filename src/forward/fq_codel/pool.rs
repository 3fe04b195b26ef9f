//! The memory of waiting frames: slots of four sizes, used again and again.

use crate::time::Time;
use crate::wire::VnetHeader;
use crate::wire::vnet::VNET_LEN;

/// No slot.
pub const NONE: u32 = u32::MAX;
/// Bytes of a slot for the longest frame: 65,535 bytes of IP behind two VLAN tags, and the virtio-net header.
pub const LARGE: usize = VNET_LEN + 65_535 + 14 + 8;
/// Sizes of slots. A frame that fits a smaller one is copied into it.
const SIZES: [usize; 4] = [256, 2048, 16_384, LARGE];
/// Slots that are worth keeping when there is no backlog.
const KEPT: usize = 32;

/// A frame's memory and where it stands in its queue.
pub struct Slot {
    buffer: Box<[u8]>,
    length: usize,
    vnet: VnetHeader,
    /// When it was queued.
    pub queued: Time,
    /// The one behind it.
    pub next: u32,
}

/// All slots of one packet thread.
#[derive(Default)]
pub struct Pool {
    slots: Vec<Slot>,
    /// By size.
    free: [Vec<u32>; SIZES.len()],
    /// The one to be read to.
    room: Option<u32>,
    used: usize,
}

impl Slot {
    /// Memory it takes.
    pub fn cost(&self) -> usize {
        self.buffer.len()
    }

    /// Bytes of the frame.
    pub fn length(&self) -> usize {
        self.length
    }

    /// The frame.
    pub fn content(&mut self) -> (VnetHeader, &mut [u8]) {
        (self.vnet, self.buffer.get_mut(VNET_LEN..VNET_LEN + self.length).unwrap_or_default())
    }
}

impl Pool {
    /// Memory of the frames that wait.
    pub fn used(&self) -> usize {
        self.used
    }

    /// Room for a frame of any length and the virtio-net header in front of it.
    pub fn room(&mut self) -> &mut [u8] {
        let at = match self.room {
            Some(at) => at,
            None => self.free(SIZES.len() - 1),
        };
        self.room = Some(at);
        &mut self.slots[at as usize].buffer
    }

    /// Makes a slot of the frame that lies in the room.
    pub fn take(&mut self, now: Time, vnet: VnetHeader, length: usize) -> u32 {
        let end = VNET_LEN + length;
        self.room();
        let large = self.room.unwrap_or(NONE);
        let at = match SIZES.iter().position(|size| end <= *size) {
            Some(class) if SIZES[class] < LARGE => self.free(class),
            _ => large,
        };
        if at == large {
            self.room = None;
        } else if let Ok([from, to]) = self.slots.get_disjoint_mut([large as usize, at as usize]) {
            to.buffer[VNET_LEN..end].copy_from_slice(&from.buffer[VNET_LEN..end]);
        }
        let slot = &mut self.slots[at as usize];
        (slot.length, slot.vnet, slot.queued, slot.next) = (length, vnet, now, NONE);
        self.used += slot.cost();
        at
    }

    /// Frees a slot.
    pub fn put_back(&mut self, at: u32) {
        let cost = self.slot(at).cost();
        self.used -= cost;
        // Last in, first out: what was used just now is still in the cache.
        if let Some(class) = SIZES.iter().position(|size| cost == *size) {
            self.free[class].push(at);
        }
    }

    /// One slot.
    pub fn slot(&self, at: u32) -> &Slot {
        &self.slots[at as usize]
    }

    /// One slot.
    pub fn slot_mut(&mut self, at: u32) -> &mut Slot {
        &mut self.slots[at as usize]
    }

    /// How many slots there are.
    #[cfg(test)]
    pub fn slots(&self) -> usize {
        self.slots.len()
    }

    /// True where there are more slots than a moment's delay needs.
    pub fn is_swollen(&self) -> bool {
        self.slots.len() > KEPT
    }

    fn free(&mut self, class: usize) -> u32 {
        if let Some(at) = self.free[class].pop() {
            return at;
        }
        let buffer = vec![0; SIZES[class]].into_boxed_slice();
        self.slots.push(Slot { buffer, length: 0, vnet: VnetHeader::default(), queued: Time(0), next: NONE });
        (self.slots.len() - 1) as u32
    }
}
