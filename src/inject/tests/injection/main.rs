//! Into running programs, and what comes of them. Needs `cc` and `python3`.
#![expect(clippy::unwrap_used, reason = "a test")]

mod faults;
mod from_memory;
mod programs_in_python;
mod refusals;
mod support;
mod waits;
mod while_busy;
