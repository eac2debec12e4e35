//! xdp-filter of Debian's xdp-tools: its own object, unchanged, with addresses
//! in its map as its command line puts them there.

use std::net::IpAddr;
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::{env, fs, process};

use anyhow::{Context as _, Result, bail};
use aya::maps::{PerCpuArray, PerCpuHashMap, PerCpuValues};
use aya::programs::{ProgramFd, Xdp};
use aya::{Ebpf, EbpfLoader};
use filter_user::datapath::Target;

/// Which of its programs: they differ in what they look at.
#[derive(Clone, Copy)]
pub(crate) enum Features {
    /// Ports, addresses of both layers.
    All,
    /// IP addresses alone.
    Addresses,
}

/// In a value of its maps: the address is a source's.
const SOURCE: u64 = 1;
const XDP_DROP: u32 = 1;

pub(crate) struct XdpFilter {
    ebpf: Ebpf,
    program: ProgramFd,
    /// Its maps are pinned by name: here, and nowhere else.
    pins: PathBuf,
}

impl XdpFilter {
    /// Loads it with these sources to be dropped; all else passes.
    pub(crate) fn load(features: Features, sources: &[IpAddr]) -> Result<Self> {
        static COUNTER: AtomicU32 = AtomicU32::new(0);
        let name = match features {
            Features::All => "xdpfilt_alw_all",
            Features::Addresses => "xdpfilt_alw_ip",
        };
        let object = object(name)?;
        let counter = COUNTER.fetch_add(1, Ordering::Relaxed);
        let pins =
            Path::new("/sys/fs/bpf").join(format!("nodewall-bench-{}-{counter}", process::id()));
        fs::create_dir(&pins)
            .with_context(|| format!("cannot make {} (is a bpffs mounted?)", pins.display()))?;
        let loaded = load(name, &object, &pins, sources);
        match loaded {
            Ok((ebpf, program)) => Ok(Self {
                ebpf,
                program,
                pins,
            }),
            Err(error) => {
                remove(&pins);
                Err(error)
            }
        }
    }

    pub(crate) fn target(&self) -> Target<'_> {
        Target::program(self.program.as_fd(), false)
    }

    /// Packets that it says it dropped.
    pub(crate) fn dropped(&self) -> Result<u64> {
        let map = self.ebpf.map("xdp_stats_map").context("no statistics")?;
        let stats: PerCpuArray<_, [u64; 2]> = map.try_into()?;
        Ok(stats
            .get(&XDP_DROP, 0)?
            .iter()
            .map(|[packets, _]| packets)
            .sum())
    }
}

impl Drop for XdpFilter {
    fn drop(&mut self) {
        remove(&self.pins);
    }
}

fn remove(pins: &Path) {
    for pin in fs::read_dir(pins).into_iter().flatten().flatten() {
        let _ = fs::remove_file(pin.path());
    }
    let _ = fs::remove_dir(pins);
}

fn load(name: &str, object: &[u8], pins: &Path, sources: &[IpAddr]) -> Result<(Ebpf, ProgramFd)> {
    let mut ebpf = EbpfLoader::new()
        .default_map_pin_directory(pins)
        .load(object)
        .context("cannot load xdp-filter")?;
    let program: &mut Xdp = ebpf
        .program_mut(name)
        .with_context(|| format!("no program {name}"))?
        .try_into()?;
    program.load().context("cannot load xdp-filter's program")?;
    let program = program.fd()?.try_clone()?;
    let cpus = aya::util::nr_cpus().map_err(|(what, error)| anyhow::anyhow!("{what}: {error}"))?;
    let value = || PerCpuValues::try_from(vec![SOURCE; cpus]);
    for source in sources {
        match source {
            IpAddr::V4(address) => {
                let map = ebpf.map_mut("filter_ipv4").context("no map of addresses")?;
                let mut map: PerCpuHashMap<_, [u8; 4], u64> = map.try_into()?;
                map.insert(address.octets(), value()?, 0)?;
            }
            IpAddr::V6(address) => {
                let map = ebpf.map_mut("filter_ipv6").context("no map of addresses")?;
                let mut map: PerCpuHashMap<_, [u8; 16], u64> = map.try_into()?;
                map.insert(address.octets(), value()?, 0)?;
            }
        }
    }
    Ok((ebpf, program))
}

/// Where Debian's libxdp has it.
fn object(name: &str) -> Result<Vec<u8>> {
    let folder = env::var_os("LIBXDP_OBJECT_PATH").map_or_else(
        || format!("/usr/lib/{}-linux-gnu/bpf", env::consts::ARCH).into(),
        PathBuf::from,
    );
    let path = folder.join(format!("{name}.o"));
    if !path.exists() {
        bail!("{} is missing: `apt-get install xdp-tools`", path.display());
    }
    fs::read(&path).with_context(|| format!("cannot read {}", path.display()))
}
