//! System calls, made without libc: nothing here allocates, locks or touches
//! `errno`, so all of it may run in any hook, signal handler or forked child.

use core::arch::{asm, naked_asm};
use core::ffi::c_void;

use leakline_wire::layout::{OWN_MAPPINGS, OwnMemory};
use leakline_wire::sync::{AtomicU32, AtomicU64, Ordering};

/// A failed call's error number.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Errno(pub i32);

pub const ESRCH: Errno = Errno(3);
const EINTR: Errno = Errno(4);
pub const EAGAIN: Errno = Errno(11);
pub const ETIMEDOUT: Errno = Errno(110);

mod number {
    pub const READ: usize = 0;
    pub const WRITE: usize = 1;
    pub const OPEN: usize = 2;
    pub const CLOSE: usize = 3;
    pub const MMAP: usize = 9;
    pub const MPROTECT: usize = 10;
    pub const MUNMAP: usize = 11;
    pub const MREMAP: usize = 25;
    pub const MUNLOCK: usize = 150;
    pub const RT_SIGACTION: usize = 13;
    pub const RT_SIGPROCMASK: usize = 14;
    pub const PREAD: usize = 17;
    pub const SETITIMER: usize = 38;
    pub const SIGALTSTACK: usize = 131;
    pub const EXIT_GROUP: usize = 231;
    pub const MADVISE: usize = 28;
    pub const GETPID: usize = 39;
    pub const SOCKET: usize = 41;
    pub const CONNECT: usize = 42;
    pub const SENDTO: usize = 44;
    pub const SENDMSG: usize = 46;
    pub const RECVMSG: usize = 47;
    pub const BIND: usize = 49;
    pub const SETSOCKOPT: usize = 54;
    pub const CLONE: usize = 56;
    pub const WAIT4: usize = 61;
    pub const KILL: usize = 62;
    pub const GETRLIMIT: usize = 97;
    pub const SETPRIORITY: usize = 141;
    pub const PRCTL: usize = 157;
    pub const GETTID: usize = 186;
    pub const FUTEX: usize = 202;
    pub const CLOCK_GETTIME: usize = 228;
    pub const TGKILL: usize = 234;
    pub const CLOSE_RANGE: usize = 436;
}

/// Makes a system call.
///
/// # Safety
///
/// The arguments must be what call `n` asks for; pointers among them must be
/// valid for what the kernel does with them.
unsafe fn syscall(n: usize, a: [usize; 6]) -> Result<usize, Errno> {
    let result: isize;
    // SAFETY: the kernel's x86-64 convention: number in rax, arguments in rdi,
    // rsi, rdx, r10, r8, r9; it changes rax, rcx, r11 and what the arguments
    // point to, for which the caller vouches.
    unsafe {
        asm!("syscall",
            inlateout("rax") n as isize => result,
            in("rdi") a[0], in("rsi") a[1], in("rdx") a[2],
            in("r10") a[3], in("r8") a[4], in("r9") a[5],
            lateout("rcx") _, lateout("r11") _,
            options(nostack));
    }
    if (-4095..0).contains(&result) {
        Err(Errno(-result as i32))
    } else {
        Ok(result as usize)
    }
}

/// A call on a socket, made again when a signal cuts it short: a stop does so
/// even where no handler runs, once the socket has a time limit. That limit
/// begins anew each time, so this one bounds them together.
///
/// # Safety
///
/// As for [`syscall`].
unsafe fn persevere(n: usize, a: [usize; 6]) -> Result<usize, Errno> {
    const MOST_NS: u64 = 2_000_000_000;
    let began = monotonic_ns();
    let mut again = 100;
    loop {
        // SAFETY: the caller's.
        match unsafe { syscall(n, a) } {
            Err(EINTR) if again > 0 && monotonic_ns().saturating_sub(began) < MOST_NS => again -= 1,
            result => return result,
        }
    }
}

