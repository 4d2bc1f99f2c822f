//! leakline's recording: an append-only file of checked chunks.
//!
//! [`record`] says what a recording holds, [`Writer`] appends it, [`Recording`]
//! reads it, whole or while it is being written, and [`compact`] makes a shorter
//! copy for the writer to go on in. docs/format.md describes the bytes.
//!
//! # Invariants
//!
//! * A file is whole after every chunk: a writer killed at any instant leaves
//!   at most one chunk cut short, and readers need no repair.
//! * Nothing is lost silently: what a reader skips and what a writer could not
//!   write is counted and ends up in [`Recording::warnings`].
//! * A reader hands on only records that name ids which came before them, so a
//!   consumer may index by them.

// The body of the fuzz target, which a test here shares, knows us by name.
#[cfg(test)]
extern crate self as leakline_recording;

mod chunk;
pub mod cohorts;
mod compact;
mod error;
mod ids;
mod packed;
mod reader;
pub mod record;
mod standing;
#[cfg(test)]
mod tests;
mod writer;

pub use compact::{CompactError, Compacted, Detail, Source, compact};
pub use error::OpenError;
pub use reader::{Damage, Reader, Recording};
pub use writer::{Dropped, Writer};
