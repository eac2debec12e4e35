//! Who answers at the site: dnsmasq and iperf3 as the distribution ships them, and
//! plain servers that say back what they hear.

use std::fs::File;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Ipv6Addr, Shutdown, TcpListener, TcpStream, UdpSocket};
use std::process::{Child, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use nix::sys::socket::{setsockopt, sockopt};
use nix::sys::time::{TimeVal, TimeValLike as _};

use super::{Machine, Site};

/// TCP ports that answer as a web server does.
const WEB: [(Machine, u16); 7] = [
    (Machine::Far, 80),
    (Machine::Far, 443),
    (Machine::Client, 80),
    (Machine::Node, 8081),
    (Machine::Node, 30443),
    (Machine::Node, 52311),
    (Machine::Pod, 8080),
];
/// TCP ports that say back what they hear.
const TCP_ECHO: [(Machine, u16); 3] = [(Machine::Far, 22), (Machine::Far, 25), (Machine::Node, 22)];
/// UDP ports that do.
const UDP_ECHO: [(Machine, u16); 9] = [
    (Machine::Far, 123),
    (Machine::Far, 500),
    (Machine::Far, 4500),
    (Machine::Client, 9000),
    (Machine::Client, MANY),
    (Machine::Node, 8081),
    (Machine::Node, 30500),
    (Machine::Node, 52311),
    (Machine::Pod, 8080),
];
/// Ports of iperf3, which serves one client at a time.
const IPERF3: [(Machine, u16); 10] = [
    (Machine::Far, 5201),
    (Machine::Far, 5202),
    (Machine::Far, 5203),
    (Machine::Far, 5204),
    (Machine::Far, 5205),
    (Machine::Far, 5206),
    (Machine::Client, 5207),
    (Machine::Client, 5208),
    (Machine::Node, 30201),
    (Machine::Node, 30202),
];

/// The port of the neighbour's that says back, over UDP, what it hears from many
/// clients at the same time.
pub const MANY: u16 = 9001;

/// What a web server says.
pub(super) const PAGE: &str = "a page of the site\n";
/// The name that the far end's resolver knows, with a text record of more than one
/// frame.
pub(super) const NAME: &str = "example.test";
/// Its address.
pub(super) const NAME_V4: &str = "203.0.113.80";

/// How long a server takes to see that it is to stop.
const TICK: Duration = Duration::from_millis(50);
/// How long a silent connection is kept.
const IDLE: Duration = Duration::from_mins(2);

/// All servers, until this is dropped.
#[derive(Debug)]
pub(super) struct Servers {
    _programs: Vec<Background>,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Servers {
    pub(super) fn start(site: &Site) -> Result<Self> {
        let mut servers = Self {
            _programs: programs(site)?,
            stop: Arc::new(AtomicBool::new(false)),
            threads: Vec::new(),
        };
        for (machine, port) in WEB {
            servers.tcp(site, machine, port, web)?;
        }
        for (machine, port) in TCP_ECHO {
            servers.tcp(site, machine, port, tcp_echo)?;
        }
        for (machine, port) in UDP_ECHO {
            servers.udp(site, machine, port)?;
        }
        Ok(servers)
    }

    fn tcp(
        &mut self,
        site: &Site,
        machine: Machine,
        port: u16,
        answer: fn(TcpStream) -> std::io::Result<()>,
    ) -> Result<()> {
        // A socket stays in the namespace that it was made in; the thread that
        // serves it may run anywhere.
        let listener = site
            .in_ns(machine, || TcpListener::bind((Ipv6Addr::UNSPECIFIED, port)))?
            .with_context(|| format!("cannot listen on tcp {port} of {machine}"))?;
        setsockopt(
            &listener,
            sockopt::ReceiveTimeout,
            &TimeVal::milliseconds(50),
        )?;
        let stop = Arc::clone(&self.stop);
        self.threads.push(thread::spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                match listener.accept() {
                    // Not waited for: it ends with the client, or is idle for long.
                    // A client that went away is no trouble of the server's.
                    Ok((stream, _)) => drop(thread::spawn(move || answer(stream))),
                    Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                    Err(_) => thread::sleep(TICK),
                }
            }
        }));
        Ok(())
    }

    fn udp(&mut self, site: &Site, machine: Machine, port: u16) -> Result<()> {
        let socket = site
            .in_ns(machine, || UdpSocket::bind((Ipv6Addr::UNSPECIFIED, port)))?
            .with_context(|| format!("cannot listen on udp {port} of {machine}"))?;
        socket.set_read_timeout(Some(TICK))?;
        // What many send at once waits here.
        setsockopt(&socket, sockopt::RcvBufForce, &(64 << 20))?;
        let stop = Arc::clone(&self.stop);
        self.threads.push(thread::spawn(move || {
            let mut heard = vec![0; 1 << 16];
            while !stop.load(Ordering::Relaxed) {
                if let Ok((length, from)) = socket.recv_from(&mut heard) {
                    socket.send_to(&heard[..length], from).ok();
                }
            }
        }));
        Ok(())
    }
}

