//! An allocator that knows how much is taken. Everything else it leaves to mimalloc: threads take from it and give back to it what others took all
//! the time here, which costs the system's allocator a third of all time.

// A global allocator cannot be written without.
#![allow(unsafe_code)]

use std::alloc::{GlobalAlloc, Layout};
use std::sync::atomic::{AtomicIsize, AtomicUsize, Ordering};

use mimalloc::MiMalloc;

/// Threads count each for itself, as many as are likely to run: one number for all would pass from core to core with every call.
static TAKEN: [Count; 64] = [const { Count(AtomicIsize::new(0)) }; 64];
static THREADS: AtomicUsize = AtomicUsize::new(0);

/// What one thread took, less what it gave back: with a cache line of its own.
#[repr(align(128))]
struct Count(AtomicIsize);

thread_local! {
    static OWN: &'static Count = &TAKEN[THREADS.fetch_add(1, Ordering::Relaxed) % TAKEN.len()];
}

/// So many bytes more are taken, or fewer.
fn count(bytes: isize) {
    let own = OWN.try_with(|own| *own).unwrap_or(&TAKEN[0]);
    own.0.fetch_add(bytes, Ordering::Relaxed);
}

struct Counting;

// SAFETY: every call goes to mimalloc as it came; counting needs no memory.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize);
        // SAFETY: the caller's promises are handed on.
        unsafe { MiMalloc.alloc(layout) }
    }

    // What is never written to is never in memory then: routers have buffers for frames, of which none come here.
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize);
        // SAFETY: the caller's promises are handed on.
        unsafe { MiMalloc.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        count(-(layout.size() as isize));
        // SAFETY: the caller's promises are handed on.
        unsafe { MiMalloc.dealloc(ptr, layout) }
    }

    unsafe fn realloc(&self, ptr: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(size as isize - layout.size() as isize);
        // SAFETY: the caller's promises are handed on.
        unsafe { MiMalloc.realloc(ptr, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Bytes that are taken now.
pub fn taken() -> usize {
    TAKEN.iter().map(|count| count.0.load(Ordering::Relaxed)).sum::<isize>().max(0) as usize
}

/// The most megabytes that the process had in memory at once, as the kernel tells it.
pub fn peak() -> Result<f64, String> {
    const FILE: &str = "/proc/self/status";
    let status = std::fs::read_to_string(FILE).map_err(|error| format!("cannot read {FILE}: {error}"))?;
    let kibibytes = status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.split_whitespace().next()?.parse::<f64>().ok());
    kibibytes.map(|kibibytes| kibibytes * 1.024e-3).ok_or_else(|| format!("{FILE} has no VmHWM, the most memory that was used"))
}
