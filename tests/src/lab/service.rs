//! Small real services.

use std::fmt;
use std::io::{ErrorKind, Write as _};
use std::net::{Ipv6Addr, TcpListener, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context as _, Result};
use nix::sys::socket::{setsockopt, sockopt};
use nix::sys::time::{TimeVal, TimeValLike as _};

use super::{Lab, Side};

/// How a service is spoken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// Over TCP.
    Tcp,
    /// Over UDP.
    Udp,
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        })
    }
}

/// A service, over IPv4 and IPv6, until this is dropped.
#[derive(Debug)]
pub struct Service {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// How long a service takes to see that it is to stop.
const TICK: Duration = Duration::from_millis(20);

/// What a service on `port` answers.
pub(super) fn greeting(port: u16) -> String {
    format!("hello from {port}")
}

impl Lab {
    /// Starts a service on a side that answers `hello from <port>`.
    pub fn serve(&self, side: Side, transport: Transport, port: u16) -> Result<Service> {
        let any = (Ipv6Addr::UNSPECIFIED, port);
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        // A socket stays in the namespace that it was made in; the thread
        // that serves it may run anywhere.
        let thread = match transport {
            Transport::Tcp => {
                let listener = self
                    .in_ns(side, || TcpListener::bind(any))?
                    .with_context(|| format!("cannot listen on tcp {port}"))?;
                let tick = TimeVal::milliseconds(20);
                setsockopt(&listener, sockopt::ReceiveTimeout, &tick)?;
                thread::spawn(move || tcp(&listener, port, &stopped))
            }
            Transport::Udp => {
                let socket = self
                    .in_ns(side, || UdpSocket::bind(any))?
                    .with_context(|| format!("cannot listen on udp {port}"))?;
                socket.set_read_timeout(Some(TICK))?;
                thread::spawn(move || udp(&socket, port, &stopped))
            }
        };
        Ok(Service {
            stop,
            thread: Some(thread),
        })
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().ok();
        }
    }
}

fn tcp(listener: &TcpListener, port: u16, stop: &AtomicBool) {
    while !stop.load(Ordering::Relaxed) {
        match listener.accept() {
            // A client that went away is no trouble of the service's.
            Ok((mut stream, _)) => drop(stream.write_all(greeting(port).as_bytes())),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(_) => thread::sleep(TICK),
        }
    }
}

fn udp(socket: &UdpSocket, port: u16, stop: &AtomicBool) {
    let mut question = [0; 2048];
    while !stop.load(Ordering::Relaxed) {
        if let Ok((_, from)) = socket.recv_from(&mut question) {
            socket.send_to(greeting(port).as_bytes(), from).ok();
        }
    }
}
