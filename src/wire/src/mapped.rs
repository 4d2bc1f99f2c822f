//! What the mappings of a process (`/proc/PID/maps`) show of leakline.

/// Name of a session's memory, which shows as `/memfd:NAME`.
pub const SESSION: &str = "leakline-session";

/// How the file name of every unpacked interposer begins; its version and a
/// hash follow.
pub const INTERPOSER_PREFIX: &str = "libleakline_preload-";
