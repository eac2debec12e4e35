//! Where a verb is cut short: a node, a client, and what of both can be seen without asking
//! nodewall: what gets through, what the kernel has attached, and what is pinned.

use std::collections::{BTreeSet, HashSet};
use std::net::{Ipv4Addr, UdpSocket};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};
use std::{fs, thread};

use anyhow::{Context as _, Result, bail, ensure};
use aya::programs::{ProgramInfo, SchedClassifier, TcAttachType, loaded_programs};
use filter_user::datapath::loaded_map_ids;
use serde_json::Value;

use super::trace::Made;
use crate::lab::{Node, Side};

/// Two policies that are told apart by what they deny.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    /// Denies UDP to [`Self::DENIED`] and to a port of its own.
    A,
    /// The same, and to another port.
    B,
}

impl Policy {
    /// The one that this is not.
    #[must_use]
    pub const fn other(self) -> Self {
        match self {
            Self::A => Self::B,
            Self::B => Self::A,
        }
    }

    /// What both deny, and nothing else here sends to.
    pub const DENIED: u16 = 9_000;

    const fn port(self) -> u16 {
        match self {
            Self::A => 9_001,
            Self::B => 9_002,
        }
    }

    fn text(self) -> String {
        let (both, one) = (Self::DENIED, self.port());
        let rules = format!(
            "  - {{action: Deny, protocol: UDP, destination: {{ports: [{both}, {one}]}}}}\n  - \
             {{action: Allow}}\n"
        );
        format!(
            "apiVersion: projectcalico.org/v3\nkind: GlobalNetworkPolicy\nmetadata: {{name: \
             probe}}\nspec:\n  ingress:\n{rules}  egress:\n{rules}"
        )
    }
}

/// What both policies allow.
const OPEN: u16 = 9_003;

/// What decides on what comes in, and on what goes out; `None` where all passes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InForce {
    /// What comes in.
    pub ingress: Option<Policy>,
    /// What goes out.
    pub egress: Option<Policy>,
}

impl InForce {
    /// Both directions by the same.
    #[must_use]
    pub const fn both(policy: Option<Policy>) -> Self {
        Self {
            ingress: policy,
            egress: policy,
        }
    }
}

/// What is seen.
#[derive(Clone, Debug)]
pub struct Observed {
    /// By what gets through.
    pub in_force: InForce,
    /// All that is below the pin folder; the folder of the generation in force is `N`.
    pub pins: BTreeSet<String>,
    /// What the kernel has.
    pub world: World,
}

/// What is attached and pinned, and what a daemon keeps, as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct World {
    xdp: Option<u32>,
    tcx: Vec<u32>,
    pins: BTreeSet<String>,
    kept: BTreeSet<String>,
}

/// From one side to the other.
#[derive(Debug)]
struct Wire {
    from: UdpSocket,
    to: Ipv4Addr,
    /// What hears on A's port, on B's, and on the open one.
    listeners: [UdpSocket; 3],
}

/// How long what must come may take, and what goes away too.
const PATIENCE: Duration = Duration::from_secs(5);
/// How much later than the last packet an earlier one may come, on another queue.
const LATE: Duration = Duration::from_millis(4);

impl Wire {
    fn new(node: &Node, from: Side, to: Side) -> Result<Self> {
        let bind = |side: Side, port| {
            let socket = node
                .lab()
                .in_ns(side, || UdpSocket::bind((side.v4(), port)))??;
            anyhow::Ok(socket)
        };
        let hear = |port| {
            let socket = bind(to, port)?;
            socket.set_nonblocking(true)?;
            anyhow::Ok(socket)
        };
        Ok(Self {
            from: bind(from, 8_000)?,
            to: to.v4(),
            listeners: [
                hear(Policy::A.port())?,
                hear(Policy::B.port())?,
                hear(OPEN)?,
            ],
        })
    }

    /// Sends a datagram to each port; which of them came.
    fn ask(&self, number: u64) -> Result<[bool; 3]> {
        for port in [Policy::A.port(), Policy::B.port(), OPEN] {
            // Where it is denied on the way out, the sender may be told.
            let sent = self.from.send_to(&number.to_ne_bytes(), (self.to, port));
            ensure!(
                port != OPEN || sent.is_ok(),
                "cannot send to the open port: {sent:?}"
            );
        }
        let mut came = [false; 3];
        let mut until = Instant::now() + PATIENCE;
        while came != [true; 3] && Instant::now() < until {
            let was_open = came[2];
            for (listener, came) in self.listeners.iter().zip(&mut came) {
                let mut bytes = [0; 8];
                while let Ok(length) = listener.recv(&mut bytes) {
                    *came |= length == 8 && u64::from_ne_bytes(bytes) == number;
                }
            }
            if came[2] && !was_open {
                until = Instant::now() + LATE;
            }
            thread::sleep(Duration::from_micros(200));
        }
        Ok(came)
    }
}

