//! The terminal UI over a recording.
//!
//! [`open`] shows one until the user leaves. What is shown is a [`State`],
//! values only; [`update`](update::update) changes it, purely; [`view`] draws
//! it; [`keys`] say what keys mean. A thread of its own (`engine`) holds the
//! recording and answers what the state [wants](State::want).
//!
//! # Invariants
//!
//! * Drawing and updating never wait: all that takes long is the engine's.
//! * The terminal is given back as it was.

mod engine;
pub mod keys;
pub mod message;
mod run;
pub mod state;
mod term;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
mod theme;
pub mod update;
pub mod view;

pub use run::{Options, TuiError, open};
pub use state::{State, ThemeName};
