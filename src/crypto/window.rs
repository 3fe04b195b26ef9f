//! The replay window of one lane: words of atomics that any number of receivers share without a lock.
//!
//! The idea is RFC 6479's: the window is a ring of blocks, and moving it forward reuses a whole block at a time. RFC
//! 6479 has one writer, which clears the blocks it skips. Here every block carries its own number beside its bits in
//! one atomic word, so reusing a block and marking its first counter is one compare-and-swap, nothing has to be
//! cleared, and a jump over millions of counters costs the same as a step of one.
//!
//! No counter is accepted twice, whatever the threads do: all marks of one block go through one word, whose block
//! number only ever grows, and a bit that is set stays set until the block is reused.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// Counters behind the highest one seen that are still accepted.
pub const WINDOW: u32 = 8192;
/// Counters in a block: the low half of a word holds their bits, the high half the block's number.
const BLOCK: u32 = 32;
/// Blocks in the ring: a window that starts in the middle of a block touches one more than it has room for.
const BLOCKS: usize = (WINDOW / BLOCK) as usize + 1;

/// Which counters of a lane have been received.
#[derive(Debug)]
pub struct Window {
    top: AtomicU32,
    words: [AtomicU64; BLOCKS],
}

impl Default for Window {
    fn default() -> Window {
        Window { top: AtomicU32::new(0), words: [const { AtomicU64::new(0) }; BLOCKS] }
    }
}

impl Window {
    /// True if `counter` is neither marked nor too old: worth the cost of opening the datagram.
    pub fn check(&self, counter: u32) -> bool {
        if self.is_old(counter) {
            return false;
        }
        let (slot, block, bit) = place(counter);
        marked(self.words[slot].load(Ordering::Relaxed), block, bit).is_some()
    }

    /// Marks `counter`, whose datagram proved genuine; false if it is too old or another thread marked it first.
    ///
    /// Relaxed ordering is enough: every decision about one counter is made on one word.
    pub fn mark(&self, counter: u32) -> bool {
        if self.is_old(counter) {
            return false;
        }
        let (slot, block, bit) = place(counter);
        let fresh = self.words[slot].fetch_update(Ordering::Relaxed, Ordering::Relaxed, |word| marked(word, block, bit)).is_ok();
        if fresh {
            self.top.fetch_max(counter, Ordering::Relaxed);
        }
        fresh
    }

    /// The highest counter marked, 0 before the first.
    pub fn top(&self) -> u32 {
        self.top.load(Ordering::Relaxed)
    }

    fn is_old(&self, counter: u32) -> bool {
        self.top().saturating_sub(counter) >= WINDOW
    }
}

/// Where a counter lies: index of its word, number of its block, its bit.
fn place(counter: u32) -> (usize, u32, u64) {
    let block = counter / BLOCK;
    (block as usize % BLOCKS, block, 1 << (counter % BLOCK))
}

/// The word after marking `bit` of `block` in it; `None` if it is marked already or the word has moved on to a later block.
fn marked(word: u64, block: u32, bit: u64) -> Option<u64> {
    let held = (word >> 32) as u32;
    if held == block { (word & bit == 0).then_some(word | bit) } else { (held < block).then_some(u64::from(block) << 32 | bit) }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    /// The window as its definition has it: a set, and the highest member.
    #[derive(Default)]
    struct Model {
        seen: BTreeSet<u32>,
    }

    impl Model {
        fn accepts(&self, counter: u32) -> bool {
            let top = self.seen.last().copied().unwrap_or(0);
            !self.seen.contains(&counter) && (counter > top || top - counter < WINDOW)
        }
    }

    fn counters() -> impl Strategy<Value = Vec<u32>> {
        // Steps around the window's and the blocks' edges, with jumps, as differences to a moving position.
        let step = prop_oneof![
            6 => -40i64..40,
            3 => -(i64::from(WINDOW) + 70)..=-(i64::from(WINDOW) - 70),
            2 => 0i64..9000,
            1 => 0i64..100_000,
            1 => Just(i64::from(WINDOW)),
        ];
        (prop_oneof![Just(0i64), Just(i64::from(u32::MAX) - 20_000)], proptest::collection::vec(step, 1..400)).prop_map(|(start, steps)| {
            let mut at = start;
            let mut all = Vec::new();
            for step in steps {
                let next = (at + step).clamp(0, i64::from(u32::MAX));
                all.push(next as u32);
                at = at.max(next);
            }
            all
        })
    }

    proptest! {
        #[test]
        fn behaves_as_a_set(counters in counters()) {
            let window = Window::default();
            let mut model = Model::default();
            for counter in counters {
                let expected = model.accepts(counter);
                prop_assert_eq!(window.check(counter), expected, "check {}", counter);
                prop_assert_eq!(window.mark(counter), expected, "mark {}", counter);
                if expected {
                    model.seen.insert(counter);
                }
                prop_assert!(!window.check(counter));
            }
        }
    }

    #[test]
    fn racing_receivers_accept_each_counter_once() {
        const COUNTERS: u32 = 60_000;
        let window = Window::default();
        let accepted: Vec<AtomicU32> = (0..COUNTERS).map(|_| AtomicU32::new(0)).collect();
        std::thread::scope(|scope| {
            for thread in 0..4u32 {
                let (window, accepted) = (&window, &accepted);
                scope.spawn(move || {
                    // Each thread goes through all counters in another order that stays within the window.
                    for base in (0..COUNTERS).step_by(1000) {
                        for i in 0..1000 {
                            let counter = base + (i * (7 + 2 * thread) + 13 * thread) % 1000;
                            if window.check(counter) && window.mark(counter) {
                                accepted[counter as usize].fetch_add(1, Ordering::Relaxed);
                            }
                        }
                    }
                });
            }
        });
        // At least once, too: whoever is ahead met every counter while it was still in the window.
        assert!(accepted.iter().all(|count| count.load(Ordering::Relaxed) == 1));
        assert_eq!(window.top(), COUNTERS - 1);
    }
}