/// Private anonymous memory, zeroed, without further ado: a program may have
/// forbidden itself other calls (seccomp) by now.
pub fn map_late(bytes: usize) -> Option<*mut u8> {
    const READ_WRITE: usize = 3;
    const PRIVATE_ANONYMOUS_NORESERVE: usize = 0x2 | 0x20 | 0x4000;
    // SAFETY: a new mapping at an address of the kernel's choosing touches no
    // memory that exists.
    unsafe {
        syscall(
            number::MMAP,
            [
                0,
                bytes,
                READ_WRITE,
                PRIVATE_ANONYMOUS_NORESERVE,
                usize::MAX,
                0,
            ],
        )
        .ok()
        .map(|at| note_own(at as *mut u8, bytes))
    }
}

/// Where all memory lies that is ours: what is found in it says nothing of the program.
static OWN: OwnMemory = OwnMemory {
    count: AtomicU32::new(0),
    pad: 0,
    mappings: [const { [const { AtomicU64::new(0) }; 2] }; OWN_MAPPINGS],
};

/// See [`OwnMemory`].
pub fn own_memory() -> &'static OwnMemory {
    &OWN
}

fn note_own(at: *mut u8, bytes: usize) -> *mut u8 {
    let place = OWN.count.fetch_add(1, Ordering::Relaxed) as usize;
    if let Some([address, length]) = OWN.mappings.get(place) {
        length.store(bytes as u64, Ordering::Relaxed);
        address.store(at as u64, Ordering::Relaxed);
    }
    at
}

/// Asks that a mapping's pages are never merged into huge ones.
pub fn keep_small_pages(at: *mut u8, bytes: usize) {
    const MADV_NOHUGEPAGE: usize = 15;
    // SAFETY: advice on a mapping of our own; no memory changes.
    let _ = unsafe {
        syscall(
            number::MADVISE,
            [at as usize, bytes, MADV_NOHUGEPAGE, 0, 0, 0],
        )
    };
}

/// Private anonymous memory, zeroed, kept out of core dumps and huge pages.
pub fn map_private(bytes: usize) -> Option<*mut u8> {
    const READ_WRITE: usize = 3;
    const PRIVATE_ANONYMOUS_NORESERVE: usize = 0x2 | 0x20 | 0x4000;
    const PR_SET_VMA: usize = 0x5356_4d41;
    // SAFETY: a new mapping at an address of the kernel's choosing touches no
    // memory that exists; the call after it only names it.
    unsafe {
        let at = syscall(
            number::MMAP,
            [
                0,
                bytes,
                READ_WRITE,
                PRIVATE_ANONYMOUS_NORESERVE,
                usize::MAX,
                0,
            ],
        )
        .ok()?;
        keep_small_pages(at as *mut u8, bytes);
        let name = c"leakline";
        let _ = syscall(
            number::PRCTL,
            [PR_SET_VMA, 0, at, bytes, name.as_ptr() as usize, 0],
        );
        Some(note_own(at as *mut u8, bytes))
    }
}

/// Keeps signals waiting, but for those that the thread's own faults raise.
/// Gives the mask that was.
pub fn block_signals() -> u64 {
    const BLOCK: usize = 0;
    // SIGILL, SIGTRAP, SIGBUS, SIGFPE, SIGSEGV.
    let set: u64 = !(1 << 3 | 1 << 4 | 1 << 6 | 1 << 7 | 1 << 10);
    let mut old = 0u64;
    // SAFETY: both words are ours, and as long as the kernel is told.
    let _ = unsafe {
        syscall(
            number::RT_SIGPROCMASK,
            [
                BLOCK,
                &raw const set as usize,
                &raw mut old as usize,
                8,
                0,
                0,
            ],
        )
    };
    old
}

/// Puts back a mask from [`block_signals`].
pub fn restore_signals(mask: u64) {
    const SET: usize = 2;
    // SAFETY: the word is ours.
    let _ = unsafe {
        syscall(
            number::RT_SIGPROCMASK,
            [SET, &raw const mask as usize, 0, 8, 0, 0],
        )
    };
}

/// Whether the thread runs on its alternate signal stack.
pub fn is_on_signal_stack() -> bool {
    const ONSTACK: u64 = 1;
    let mut old = [0u64; 3];
    // SAFETY: `stack_t` is three words; nothing is set.
    let _ = unsafe {
        syscall(
            number::SIGALTSTACK,
            [0, old.as_mut_ptr() as usize, 0, 0, 0, 0],
        )
    };
    old[1] & ONSTACK != 0
}