/// A node whose verbs are cut short.
#[derive(Debug)]
pub struct Stage {
    node: Node,
    ingress: Wire,
    egress: Wire,
    /// Datagrams that were sent, a set at a time.
    asked: u64,
    /// Those that were denied since the filter was attached.
    denied: [u64; 2],
    /// What should be in force.
    now: Option<Policy>,
}

impl Stage {
    /// Makes the machines. Needs root.
    pub fn new() -> Result<Self> {
        let node = Node::new()?;
        for policy in [Policy::A, Policy::B] {
            fs::write(file(&node, policy), policy.text())?;
        }
        fs::create_dir(node.files().join("policies.d"))?;
        Ok(Self {
            ingress: Wire::new(&node, Side::Client, Side::Node)?,
            egress: Wire::new(&node, Side::Node, Side::Client)?,
            node,
            asked: 0,
            denied: [0; 2],
            now: None,
        })
    }

    /// The node.
    #[must_use]
    pub const fn node(&self) -> &Node {
        &self.node
    }

    /// `nodewall apply` of a policy.
    #[must_use]
    pub fn apply(&self, policy: Policy) -> Command {
        self.put("apply", &file(&self.node, policy))
    }

    /// The same, on trial for longer than any test takes.
    #[must_use]
    pub fn try_out(&self, policy: Policy) -> Command {
        let mut command = self.apply(policy);
        command.args(["--confirm", "1h"]);
        command
    }

    /// Any other verb.
    #[must_use]
    pub fn nodewall(&self, arguments: &[&str]) -> Command {
        self.node.command(arguments)
    }

    /// Keeps what is on trial, if something is.
    pub(super) fn end_trial(&self) -> Result<()> {
        let output = self.nodewall(&["confirm"]).stdin(Stdio::null()).output()?;
        ensure!(
            matches!(output.status.code(), Some(0 | 1)),
            "nodewall confirm: {}",
            told(&output)
        );
        Ok(())
    }

    /// `nodewall run` with a policy in its folder.
    pub fn run(&self, policy: Policy) -> Result<Command> {
        let folder = self.node.files().join("policies.d");
        fs::write(folder.join("policy.yaml"), policy.text())?;
        let mut command = self.put("run", &folder);
        command.arg("--no-http").env("NOTIFY_SOCKET", self.notify());
        Ok(command)
    }

    /// Where a daemon says that it is ready.
    fn notify(&self) -> PathBuf {
        self.node.files().join("notify")
    }

    /// Hears what a daemon says of itself.
    pub fn hear(&self) -> Result<UnixDatagram> {
        let path = self.notify();
        // The one of another turn.
        let _ = fs::remove_file(&path);
        let socket = UnixDatagram::bind(path)?;
        socket.set_nonblocking(true)?;
        Ok(socket)
    }

    fn put(&self, verb: &str, files: &Path) -> Command {
        let none = "none";
        let mut command = self.node.command(&[verb, "-f"]);
        command
            .arg(files)
            .args(["--interface", Side::Node.interface()])
            .args(["--failsafe-inbound", none, "--failsafe-outbound", none]);
        command
    }

    /// Takes everything off, whatever is left of it.
    #[must_use]
    pub fn detach_all(&self) -> Command {
        self.node.command(&["detach", "--all"])
    }

    /// The program that is run in the end.
    pub fn program() -> Result<PathBuf> {
        Ok(crate::lab::program().canonicalize()?)
    }

    /// What was brought in force at last.
    #[must_use]
    pub const fn in_force(&self) -> Option<Policy> {
        self.now
    }

    /// From now on this should be in force.
    pub const fn now(&mut self, policy: Option<Policy>) {
        self.now = policy;
    }

    /// The totals begin anew: the filter was taken off.
    pub const fn forget_totals(&mut self) {
        self.denied = [0; 2];
    }

    /// These were denied as well of what came in, by the first rule.
    pub const fn also_denied(&mut self, packets: u64) {
        self.denied[0] += packets;
    }

    /// From now on this is the node's nodewall.
    pub fn install(&mut self, program: &Path) {
        self.node.install(program);
    }