impl Drop for Servers {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            thread.join().ok();
        }
    }
}

fn web(mut stream: TcpStream) -> std::io::Result<()> {
    stream.set_read_timeout(Some(IDLE))?;
    let (mut request, mut piece) = (Vec::new(), [0; 2048]);
    while !request.ends_with(b"\r\n\r\n") {
        let length = stream.read(&mut piece)?;
        if length == 0 {
            return Ok(());
        }
        request.extend(&piece[..length]);
    }
    let length = PAGE.len();
    write!(
        stream,
        "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{PAGE}"
    )?;
    stream.shutdown(Shutdown::Write)
}

fn tcp_echo(mut stream: TcpStream) -> std::io::Result<()> {
    stream.set_read_timeout(Some(IDLE))?;
    let mut piece = [0; 2048];
    loop {
        let length = stream.read(&mut piece)?;
        if length == 0 {
            return Ok(());
        }
        stream.write_all(&piece[..length])?;
    }
}

fn programs(site: &Site) -> Result<Vec<Background>> {
    let leases = format!("--dhcp-leasefile={}", site.files().join("leases").display());
    let dnsmasq = [
        "--keep-in-foreground",
        "--conf-file=/dev/null",
        "--user=root",
    ];
    let dnsmasq = [&dnsmasq[..], &["--pid-file=", "--log-facility=-"]].concat();
    let address = format!("--address=/{NAME}/{NAME_V4}");
    let text = format!(
        "--txt-record={NAME},{}",
        ["x".repeat(200).as_str(); 12].join(",")
    );
    let resolver = [
        "--port=53",
        "--no-resolv",
        "--no-hosts",
        "--bind-interfaces",
    ];
    let resolver = [
        &resolver[..],
        &["--interface=far0", "--edns-packet-max=4096"],
    ]
    .concat();
    let prefix = format!("--dhcp-range={},ra-only,64,3600", super::LAN_PREFIX);
    let addresses = [
        "--port=0",
        "--interface=lan0",
        "--bind-interfaces",
        "--dhcp-authoritative",
        "--no-ping",
        "--enable-ra",
        "--dhcp-range=192.0.2.100,192.0.2.150,255.255.255.0,120",
        "--dhcp-range=2001:db8::1000,2001:db8::1fff,64,120",
        &prefix,
        &leases,
    ];
    // What the prefix belongs to: the router has an address of its own there.
    let own = format!("{}fe/64", super::LAN_PREFIX);
    site.ip(
        Machine::Router,
        &["address", "add", &own, "dev", "lan0", "nodad"],
    )?;

    let mut programs = vec![
        Background::start(
            site,
            Machine::Far,
            "dnsmasq",
            &[&dnsmasq[..], &resolver, &[&address, &text]].concat(),
        )?,
        Background::start(
            site,
            Machine::Router,
            "dnsmasq",
            &[&dnsmasq[..], &addresses].concat(),
        )?,
    ];
    for (machine, port) in IPERF3 {
        let port = port.to_string();
        programs.push(Background::start(
            site,
            machine,
            "iperf3",
            &["--server", "--port", &port],
        )?);
    }
    // What can't start says so soon.
    thread::sleep(Duration::from_millis(500));
    for program in &mut programs {
        program.check()?;
    }
    Ok(programs)
}

/// A program in the background, until this is dropped.
#[derive(Debug)]
pub(super) struct Background {
    name: String,
    child: Child,
    log: std::path::PathBuf,
}

impl Background {
    /// Starts it. It also ends with the thread that calls this.
    pub(super) fn start(
        site: &Site,
        machine: Machine,
        program: &str,
        arguments: &[&str],
    ) -> Result<Self> {
        let name = format!("{program} {}", arguments.join(" "));
        let log = tempfile::NamedTempFile::new_in(site.files())?;
        let (file, log) = log.keep()?;
        let child = site
            .command(machine, "setpriv")
            .args(["--pdeathsig", "KILL", "--", program])
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(File::try_clone(&file)?)
            .stderr(file)
            .spawn()
            .with_context(|| format!("cannot run {name}"))?;
        Ok(Self { name, child, log })
    }

    /// An error if it has ended.
    pub(super) fn check(&mut self) -> Result<()> {
        if let Some(status) = self.child.try_wait()? {
            bail!("{} ended ({status}): {}", self.name, self.said());
        }
        Ok(())
    }

    /// What it has said so far.
    pub(super) fn said(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}