/// Forks with no handler run, and with no signal when the child ends: it is seen only by
/// who waits for it as for a clone. 0 in the child.
///
/// # Safety
///
/// The child may use nothing that a lock guards which another thread could hold.
///
/// `registers` gets what the caller, or who called it, may have put into registers that a
/// function keeps, and last the stack pointer: all of the stack above it is then as it is
/// now as long as the caller does not return.
pub unsafe fn fork_quietly(registers: &mut [u64; 7]) -> Result<u32, Errno> {
    // SAFETY: no flag: the child has a copy of the memory and of this stack; what is
    // written are the caller's words.
    let result = unsafe { clone_with_registers(registers) };
    if (-4095..0).contains(&result) {
        Err(Errno(-result as i32))
    } else {
        Ok(result as u32)
    }
}

/// Not even a prologue comes before the registers are kept.
#[unsafe(naked)]
unsafe extern "C" fn clone_with_registers(registers: *mut [u64; 7]) -> isize {
    naked_asm!(
        ".cfi_startproc",
        "mov [rdi], rbx",
        "mov [rdi + 8], rbp",
        "mov [rdi + 16], r12",
        "mov [rdi + 24], r13",
        "mov [rdi + 32], r14",
        "mov [rdi + 40], r15",
        "mov [rdi + 48], rsp",
        "mov eax, {clone}",
        "xor edi, edi",
        "xor esi, esi",
        "xor edx, edx",
        "xor r10d, r10d",
        "xor r8d, r8d",
        "xor r9d, r9d",
        "syscall",
        "ret",
        ".cfi_endproc",
        clone = const number::CLONE,
    )
}

/// Whether a child from [`fork_quietly`] has ended, or is none of ours; then it is gone.
pub fn has_ended(child: u32) -> bool {
    const NO_HANG: usize = 1;
    const CLONE: usize = 0x8000_0000;
    // SAFETY: no word is written to.
    let waited = unsafe { syscall(number::WAIT4, [child as usize, 0, NO_HANG | CLONE, 0, 0, 0]) };
    waited != Ok(0)
}

/// What a child from [`fork_quietly`] does first: it runs no handler of its parent's, has no
/// descriptor of its parent's, is the first to go where memory is short, does not come
/// before others, and ends after so many seconds, whatever it waits for. The process
/// `reader` may look at its memory, where only ancestors may otherwise.
/// Gives what it may read of itself. `None`: it could not be made so.
pub fn be_a_quiet_child(seconds: u64, reader: u32) -> Option<OwnFiles> {
    const PR_SET_PTRACER: usize = 0x5961_6d61;
    const WRITE_ONLY: usize = 1;
    const NICER: usize = 10;
    const SET: usize = 2;
    const SIGNALS: usize = 64;
    const SIGALRM: u64 = 14;
    /// `sa_handler` 0 is the default.
    const DEFAULT: [u64; 4] = [0; 4];
    const REAL: usize = 0;
    // A blocked signal that the child's own fault raises ends it.
    let mask = !(1u64 << (SIGALRM - 1));
    let timer = [0, 0, seconds, 0];
    let path = c"/proc/self/oom_score_adj";
    // SAFETY: the kernel reads what is pointed to. Handlers and descriptors are this
    // process's copies.
    unsafe {
        let all = u64::MAX;
        let mask_of = |set: &u64| [SET, core::ptr::from_ref(set) as usize, 0, 8, 0, 0];
        let _ = syscall(number::RT_SIGPROCMASK, mask_of(&all));
        for signal in 1..=SIGNALS {
            let action = DEFAULT.as_ptr() as usize;
            let _ = syscall(number::RT_SIGACTION, [signal, action, 0, 8, 0, 0]);
        }
        let armed = syscall(
            number::SETITIMER,
            [REAL, timer.as_ptr() as usize, 0, 0, 0, 0],
        );
        let _ = syscall(number::RT_SIGPROCMASK, mask_of(&mask));
        if syscall(number::CLOSE_RANGE, [0, usize::MAX >> 33, 0, 0, 0, 0]).is_err() {
            close_each();
        }
        if let Ok(fd) = syscall(
            number::OPEN,
            [path.as_ptr() as usize, WRITE_ONLY, 0, 0, 0, 0],
        ) {
            write(fd as i32, b"1000");
            close(fd as i32);
        }
        // Who leaves no core (soon) may not open all of them any more.
        let files = OwnFiles {
            maps: open(c"/proc/self/maps"),
            pages: open(c"/proc/self/pagemap"),
        };
        let _ = syscall(number::PRCTL, [PR_SET_PTRACER, reader as usize, 0, 0, 0, 0]);
        let _ = syscall(number::SETPRIORITY, [0, 0, NICER, 0, 0, 0]);
        armed.is_ok().then_some(files)
    }
}

