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

    pub fn words(&mut self) -> &mut [u64] {
        if self.at.is_null() {
            return &mut [];
        }
        // SAFETY: that many were pushed.
        unsafe { core::slice::from_raw_parts_mut(self.at, self.length) }
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

/// Numbers by address; 0 is no address.
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
            if (*place)[0] == key {
                return Some(((*place)[1], false));
            }
            *place = [key, value];
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
        (entry[0] == key).then_some(entry[1])
    }

    /// The place of `key`, or the free one where it belongs.
    unsafe fn find(&self, key: u64) -> *mut [u64; 2] {
        let mut at = (key >> 3).wrapping_mul(0x9e37_79b9_7f4a_7c15) as usize >> 7;
        loop {
            // SAFETY: the caller's: there is a table.
            unsafe {
                let place = self.at.add(at & (self.room - 1));
                if (*place)[0] == key || (*place)[0] == 0 {
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
                    *self.find(entry[0]) = entry;
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
