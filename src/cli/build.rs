//! Builds the interposer and hands it to the command as a file to embed.
//!
//! The interposer is a `no_std` library with a profile of its own
//! (`interposer`), which a dependency of this crate could not have: so it is
//! built by a second cargo, into a target directory below `OUT_DIR`. Flags
//! meant for the outer build (`RUSTFLAGS` of a coverage or loom run, clippy's
//! wrapper) are kept away from it: the library that goes into other people's
//! programs is always built alike.

use std::collections::hash_map::DefaultHasher;
use std::env;
use std::ffi::OsString;
use std::hash::Hasher;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The interposer's file name, as cargo names it.
const LIBRARY: &str = "libleakline_preload.so";

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let package = PathBuf::from(variable("CARGO_MANIFEST_DIR")?);
    let workspace = package
        .parent()
        .and_then(Path::parent)
        .ok_or("this package is not inside its workspace")?;
    let out = PathBuf::from(variable("OUT_DIR")?);
    for part in ["src/preload", "src/wire", "Cargo.toml", "Cargo.lock"] {
        println!("cargo:rerun-if-changed={}", workspace.join(part).display());
    }

    let built = build(workspace, &out)?;
    let library = std::fs::read(&built)
        .map_err(|error| format!("cannot read {}: {error}", built.display()))?;
    std::fs::write(out.join(LIBRARY), &library)?;

    // Names the unpacked file. Any hash will do: the command compares the
    // file's contents before it uses it.
    let mut hasher = DefaultHasher::new();
    hasher.write(&library);
    println!(
        "cargo:rustc-env=LEAKLINE_PRELOAD_HASH={:016x}",
        hasher.finish()
    );
    Ok(())
}

/// Builds the interposer; returns where it lies.
fn build(workspace: &Path, out: &Path) -> Result<PathBuf, Box<dyn std::error::Error>> {
    let target = variable("TARGET")?;
    let directory = out.join("preload");
    let mut cargo = Command::new(variable("CARGO")?);
    cargo
        .current_dir(workspace)
        .args([
            "build",
            "--locked",
            "--profile",
            "interposer",
            "--package",
            "leakline-preload",
        ])
        .arg("--target")
        .arg(&target)
        .arg("--target-dir")
        .arg(&directory);
    if variable("PROFILE")? == "release" {
        cargo.args(["--config", "profile.interposer.strip=\"symbols\""]);
    }
    for (name, _) in env::vars_os() {
        if name.to_str().is_some_and(belongs_to_the_outer_build) {
            cargo.env_remove(name);
        }
    }
    let status = cargo.status()?;
    if !status.success() {
        return Err(format!("building the interposer failed: {status}").into());
    }
    Ok(directory.join(target).join("interposer").join(LIBRARY))
}

/// Whether a variable says something about the build of this package, and
/// would mislead the second one.
fn belongs_to_the_outer_build(name: &str) -> bool {
    const PREFIXES: [&str; 4] = [
        "CARGO_PKG_",
        "CARGO_CFG_",
        "CARGO_FEATURE_",
        "CARGO_MANIFEST_",
    ];
    const NAMES: [&str; 9] = [
        "RUSTFLAGS",
        "CARGO_ENCODED_RUSTFLAGS",
        "CARGO_BUILD_RUSTFLAGS",
        "CARGO_BUILD_TARGET",
        "CARGO_TARGET_DIR",
        "CARGO_PRIMARY_PACKAGE",
        "RUSTC_WORKSPACE_WRAPPER",
        "CLIPPY_ARGS",
        "CARGO_CRATE_NAME",
    ];
    NAMES.contains(&name) || PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}

fn variable(name: &str) -> Result<OsString, String> {
    env::var_os(name).ok_or_else(|| format!("cargo did not set {name}"))
}