/// Descriptors of what a process may read of itself, where it may.
#[derive(Clone, Copy)]
pub struct OwnFiles {
    /// Its mappings.
    pub maps: Option<i32>,
    /// Which pages are there.
    pub pages: Option<i32>,
}

fn open(path: &core::ffi::CStr) -> Option<i32> {
    const READ_ONLY: usize = 0;
    // SAFETY: the kernel reads the path.
    let opened = unsafe {
        syscall(
            number::OPEN,
            [path.as_ptr() as usize, READ_ONLY, 0, 0, 0, 0],
        )
    };
    opened.ok().map(|fd| fd as i32)
}

/// Reads what comes next; gives how many bytes. `None`: it cannot be read.
pub fn read(fd: i32, bytes: &mut [u8]) -> Option<usize> {
    // SAFETY: the kernel writes within the slice.
    let read = unsafe {
        syscall(
            number::READ,
            [
                fd as usize,
                bytes.as_mut_ptr() as usize,
                bytes.len(),
                0,
                0,
                0,
            ],
        )
    };
    read.ok()
}

/// Reads words from a place of a file on; gives how many. `None`: it cannot be read.
pub fn read_words_at(fd: i32, words: &mut [u64], offset: u64) -> Option<usize> {
    // SAFETY: the kernel writes within the slice, and any bytes are words.
    let read = unsafe {
        syscall(
            number::PREAD,
            [
                fd as usize,
                words.as_mut_ptr() as usize,
                size_of_val(words),
                offset as usize,
                0,
                0,
            ],
        )
    };
    read.ok().map(|bytes| bytes / 8)
}

/// From here on this process leaves no core, and nobody who has not done so yet may open
/// its memory.
pub fn leave_no_core() {
    const PR_SET_DUMPABLE: usize = 4;
    // SAFETY: takes no pointer.
    let _ = unsafe { syscall(number::PRCTL, [PR_SET_DUMPABLE, 0, 0, 0, 0, 0]) };
}

/// Closes all descriptors, where the kernel cannot do it at once (before 5.9).
fn close_each() {
    const RLIMIT_NOFILE: usize = 7;
    let mut limit = [0u64; 2];
    // SAFETY: the kernel writes two words; descriptors are closed in a child.
    let result = unsafe {
        syscall(
            number::GETRLIMIT,
            [RLIMIT_NOFILE, limit.as_mut_ptr() as usize, 0, 0, 0, 0],
        )
    };
    let most = if result.is_ok() { limit[0] } else { 1024 };
    for fd in 0..most.min(1 << 20) {
        close(fd as i32);
    }
}

/// Ends a child from [`fork_quietly`].
pub fn kill_child(child: u32) {
    const SIGKILL: usize = 9;
    // SAFETY: takes no pointer; whoever calls it has not waited for the child, so that the
    // number is the child's.
    let _ = unsafe { syscall(number::KILL, [child as usize, SIGKILL, 0, 0, 0, 0]) };
}

/// Ends the process at once.
pub fn exit_group(status: i32) -> ! {
    loop {
        // SAFETY: it does not come back.
        let _ = unsafe { syscall(number::EXIT_GROUP, [status as usize, 0, 0, 0, 0, 0]) };
    }
}

