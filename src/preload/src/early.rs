//! Blocks for calls that come before the real allocator is known: a few, small,
//! never freed.

use core::cell::UnsafeCell;
use core::ptr::null_mut;
use core::sync::atomic::{AtomicUsize, Ordering};

const BYTES: usize = 16 * 1024;

#[repr(C, align(4096))]
struct Room(UnsafeCell<[u8; BYTES]>);
// SAFETY: pieces are handed out once, by an atomic counter.
unsafe impl Sync for Room {}

static ROOM: Room = Room(UnsafeCell::new([0; BYTES]));
static USED: AtomicUsize = AtomicUsize::new(0);

/// Zeroed memory, or null when the room is used up.
pub fn allocate(size: usize, alignment: usize) -> *mut u8 {
    let Some(bytes) = size.checked_add(alignment.max(16)) else {
        return null_mut();
    };
    let at = USED.fetch_add(bytes, Ordering::Relaxed);
    if at.saturating_add(bytes) > BYTES {
        return null_mut();
    }
    let start = ROOM.0.get() as usize + at;
    start.next_multiple_of(alignment.max(16)) as *mut u8
}

/// Whether a block is one of these.
#[inline(always)]
pub fn owns(block: *mut u8) -> bool {
    (block as usize).wrapping_sub(ROOM.0.get() as usize) < BYTES
}

/// Where they lie.
pub fn room() -> core::ops::Range<u64> {
    let start = ROOM.0.get() as u64;
    start..start + BYTES as u64
}

/// Moves a block out to the real allocator.
pub fn leave(block: *mut u8, size: usize, allocate: impl FnOnce(usize) -> *mut u8) -> *mut u8 {
    let new = allocate(size);
    if !new.is_null() {
        let most = ROOM.0.get() as usize + BYTES - block as usize;
        // SAFETY: the old block's own length is not known; what lies behind it
        // up to the end of the room may be read, and the new one is as long as
        // asked.
        unsafe { core::ptr::copy_nonoverlapping(block, new, size.min(most)) };
    }
    new
}
