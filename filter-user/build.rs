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
    let Some(out) = env::var_os("OUT_DIR").map(PathBuf::from) else {
        return;
    };
    // The bench's programs and those of trials lie beside it.
    for name in [
        "nodewall.bpf.o",
        "nodewall-bench.bpf.o",
        "nodewall-trial.bpf.o",
    ] {
        let from = if name == "nodewall.bpf.o" {
            object.clone()
        } else {
            object.with_file_name(name)
        };
        println!("cargo::rerun-if-changed={}", from.display());
        if let Err(error) = fs::copy(&from, out.join(name)) {
            println!(
                "cargo::error=cannot copy the BPF object {}: {error}",
                from.display()
            );
        }
    }
}