/// Whether a word can be read there, as the kernel sees it.
pub fn is_readable(at: u64) -> bool {
    const NO_SUCH_WAY: usize = usize::MAX;
    const EINVAL: Errno = Errno(22);
    // SAFETY: the kernel copies the set in before it finds that there is no
    // such way to change the mask: it answers EFAULT or EINVAL and does
    // nothing.
    let answer = unsafe {
        syscall(
            number::RT_SIGPROCMASK,
            [NO_SUCH_WAY, at as usize, 0, 8, 0, 0],
        )
    };
    answer == Err(EINVAL)
}

/// Gives the pages of memory from [`map_private`] back: it reads as zeros.
pub fn empty(at: *mut u8, bytes: usize) {
    const MADV_DONTNEED: usize = 4;
    // SAFETY: memory of ours; every word of it is read and written atomically,
    // and 0 is a valid value.
    let _ = unsafe {
        syscall(
            number::MADVISE,
            [at as usize, bytes, MADV_DONTNEED, 0, 0, 0],
        )
    };
}

/// Memory that a forked child finds zeroed.
pub fn map_wiped_on_fork() -> Option<*mut u8> {
    const MADV_WIPEONFORK: usize = 18;
    let page = map_private(4096)?;
    // SAFETY: advice on the page just mapped.
    unsafe {
        syscall(
            number::MADVISE,
            [page as usize, 4096, MADV_WIPEONFORK, 0, 0, 0],
        )
        .ok()?
    };
    Some(page)
}

/// Maps a shared file of `bytes`, kept out of core dumps.
pub fn map_shared(fd: i32, bytes: usize) -> Result<*mut u8, Errno> {
    const READ_WRITE: usize = 3;
    const SHARED_NORESERVE: usize = 0x1 | 0x4000;
    const MADV_DONTDUMP: usize = 16;
    // SAFETY: as in `map_private`.
    unsafe {
        let at = syscall(
            number::MMAP,
            [0, bytes, READ_WRITE, SHARED_NORESERVE, fd as usize, 0],
        )?;
        let _ = syscall(number::MADVISE, [at, bytes, MADV_DONTDUMP, 0, 0, 0]);
        Ok(at as *mut u8)
    }
}

/// Whether the word at `at` can be written to. Nothing changes: the kernel is
/// asked to set none of its bits, in one indivisible step.
pub fn is_writable(at: u64) -> bool {
    const WAKE_OP_PRIVATE: usize = 5 | 128;
    /// OR with 0, then compare for equality with 0.
    const OR_NOTHING: usize = 2 << 28;
    static NOBODY_WAITS: u32 = 0;
    // SAFETY: wakes whoever waits on the first word, which is nobody, and adds
    // no bit to the second; where that is not writable it answers EFAULT.
    unsafe {
        syscall(
            number::FUTEX,
            [
                (&raw const NOBODY_WAITS) as usize,
                WAKE_OP_PRIVATE,
                0,
                0,
                at as usize,
                OR_NOTHING,
            ],
        )
        .is_ok()
    }
}

/// Lets pages be read, and written to if `writable`.
///
/// # Safety
///
/// The pages must be data of a loaded object that is not being relocated; to
/// take the right to write away, nobody may be about to.
pub unsafe fn protect(at: u64, bytes: u64, writable: bool) -> bool {
    let protection = if writable { 3 } else { 1 };
    // SAFETY: the caller's.
    unsafe {
        syscall(
            number::MPROTECT,
            [at as usize, bytes as usize, protection, 0, 0, 0],
        )
        .is_ok()
    }
}

