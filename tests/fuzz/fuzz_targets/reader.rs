//! Whatever a file holds, reading it ends, does not panic, and hands on only
//! records that keep the reader's promises.
#![no_main]

#[path = "../src/body.rs"]
mod body;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| body::run(bytes));
