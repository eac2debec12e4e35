//! Hands the BPF object, which `cargo xtask build` made, to the library.
use std::path::PathBuf;
use std::{env, fs};

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    if env::var_os("CARGO_FEATURE_BPF").is_none() {
        return;
    }
    println!("cargo::rerun-if-env-changed=NODEWALL_BPF_OBJECT");
    let Some(object) = env::var_os("NODEWALL_BPF_OBJECT").map(PathBuf::from) else {
        println!(
            "cargo::error=the feature `bpf` embeds the BPF object, which `cargo xtask build` makes and names in NODEWALL_BPF_OBJECT: build with `cargo xtask build`"
        );
        return;
    };
    println!("cargo::rerun-if-changed={}", object.display());
    let Some(out) = env::var_os("OUT_DIR").map(PathBuf::from) else {
        return;
    };
    if let Err(error) = fs::copy(&object, out.join("nodewall.bpf.o")) {
        println!(
            "cargo::error=cannot copy the BPF object {}: {error}",
            object.display()
        );
    }
}