/// Puts zeros in the place of a shared map: what was shared is let go, and who
/// still looks there finds nothing, but no hole. False: there is no memory for
/// that, and the map is as it was.
///
/// # Safety
///
/// The range must be a map of [`map_shared`], and zeros be valid everywhere in
/// it.
pub unsafe fn cover_with_zeros(at: *mut u8, bytes: usize) -> bool {
    const NOTHING: usize = 0;
    const READ_WRITE: usize = 3;
    const PRIVATE_ANONYMOUS_NORESERVE: usize = 0x2 | 0x20 | 0x4000;
    const MAY_MOVE_FIXED: usize = 1 | 2;
    // SAFETY: the caller's: the range is ours, and takes the new pages in one
    // step. They are made elsewhere first: a program that locks all its memory
    // would have them filled in, and a refusal must not leave a hole.
    unsafe {
        let Ok(zeros) = syscall(
            number::MMAP,
            [
                0,
                bytes,
                NOTHING,
                PRIVATE_ANONYMOUS_NORESERVE,
                usize::MAX,
                0,
            ],
        ) else {
            return false;
        };
        let _ = syscall(number::MUNLOCK, [zeros, bytes, 0, 0, 0, 0]);
        let is_ready = syscall(number::MPROTECT, [zeros, bytes, READ_WRITE, 0, 0, 0]).is_ok();
        keep_small_pages(zeros as *mut u8, bytes);
        let is_covered = is_ready
            && syscall(
                number::MREMAP,
                [zeros, bytes, bytes, MAY_MOVE_FIXED, at as usize, 0],
            )
            .is_ok();
        if !is_covered {
            let _ = syscall(number::MUNMAP, [zeros, bytes, 0, 0, 0, 0]);
        }
        is_covered
    }
}

/// Unmaps a map of [`map_shared`], or what [`cover_with_zeros`] put in its place.
///
/// # Safety
///
/// Nobody may look there any more.
pub unsafe fn unmap(at: *mut u8, bytes: usize) {
    // SAFETY: the caller's.
    let _ = unsafe { syscall(number::MUNMAP, [at as usize, bytes, 0, 0, 0, 0]) };
}

/// Sleeps.
pub fn pause(milliseconds: u64) {
    pause_ns(milliseconds * 1_000_000);
}

/// Sleeps for less than a second.
pub fn pause_ns(nanoseconds: u64) {
    static NOTHING: u32 = 0;
    let _ = futex_wait(&raw const NOTHING, 0, nanoseconds);
}

/// Writes to a descriptor; errors are nothing to a hook.
pub fn write(fd: i32, bytes: &[u8]) {
    // SAFETY: the kernel reads `bytes`, which are valid.
    let _ = unsafe {
        syscall(
            number::WRITE,
            [fd as usize, bytes.as_ptr() as usize, bytes.len(), 0, 0, 0],
        )
    };
}

/// Closes a descriptor of ours.
pub fn close(fd: i32) {
    // SAFETY: callers close only what they opened themselves.
    let _ = unsafe { syscall(number::CLOSE, [fd as usize, 0, 0, 0, 0, 0]) };
}

/// This process's pid.
pub fn getpid() -> u32 {
    // SAFETY: takes nothing.
    unsafe { syscall(number::GETPID, [0; 6]) }.unwrap_or(0) as u32
}

/// This thread's tid.
pub fn gettid() -> u32 {
    // SAFETY: takes nothing.
    unsafe { syscall(number::GETTID, [0; 6]) }.unwrap_or(0) as u32
}

/// Whether thread `tid` of process `pid` is gone.
pub fn thread_is_gone(pid: u32, tid: u32) -> bool {
    // SAFETY: signal 0 sends nothing.
    unsafe { syscall(number::TGKILL, [pid as usize, tid as usize, 0, 0, 0, 0]) == Err(ESRCH) }
}

/// This thread's name, NUL-padded.
pub fn thread_name() -> [u8; 16] {
    const PR_GET_NAME: usize = 16;
    let mut name = [0; 16];
    // SAFETY: the kernel writes 16 bytes.
    let _ = unsafe {
        syscall(
            number::PRCTL,
            [PR_GET_NAME, name.as_mut_ptr() as usize, 0, 0, 0, 0],
        )
    };
    name
}

/// The soft limit of the main thread's stack in bytes.
pub fn stack_limit() -> u64 {
    const RLIMIT_STACK: usize = 3;
    let mut limit = [0u64; 2];
    // SAFETY: the kernel writes two words.
    let result = unsafe {
        syscall(
            number::GETRLIMIT,
            [RLIMIT_STACK, limit.as_mut_ptr() as usize, 0, 0, 0, 0],
        )
    };
    if result.is_ok() { limit[0] } else { 0 }
}

/// CLOCK_MONOTONIC in nanoseconds.
pub fn monotonic_ns() -> u64 {
    clock_ns(1)
}

