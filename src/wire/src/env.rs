//! Every environment variable leakline reads or sets, in one place.

/// Set by `leakline run` for the interposer: `NAME:TOKEN`, the session's
/// abstract socket name (without the leading NUL) and 32 hexadecimal digits
/// that a process must know to join.
pub const SESSION: &str = "LEAKLINE_SESSION";

/// The dynamic loader's list of libraries to load first.
pub const PRELOAD: &str = "LD_PRELOAD";

/// Overrides where the interposer is unpacked to (default: a directory of the
/// user's own below `$XDG_RUNTIME_DIR` or `/tmp`). Must have no space or colon.
pub const PRELOAD_DIR: &str = "LEAKLINE_PRELOAD_DIR";

/// Set by `leakline run --no-follow`: the pid that alone is recorded. Other
/// processes that find it leave at once.
pub const ONLY_PID: &str = "LEAKLINE_ONLY_PID";

/// Where a program started with `leakline run --idle` gets the [page](crate::layout::IdlePage)
/// that it looks at: as [`SESSION`], of the supervisor's socket.
pub const IDLE: &str = "LEAKLINE_IDLE";
