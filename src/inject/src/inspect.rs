//! What a process is, read from outside, and what would stop an attach.
