//! `leakline run` from outside: what the program sees, what its caller sees,
//! what is refused.
#![expect(
    unsafe_code,
    reason = "sets up the processes under test: signals, descriptors, terminals"
)]
#![expect(clippy::unwrap_used, reason = "a test's helpers fail the test")]

mod limits;
mod output;
mod programs;
mod same;
mod session;
mod signals;
mod status;
mod support;
mod terminal;