/// Processor time that this process has had, in nanoseconds.
pub fn spent_ns() -> u64 {
    clock_ns(2)
}

fn clock_ns(clock: usize) -> u64 {
    let mut time = [0u64; 2];
    // SAFETY: the kernel writes two words.
    let _ = unsafe {
        syscall(
            number::CLOCK_GETTIME,
            [clock, time.as_mut_ptr() as usize, 0, 0, 0, 0],
        )
    };
    time[0].wrapping_mul(1_000_000_000).wrapping_add(time[1])
}

/// Sleeps until `word` is no longer `expected`, somebody wakes us, or `ns`
/// have passed.
pub fn futex_wait(word: *const u32, expected: u32, ns: u64) -> Result<(), Errno> {
    const WAIT: usize = 0; // not private: the waker is another process
    let timeout = [0u64, ns];
    // SAFETY: the kernel reads `word`, which lies in the session map, and the
    // timeout.
    unsafe {
        syscall(
            number::FUTEX,
            [
                word as usize,
                WAIT,
                expected as usize,
                timeout.as_ptr() as usize,
                0,
                0,
            ],
        )
        .map(|_| ())
    }
}

/// What a Unix socket carries.
#[derive(Clone, Copy)]
pub enum Carries {
    /// Bytes, to whom it is connected.
    Stream = 1,
    /// Messages.
    Datagrams = 2,
}

/// A Unix socket.
pub fn unix_socket(carries: Carries) -> Result<i32, Errno> {
    const UNIX: usize = 1;
    const CLOEXEC: usize = 0o2_000_000;
    let kind = carries as usize | CLOEXEC;
    // SAFETY: takes numbers.
    unsafe { syscall(number::SOCKET, [UNIX, kind, 0, 0, 0, 0]).map(|fd| fd as i32) }
}

/// Connects a socket to the abstract name made of `name` (without its leading
/// NUL) and `ending`; or to the socket in the file system of that path, if it
/// begins with a slash.
pub fn connect_abstract(fd: i32, name: &[u8], ending: &[u8]) -> Result<(), Errno> {
    with_abstract(number::CONNECT, fd, name, ending)
}

/// Gives a socket that abstract name.
pub fn bind_abstract(fd: i32, name: &[u8], ending: &[u8]) -> Result<(), Errno> {
    with_abstract(number::BIND, fd, name, ending)
}

fn with_abstract(call: usize, fd: i32, name: &[u8], ending: &[u8]) -> Result<(), Errno> {
    const UNIX: u8 = 1;
    let mut address = [0u8; 110];
    address[0] = UNIX;
    // The family's two bytes and, of an abstract name, the NUL.
    let mut length = if name.first() == Some(&b'/') { 2 } else { 3 };
    for (to, from) in address[length..].iter_mut().zip(name.iter().chain(ending)) {
        *to = *from;
        length += 1;
    }
    // SAFETY: bind and connect read `length` bytes of the address, which has
    // as many: each went into a place of it.
    unsafe {
        persevere(
            call,
            [fd as usize, address.as_ptr() as usize, length, 0, 0, 0],
        )
        .map(|_| ())
    }
}

/// Bounds how long connecting, sending and receiving may take.
pub fn set_patience(fd: i32, milliseconds: u64) {
    const SOL_SOCKET: usize = 1;
    let time = [milliseconds / 1000, milliseconds % 1000 * 1000];
    for option in [20, 21] {
        // SO_RCVTIMEO, SO_SNDTIMEO.
        // SAFETY: the kernel reads a timeval.
        let _ = unsafe {
            let time = time.as_ptr() as usize;
            syscall(
                number::SETSOCKOPT,
                [fd as usize, SOL_SOCKET, option, time, 16, 0],
            )
        };
    }
}

