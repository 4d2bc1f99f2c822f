//! Into a running process and out again, without harm.
//!
//! | module | what it does |
//! | --- | --- |
//! | `inspect` | what a process is, and what would stop an attach |
//! | `injection` | has a thread of it load a library, or call a function of one |
//!
//! Below `injection`: `target` (a process as `/proc` shows it), `image` (symbols
//! in its memory), `tracee` (a thread that is stopped), `frame` (how a borrowed
//! thread gives itself back), `unwind` (what it is in the middle of), `python` (what
//! the interpreter is asked to run).

mod frame;
mod image;
pub mod injection;
pub mod inspect;
mod python;
mod target;
mod tracee;
mod unwind;
