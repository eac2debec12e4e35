//! Clients for which there is no program: sockets with a certain port, size or pace.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result};
use nix::net::if_::if_nametoindex;

use super::{Family, Machine, Outcome, Site};

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(1);

/// A datagram that must come back, up to three times.
#[derive(Clone, Copy, Debug)]
pub(super) struct Datagram {
    pub(super) from: Machine,
    /// Any where it is 0.
    pub(super) own_port: u16,
    pub(super) to: IpAddr,
    pub(super) port: u16,
    pub(super) bytes: usize,
}

/// Sends a datagram, and waits for it to come back.
pub(super) fn udp(site: &Site, what: Datagram) -> Result<Outcome> {
    let sent: Vec<u8> = (0..=250).cycle().take(what.bytes).collect();
    let outcome = site.in_ns(what.from, || {
        let socket = socket(&what)?;
        let mut heard = vec![0; 1 << 16];
        let mut error = None;
        for _ in 0..3 {
            socket.send(&sent)?;
            match socket.recv(&mut heard) {
                Ok(length) => return Ok(heard[..length] == sent),
                Err(why) => error = Some(why),
            }
        }
        error.map_or(Ok(false), Err)
    })?;
    Ok(match outcome {
        Ok(same) => Outcome::when(same, || "something else came back".to_owned()),
        Err(error) => Outcome::Failed(error.to_string()),
    })
}

/// A datagram to a port where nobody listens: the host says so, and this socket
/// hears it.
pub(super) fn udp_unreachable(site: &Site, what: Datagram) -> Result<Outcome> {
    let outcome = site.in_ns(what.from, || {
        let socket = socket(&what)?;
        socket.send(b"anybody?")?;
        socket.recv(&mut [0; 16])
    })?;
    Ok(Outcome::when(
        matches!(&outcome, Err(error) if error.kind() == ErrorKind::ConnectionRefused),
        || format!("{outcome:?}"),
    ))
}

fn socket(what: &Datagram) -> std::io::Result<UdpSocket> {
    let any = match what.to {
        IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    };
    let socket = UdpSocket::bind((any, what.own_port))?;
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.connect((what.to, what.port))?;
    Ok(socket)
}

/// A connection to a port where nobody listens: refused at once, not after a wait.
pub(super) fn tcp_refused(site: &Site, from: Machine, to: IpAddr, port: u16) -> Result<Outcome> {
    let outcome = site.in_ns(from, || {
        TcpStream::connect_timeout(&SocketAddr::new(to, port), PATIENCE)
    })?;
    Ok(Outcome::when(
        matches!(&outcome, Err(error) if error.kind() == ErrorKind::ConnectionRefused),
        || format!("{outcome:?}"),
    ))
}

/// A connection like that of somebody who thinks between keys: a byte and its echo,
/// `bytes` times, with a pause before each.
pub(super) fn tcp_keys(
    site: &Site,
    from: Machine,
    to: IpAddr,
    port: u16,
    bytes: u8,
    pause: Duration,
) -> Result<Outcome> {
    let connected = site.in_ns(from, || {
        TcpStream::connect_timeout(&SocketAddr::new(to, port), PATIENCE)
    })?;
    let mut stream = match connected {
        Ok(stream) => stream,
        Err(error) => return Ok(Outcome::Failed(error.to_string())),
    };
    // Longer than two retransmissions.
    stream.set_read_timeout(Some(3 * PATIENCE))?;
    for byte in 0..bytes {
        thread::sleep(pause);
        let mut heard = [0];
        let echo = stream
            .write_all(&[byte])
            .and_then(|()| stream.read_exact(&mut heard));
        if let Err(error) = echo {
            return Ok(Outcome::Failed(format!("byte {byte}: {error}")));
        }
    }
    Ok(Outcome::Worked)
}

/// The node joins a group, and its neighbours hear of it (IGMP, MLD).
pub(super) fn join_group(site: &Site, family: Family) -> Result<Outcome> {
    let reports: IpAddr = match family {
        Family::V4 => Ipv4Addr::new(224, 0, 0, 22).into(),
        Family::V6 => Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0x16).into(),
    };
    super::probe::until_heard(site, Machine::Client, reports, || {
        site.in_ns(Machine::Node, || -> std::io::Result<()> {
            match family {
                Family::V4 => {
                    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
                    let group = Ipv4Addr::new(239, 1, 2, 3);
                    socket.join_multicast_v4(&group, &Machine::Node.v4())
                }
                Family::V6 => {
                    let socket = UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0))?;
                    let group = Ipv6Addr::new(0xff05, 0, 0, 0, 0, 0, 0x1, 0x203);
                    let index = if_nametoindex(Machine::Node.interface())?;
                    socket.join_multicast_v6(&group, index)
                }
            }
        })?
        .context("cannot join a group")?;
        Ok(())
    })
}
