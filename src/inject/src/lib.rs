//! Into a running process and out again, without harm.
//!
//! | module | what it does |
//! | --- | --- |
//! | `inspect` | what a process is, and what would stop an attach |
//! | `ledger` | what its resident memory is made of |
//! | `filter` | what its seccomp filters would do with an attach |
//! | `injection` | has a thread of it load a library, or call a function of one |
//!
//! Below `injection`: `borrow` (a thread makes one call and comes back), `frame`
//! (by which it comes back by itself), `tracee` (it is stopped, and read), `unwind`
//! (what it is in the middle of), `target` (a process as `/proc` shows it), `image`
//! (symbols in its memory), `python` (what the interpreter is asked to run).

mod borrow;
pub mod filter;
mod frame;
mod image;
pub mod injection;
pub mod inspect;
pub mod ledger;
mod python;
mod target;
mod tracee;
mod unwind;
