//! Limits on resources (`ulimit`) that are too tight for the collector, which
//! inherits them: it would fail later, and say less.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::CliError;

/// A limit, and what the collector needs under it.
struct Need {
    resource: Resource,
    what: &'static str,
    option: &'static str,
    bytes: u64,
}

const MIB: u64 = 1 << 20;

const NEEDS: [Need; 3] = [
    // The rings' 576 MiB, and room for tables: 930 MiB were seen with a Python
    // program of some imports, half of the rest only reserved.
    Need {
        resource: Resource::As,
        what: "address space",
        option: "-v",
        bytes: 1024 * MIB,
    },
    Need {
        resource: Resource::Data,
        what: "data",
        option: "-d",
        bytes: 256 * MIB,
    },
    // Shared memory counts as a file.
    Need {
        resource: Resource::Fsize,
        what: "the size of files",
        option: "-f",
        bytes: 65 * MIB,
    },
];

/// Refuses to record where a hard limit is too tight: softer ones are raised
/// by [`raise_own`].
pub(crate) fn check() -> Result<(), CliError> {
    for need in NEEDS {
        if let Some(allowed) = getrlimit(need.resource).maximum
            && allowed < need.bytes
        {
            return Err(CliError::Limit {
                what: need.what,
                option: need.option,
                allowed,
                needed: need.bytes,
            });
        }
    }
    Ok(())
}

/// Raises this process's own limits as far as it may: they were meant for the
/// program that is recorded.
pub(crate) fn raise_own() {
    for resource in [
        Resource::As,
        Resource::Data,
        Resource::Fsize,
        Resource::Nofile,
    ] {
        let maximum = getrlimit(resource).maximum;
        let limit = Rlimit {
            current: maximum,
            maximum,
        };
        // Where it may not, it goes on with what there is.
        let _ = setrlimit(resource, limit);
    }
}