    /// Looks at what is in force, once it is quiet: the kernel lets go of a link a moment
    /// after its pin or its process. What nodewall says of itself must be the same.
    pub fn observe(&mut self) -> Result<Observed> {
        let until = Instant::now() + PATIENCE;
        let world = loop {
            let world = self.world()?;
            let interface = Side::Node.interface();
            let pinned = |name| world.pins.contains(&format!("{interface}/{name}"));
            // A link that has not come to its place is pinned there.
            if (pinned("link") || pinned("new_link")) == world.xdp.is_some()
                && pinned("egress") != world.tcx.is_empty()
            {
                break world;
            }
            ensure!(
                Instant::now() < until,
                "attached is what is not pinned, or the other way round: {world:?}"
            );
            thread::sleep(Duration::from_millis(5));
        };
        let (xdp, tcx) = (world.xdp, &world.tcx);
        let in_force = InForce {
            ingress: self.decides(0)?,
            egress: self.decides(1)?,
        };
        ensure!(
            xdp.is_some() == in_force.ingress.is_some()
                && tcx.is_empty() == in_force.egress.is_none()
                && tcx.len() <= 1,
            "in force is {in_force:?}, but attached are XDP program {xdp:?} and egress programs \
             {tcx:?}"
        );
        let decides = self.ask_nodewall(xdp, in_force)?;
        // Ids are others each time: the generation that decides is `N`, and where the link
        // runs a trial that is `T`, and the one from before `O`.
        let folder = |program: u64| format!("{}/{program}/", Side::Node.interface());
        let known = [decides.map(folder), xdp.map(|xdp| folder(xdp.into()))];
        let normal = |name: &String| {
            let whole = format!("{name}/");
            for (known, short) in known.iter().zip(["N/", "T/"]) {
                if let Some(rest) = known.as_ref().and_then(|known| whole.strip_prefix(known)) {
                    return format!("{short}{rest}");
                }
            }
            let mut parts = whole.splitn(3, '/');
            let (interface, id, rest) = (parts.next(), parts.next(), parts.next());
            let is_id = id.is_some_and(|id| id.parse::<u32>().is_ok());
            match (interface, rest) {
                (Some(_), Some(rest)) if is_id => format!("O/{rest}"),
                _ => whole,
            }
        };
        Ok(Observed {
            in_force,
            pins: world.pins.iter().map(normal).collect(),
            world,
        })
    }

    /// What is attached and pinned.
    pub fn world(&self) -> Result<World> {
        Ok(World {
            xdp: self.node.lab().xdp_program(Side::Node)?,
            tcx: self.tcx()?,
            pins: below(self.node.pins())?,
            kept: self.kept()?,
        })
    }

    /// Which policy decides, by what comes through.
    fn decides(&mut self, direction: usize) -> Result<Option<Policy>> {
        let wire = [&self.ingress, &self.egress][direction];
        self.asked += 1;
        let came = wire.ask(self.asked)?;
        let policy = match came {
            [true, true, true] => return Ok(None),
            [false, true, true] => Policy::A,
            [true, false, true] => Policy::B,
            _ => bail!(
                "direction {direction}: to the ports {}, {} and {OPEN} came {came:?}: that is \
                 neither policy, nor none",
                Policy::A.port(),
                Policy::B.port()
            ),
        };
        self.denied[direction] += 1;
        Ok(Some(policy))
    }

    /// What `status` and `stats` say; gives the program of the generation that decides.
    fn ask_nodewall(&self, xdp: Option<u32>, in_force: InForce) -> Result<Option<u64>> {
        let document = |verb| {
            let output = self.node.command(&[verb, "-o", "json"]).output()?;
            match output.status.code() {
                Some(0) => Ok(serde_json::from_slice::<Value>(&output.stdout)?),
                // Nothing is attached.
                Some(3) => Ok(Value::Null),
                _ => bail!("nodewall {verb}: {}", told(&output)),
            }
        };
        let status = document("status")?;
        let program = status["interfaces"][0]["program_id"].as_u64();
        // During a trial the link runs its dispatcher, which no document names.
        let on_trial = !status["interfaces"][0]["trial"].is_null();
        ensure!(
            on_trial || program == xdp.map(u64::from),
            "`status` says that program {program:?} is in force, the kernel {xdp:?}"
        );
        if in_force.ingress.is_none() {
            return Ok(program);
        }
        let counted = document("stats")?;
        for (direction, denied) in ["ingress", "egress"].iter().zip(self.denied) {
            let sides = counted["interfaces"].as_array().into_iter().flatten();
            let mut sides = sides.filter(|side| side["direction"] == *direction);
            let said = sides.next().map(|side| &side["rules"][0]["packets"]);
            // A direction without totals has denied nothing.
            let said = said.map_or(Some(0), Value::as_u64);
            ensure!(
                said == Some(denied),
                "{direction}: {denied} packets were denied, `stats` says {said:?}"
            );
        }
        Ok(program)
    }

