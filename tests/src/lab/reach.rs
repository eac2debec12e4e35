//! Trying a service, as any client would.

use std::io::{ErrorKind, Read as _};
use std::net::{IpAddr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::time::Duration;

use anyhow::{Context as _, Result};

use super::service::{Transport, greeting};
use super::{Lab, Side};

/// How an attempt to reach a service ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// The service answered.
    Answered,
    /// Nothing came back.
    TimedOut,
    /// The machine said that nobody listens.
    Refused,
}

impl Lab {
    /// Tries the service at `to` from a side, for at most `patience`.
    pub fn reach(
        &self,
        side: Side,
        transport: Transport,
        to: SocketAddr,
        patience: Duration,
    ) -> Result<Reach> {
        let outcome = self.in_ns(side, || match transport {
            Transport::Tcp => tcp(to, patience),
            Transport::Udp => udp(to, patience),
        })?;
        match outcome {
            Ok(answer) => {
                anyhow::ensure!(
                    answer == greeting(to.port()),
                    "{transport} {to} answered {answer:?}"
                );
                Ok(Reach::Answered)
            }
            Err(error) => match error.kind() {
                ErrorKind::TimedOut | ErrorKind::WouldBlock => Ok(Reach::TimedOut),
                ErrorKind::ConnectionRefused | ErrorKind::ConnectionReset => Ok(Reach::Refused),
                _ => Err(error).with_context(|| format!("cannot try {transport} {to}")),
            },
        }
    }
}

fn tcp(to: SocketAddr, patience: Duration) -> std::io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&to, patience)?;
    stream.set_read_timeout(Some(patience))?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

fn udp(to: SocketAddr, patience: Duration) -> std::io::Result<String> {
    let any = match to {
        SocketAddr::V4(_) => IpAddr::from([0, 0, 0, 0]),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0))?;
    socket.connect(to)?;
    socket.set_read_timeout(Some(patience))?;
    socket.send(b"hello?")?;
    let mut answer = [0; 64];
    let length = socket.recv(&mut answer)?;
    Ok(String::from_utf8_lossy(&answer[..length]).into_owned())
}
