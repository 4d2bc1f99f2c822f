//! Lists and tables in memory of their own: nothing is allocated from anybody's heap.

use core::ptr::null_mut;

use crate::sys;

/// Words in memory of their own.
pub struct List {
    at: *mut u64,
    room: usize,
    pub length: usize,
}

impl Default for List {
    fn default() -> Self {
        List {
            at: null_mut(),
            room: 0,
            length: 0,
        }
    }
}

impl List {
    /// False: there is no memory.
    pub fn push(&mut self, word: u64) -> bool {
        if self.length == self.room && !self.grow() {
            return false;
        }
        // SAFETY: there is room.
        unsafe { self.at.add(self.length).write(word) };
        self.length += 1;
        true
    }

    pub fn pop(&mut self) -> Option<u64> {
        self.length = self.length.checked_sub(1)?;
        // SAFETY: it was pushed.
        Some(unsafe { self.at.add(self.length).read() })
    }

    /// The word at a place.
    ///
    /// # Safety
    ///
    /// There must be one.
    #[inline(always)]
    pub unsafe fn get_unchecked(&self, at: usize) -> u64 {
        // SAFETY: the caller's.
        unsafe { self.at.add(at).read() }
    }

    pub fn words(&mut self) -> &mut [u64] {
        if self.at.is_null() {
            return &mut [];
        }
        // SAFETY: that many were pushed.
        unsafe { core::slice::from_raw_parts_mut(self.at, self.length) }
    }

    /// Gives its memory back: what it had is nowhere to be found.
    pub fn release(&mut self) {
        if !self.at.is_null() {
            // SAFETY: ours, and nobody looks there any more.
            unsafe { sys::unmap(self.at.cast(), self.room * 8) };
        }
        *self = List::default();
    }

    #[cold]
    fn grow(&mut self) -> bool {
        let room = (self.room * 2).max(4096);
        let Some(new) = sys::map_private(room * 8) else {
            return false;
        };
        let new = new.cast::<u64>();
        if !self.at.is_null() {
            // SAFETY: both are ours, and the new one is larger.
            unsafe {
                new.copy_from_nonoverlapping(self.at, self.length);
                sys::unmap(self.at.cast(), self.room * 8);
            }
        }
        self.at = new;
        self.room = room;
        true
    }
}

/// Numbers by address; 0 and !0 are no addresses.
///
/// Keys lie there with all bits turned: who searches memory for an address finds none here.
pub struct Map {
    at: *mut [u64; 2],
    room: usize,
    pub length: usize,
}

impl Default for Map {
    fn default() -> Self {
        Map {
            at: null_mut(),
            room: 0,
            length: 0,
        }
    }
}

impl Map {
    /// The number of `key`, and whether it is new: then it is `value`. `None`: there is
    /// no memory.
    pub fn entry(&mut self, key: u64, value: u64) -> Option<(u64, bool)> {
        if self.length * 2 >= self.room && !self.grow() {
            return None;
        }
        // SAFETY: the table has a free place, and all of it is ours.
        unsafe {
            let place = self.find(key);
            if (*place)[0] == !key {
                return Some(((*place)[1], false));
            }
            *place = [!key, value];
        }
        self.length += 1;
        Some((value, true))
    }

    /// The number of `key`.
    pub fn get(&self, key: u64) -> Option<u64> {
        if self.room == 0 {
            return None;
        }
        // SAFETY: there is a table, with free places.
        let entry = unsafe { *self.find(key) };
        // A free place is what !0 would have.
        (entry[0] == !key && entry[0] != 0).then_some(entry[1])
    }

    /// Adds one to the number of `key`, if it has one.
    pub fn add(&mut self, key: u64) {
        if self.room == 0 {
            return;
        }
        // SAFETY: there is a table, with free places.
        unsafe {
            let place = self.find(key);
            if (*place)[0] == !key && (*place)[0] != 0 {
                (*place)[1] += 1;
            }
        }
    }

    /// What is at the `i`-th place, of [`Map::room`].
    pub fn at(&self, i: usize) -> Option<[u64; 2]> {
        if i >= self.room {
            return None;
        }
        // SAFETY: within the table.
        let [key, value] = unsafe { *self.at.add(i) };
        (key != 0).then_some([!key, value])
    }

    /// How many places there are.
    pub fn room(&self) -> usize {
        self.room
    }

    /// The place of `key`, or the free one where it belongs.
    unsafe fn find(&self, key: u64) -> *mut [u64; 2] {
        let mut at = (key >> 3).wrapping_mul(0x9e37_79b9_7f4a_7c15) as usize >> 7;
        loop {
            // SAFETY: the caller's: there is a table.
            unsafe {
                let place = self.at.add(at & (self.room - 1));
                if (*place)[0] == !key || (*place)[0] == 0 {
                    return place;
                }
            }
            at += 1;
        }
    }

    #[cold]
    fn grow(&mut self) -> bool {
        let room = (self.room * 2).max(4096);
        let Some(new) = sys::map_private(room * 16) else {
            return false;
        };
        let old = core::mem::replace(
            self,
            Map {
                at: new.cast(),
                room,
                length: self.length,
            },
        );
        for i in 0..old.room {
            // SAFETY: within the old table; the new one has free places.
            unsafe {
                let entry = old.at.add(i).read();
                if entry[0] != 0 {
                    *self.find(!entry[0]) = entry;
                }
            }
        }
        if !old.at.is_null() {
            // SAFETY: nobody looks there any more.
            unsafe { sys::unmap(old.at.cast(), old.room * 16) };
        }
        true
    }
}

/// How often each address was met: a byte for each 16 of a page that has one, up to
/// [`Counts::MOST`].
#[derive(Default)]
pub struct Counts {
    /// By page (as a multiple of 8): the how manieth it is.
    pages: Map,
    bytes: List,
}

impl Counts {
    /// What is met more often is counted no further.
    pub const MOST: u8 = u8::MAX;
    const WORDS_OF_PAGE: u64 = 4096 / 16 / 8;

    /// Counts one more. False: there is no memory.
    pub fn add(&mut self, address: u64) -> bool {
        let Some((page, is_new)) = self
            .pages
            .entry(address >> 12 << 3, self.pages.length as u64)
        else {
            return false;
        };
        if is_new && !(0..Self::WORDS_OF_PAGE).all(|_| self.bytes.push(0)) {
            return false;
        }
        let (word, shift) = Self::place(page, address);
        if let Some(word) = self.bytes.words().get_mut(word)
            && (*word >> shift) as u8 != Self::MOST
        {
            *word += 1 << shift;
        }
        true
    }

    /// How often it was met.
    pub fn get(&mut self, address: u64) -> u8 {
        let Some(page) = self.pages.get(address >> 12 << 3) else {
            return 0;
        };
        let (word, shift) = Self::place(page, address);
        let word = self.bytes.words().get(word).copied().unwrap_or(0);
        (word >> shift) as u8
    }

    fn place(page: u64, address: u64) -> (usize, u32) {
        let slot = address >> 4 & 0xff;
        (
            (page * Self::WORDS_OF_PAGE + slot / 8) as usize,
            (slot % 8 * 8) as u32,
        )
    }

    /// Gives its memory back.
    pub fn release(&mut self) {
        self.bytes.release();
    }
}