    fn tcx(&self) -> Result<Vec<u32>> {
        let interface = Side::Node.interface();
        let query = || SchedClassifier::query_tcx(interface, TcAttachType::Egress);
        let (_, programs) = self.node.lab().in_ns(Side::Node, query)??;
        let ids = programs.iter().map(aya::programs::ProgramInfo::id);
        Ok(ids.collect())
    }

    /// What a daemon keeps of its own.
    pub fn kept(&self) -> Result<BTreeSet<String>> {
        below(&self.node.files().join("state"))
    }

    /// Waits until of what a process made nothing is left but what is in force.
    pub fn all_gone(&self, made: &Made) -> Result<()> {
        let until = Instant::now() + PATIENCE;
        loop {
            let left = self.left(made)?;
            if left.programs.is_empty() && left.maps.is_empty() {
                return Ok(());
            }
            ensure!(
                Instant::now() < until,
                "of what it made, this is left in the kernel, and not in force: {left:?}"
            );
            thread::sleep(Duration::from_millis(10));
        }
    }

    fn left(&self, made: &Made) -> Result<Made> {
        let mut in_force: HashSet<u32> = self.tcx()?.into_iter().collect();
        in_force.extend(self.node.lab().xdp_program(Side::Node)?);
        // A trial calls these.
        in_force.extend(pinned_programs(self.node.pins())?);
        let mut left = Made::default();
        let mut used = HashSet::new();
        // Who is gone between two questions is not of interest.
        for program in loaded_programs().filter_map(Result::ok) {
            if in_force.contains(&program.id()) {
                used.extend(program.map_ids()?.unwrap_or_default());
            } else if made.programs.contains(&program.id()) {
                left.programs.insert(program.id());
            }
        }
        let there = loaded_map_ids()?;
        let there = there.iter().copied();
        left.maps
            .extend(there.filter(|id| made.maps.contains(id) && !used.contains(id)));
        // `carried` and the record are asked by no program.
        let pinned = pinned_maps(self.node.pins())?;
        left.maps.retain(|id| !pinned.contains(id));
        Ok(left)
    }
}

/// The ids of the maps that are pinned below a folder.
fn pinned_maps(folder: &Path) -> Result<HashSet<u32>> {
    let names = below(folder)?;
    let maps = names.iter().filter_map(|name| {
        // Folders, programs and links are none.
        aya::maps::MapInfo::from_pin(folder.join(name)).ok()
    });
    Ok(maps.map(|map| map.id()).collect())
}

/// The ids of the programs that are pinned below a folder.
fn pinned_programs(folder: &Path) -> Result<HashSet<u32>> {
    let names = below(folder)?;
    let programs = names.iter().filter(|name| name.ends_with("/program"));
    let programs = programs.filter_map(|name| ProgramInfo::from_pin(folder.join(name)).ok());
    Ok(programs.map(|program| program.id()).collect())
}

/// Runs a command, which must succeed; a daemon until it is ready.
pub(crate) fn succeed(command: &mut Command, ready: Option<&UnixDatagram>) -> Result<()> {
    let Some(ready) = ready else {
        let output = command.stdin(Stdio::null()).output()?;
        ensure!(output.status.success(), "{command:?}: {}", told(&output));
        return Ok(());
    };
    let mut daemon = command
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()?;
    let until = Instant::now() + 4 * PATIENCE;
    let mut bytes = [0; 4096];
    let is_ready = loop {
        if let Ok(length) = ready.recv(&mut bytes)
            && bytes[..length].starts_with(b"READY=1")
        {
            break true;
        }
        if daemon.try_wait()?.is_some() || Instant::now() > until {
            break false;
        }
        thread::sleep(Duration::from_millis(2));
    };
    // Its own end is another matter.
    daemon.kill()?;
    let output = daemon.wait_with_output()?;
    ensure!(is_ready, "{command:?} was not ready: {}", told(&output));
    Ok(())
}

fn told(output: &Output) -> String {
    format!(
        "{}: {}",
        output.status,
        String::from_utf8_lossy(&output.stderr).trim_end()
    )
}

fn file(node: &Node, policy: Policy) -> PathBuf {
    node.files().join(format!("{policy:?}.yaml"))
}

/// All that is below a folder, by the ways from there.
fn below(folder: &Path) -> Result<BTreeSet<String>> {
    let mut found = BTreeSet::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(inner) = folders.pop() {
        let entries = match fs::read_dir(&inner) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error).context("cannot look at the pins"),
        };
        for entry in entries {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path.clone());
            }
            let name = path.strip_prefix(folder)?;
            found.insert(name.to_string_lossy().into_owned());
        }
    }
    Ok(found)
}
