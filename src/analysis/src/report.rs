//! Answers as text and pictures for people and as JSON for programs.

pub mod ci;
pub mod collapsed;
pub mod export;
pub mod html;
pub mod json;
mod leaks_words;
pub mod pprof;
pub mod speedscope;
pub mod svg;
mod table;
pub mod text;
mod words;

pub(crate) use leaks_words::held_briefly;
pub use leaks_words::step_words;
pub use table::{BOLD, Cell, DIM, Style, Table, WARN, printable};
pub use words::{
    blocks, bytes, bytes_within, counted, duration, rate, signed_blocks, signed_bytes,
};