/// Sends a byte and with it a descriptor, without waiting.
pub fn send_fd(fd: i32, sent: i32) -> Result<(), Errno> {
    const NOSIGNAL_DONTWAIT: usize = 0x4040;
    let byte = [0u8];
    let mut vector = [byte.as_ptr() as u64, 1];
    // A cmsghdr: length (8), level (4), type (4), then the descriptor.
    let control = [20u64, RIGHTS, u64::from(sent.cast_unsigned())];
    let message = [
        0u64,                         // name
        0,                            // its length
        vector.as_mut_ptr() as u64,   // iov
        1,                            // how many
        control.as_ptr() as u64,      // control
        size_of_val(&control) as u64, // its length
        0,                            // flags
    ];
    // SAFETY: a msghdr as the kernel lays it out, over buffers that live here;
    // it reads them.
    unsafe {
        let message = message.as_ptr() as usize;
        syscall(
            number::SENDMSG,
            [fd as usize, message, NOSIGNAL_DONTWAIT, 0, 0, 0],
        )
        .map(|_| ())
    }
}

/// Level and type of a control message with descriptors: SOL_SOCKET,
/// SCM_RIGHTS.
const RIGHTS: u64 = 1 << 32 | 1;

/// Sends bytes over a socket, never raising SIGPIPE.
pub fn send(fd: i32, bytes: &[u8]) -> Result<usize, Errno> {
    const NOSIGNAL: usize = 0x4000;
    // SAFETY: the kernel reads `bytes`.
    unsafe {
        persevere(
            number::SENDTO,
            [
                fd as usize,
                bytes.as_ptr() as usize,
                bytes.len(),
                NOSIGNAL,
                0,
                0,
            ],
        )
    }
}

/// Receives up to `bytes.len()` bytes and perhaps one descriptor.
pub fn receive_with_fd(fd: i32, bytes: &mut [u8]) -> Result<(usize, Option<i32>), Errno> {
    const CMSG_CLOEXEC: usize = 0x4000_0000;
    let mut control = [0u64; 4];
    let mut vector = [bytes.as_mut_ptr() as u64, bytes.len() as u64];
    let mut message = [
        0u64,                         // name
        0,                            // its length
        vector.as_mut_ptr() as u64,   // iov
        1,                            // how many
        control.as_mut_ptr() as u64,  // control
        size_of_val(&control) as u64, // its length
        0,                            // flags
    ];
    // SAFETY: a msghdr as the kernel lays it out, over buffers that live here;
    // it writes within the lengths given.
    let got = unsafe {
        persevere(
            number::RECVMSG,
            [
                fd as usize,
                message.as_mut_ptr() as usize,
                CMSG_CLOEXEC,
                0,
                0,
                0,
            ],
        )?
    };
    // A cmsghdr: length (8), level (4), type (4), then the descriptor.
    let has_fd = message[5] >= 20 && control[0] >= 20 && control[1] == RIGHTS;
    Ok((got, has_fd.then_some(control[2] as u32 as i32)))
}

/// Prints one line for the user: `leakline[PID]: TEXT`, by write(2).
pub fn complain(parts: &[&[u8]]) {
    let mut line = [0u8; 256];
    let mut at = 0;
    let mut put = |bytes: &[u8]| {
        for byte in bytes {
            if at < line.len() - 1 {
                line[at] = *byte;
                at += 1;
            }
        }
    };
    let mut digits = [0u8; 10];
    put(b"leakline[");
    put(decimal(getpid(), &mut digits));
    put(b"]: ");
    for part in parts {
        put(part);
    }
    line[at] = b'\n';
    write(2, &line[..=at]);
}

/// `value` in decimal digits.
pub fn decimal(value: u32, digits: &mut [u8; 10]) -> &[u8] {
    let mut rest = value;
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            return &digits[at..];
        }
    }
}

/// A word at an address.
///
/// # Safety
///
/// `address` must be mapped and readable; it need not be aligned.
#[inline(always)]
pub unsafe fn word(address: u64) -> u64 {
    // SAFETY: the caller's.
    unsafe { (address as *const u64).read_unaligned() }
}

/// The time-stamp counter.
#[inline(always)]
pub fn tsc() -> u64 {
    // SAFETY: every x86-64 has it; a program that forbids it (PR_SET_TSC)
    // makes the collector choose another clock.
    unsafe { core::arch::x86_64::_rdtsc() }
}

/// An untyped pointer, for tables of functions.
pub type Pointer = *mut c_void;
