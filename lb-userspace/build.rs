//! Puts the kernel program, which `cargo xtask build` builds first, where `lbd` embeds it.

use std::{
    env, fs,
    path::{Path, PathBuf},
};

fn main() {
    println!("cargo::rerun-if-env-changed=LB_EBPF_OBJECT");
    let object = env::var_os("LB_EBPF_OBJECT").map_or_else(default_object, PathBuf::from);
    println!("cargo::rerun-if-changed={}", object.display());

    let copy = PathBuf::from(env::var_os("OUT_DIR").unwrap_or_default()).join("lb-ebpf.o");
    if let Err(error) = fs::copy(&object, &copy) {
        let object = object.display();
        println!(
            "cargo::error=the kernel program is not there ({object}: {error}): run `cargo xtask build` instead"
        );
    }
}

fn default_object() -> PathBuf {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    package.parent().unwrap_or(package).join("target/ebpf/bpfel-unknown-none/bpf/lb-ebpf")
}
