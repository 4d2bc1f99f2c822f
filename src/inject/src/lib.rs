//! Into a running process and out again, without harm.
//!
//! | module | what it does |
//! | --- | --- |
//! | `inspect` | what a process is, and what would stop an attach |
//! | `injection` | has a thread of it load a library, or call a function of one |

pub mod injection;
pub mod inspect;
