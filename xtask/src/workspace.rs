//! Where things are in this repository.

use std::path::{Path, PathBuf};

/// The directory of the workspace's `Cargo.toml`.
///
/// `cargo run` says where this package is now; a binary started by hand falls back on where it was compiled.
pub fn root() -> PathBuf {
    let package = std::env::var_os("CARGO_MANIFEST_DIR")
        .map(PathBuf::from)
        .filter(|directory| directory.join("../.cargo/config.toml").exists())
        .unwrap_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")));
    package
        .parent()
        .map_or_else(|| package.clone(), Path::to_path_buf)
}

/// What xtask itself keeps between runs: the linker, caches, logs. Removing it costs two minutes, nothing else.
pub fn tools() -> PathBuf {
    root().join("target/tools")
}

/// The kernel crate has a target directory of its own, since another compiler may build it. It is always this one,
/// whatever `CARGO_TARGET_DIR` says: the build script of `lb-userspace` looks for the object here.
pub fn ebpf_target() -> PathBuf {
    root().join("target/ebpf")
}

/// Where the bench leaves its reports.
pub fn bench() -> PathBuf {
    root().join("target/bench")
}
