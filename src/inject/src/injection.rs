//! Has a thread of a running process load a library, or call a function of one.
