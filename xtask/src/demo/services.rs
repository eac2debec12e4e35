//! The services on the node, and trying them from the client.

use std::fmt;
use std::net::SocketAddr;
use std::thread;
use std::time::Duration;

use anyhow::{Result, anyhow};
use tests::lab::{Lab, Reach, Side, Transport};

/// One service on the node.
pub(super) struct Target {
    pub(super) transport: Transport,
    pub(super) port: u16,
    /// Whether the policy denies it.
    pub(super) denied: bool,
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.transport, self.port)
    }
}

/// The first port of a usual node port, the last of the range, and one that
/// has nothing to do with it.
pub(super) const SERVICES: [Target; 5] = [
    denied(Transport::Tcp, 30080),
    denied(Transport::Udp, 30080),
    denied(Transport::Tcp, 32767),
    denied(Transport::Udp, 32767),
    Target {
        transport: Transport::Tcp,
        port: 8080,
        denied: false,
    },
];

const fn denied(transport: Transport, port: u16) -> Target {
    Target {
        transport,
        port,
        denied: true,
    }
}

/// How a service was reached over IPv4 and IPv6.
#[derive(Clone, Copy)]
pub(super) struct Outcome([Reach; 2]);

impl Outcome {
    pub(super) fn all_answered(self) -> bool {
        self.0 == [Reach::Answered; 2]
    }

    /// The filter drops silently: nothing comes back.
    pub(super) fn none_answered(self) -> bool {
        self.0 == [Reach::TimedOut; 2]
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = |reach| match reach {
            Reach::Answered => "connected",
            Reach::TimedOut => "no answer",
            Reach::Refused => "refused",
        };
        let [v4, v6] = self.0;
        if v4 == v6 {
            f.write_str(word(v4))
        } else {
            write!(f, "{}/{}", word(v4), word(v6))
        }
    }
}

/// Tries every service, all at the same time, over IPv4 and IPv6.
pub(super) fn try_all(lab: &Lab, patience: Duration) -> Result<Vec<Outcome>> {
    thread::scope(|scope| {
        let attempts: Vec<_> = SERVICES
            .iter()
            .map(|service| {
                Side::Node.addresses().map(|address| {
                    let to = SocketAddr::new(address, service.port);
                    scope.spawn(move || lab.reach(Side::Client, service.transport, to, patience))
                })
            })
            .collect();
        attempts
            .into_iter()
            .map(|[v4, v6]| {
                let v4 = v4.join().map_err(|_| anyhow!("an attempt panicked"))??;
                let v6 = v6.join().map_err(|_| anyhow!("an attempt panicked"))??;
                Ok(Outcome([v4, v6]))
            })
            .collect()
    })
}

/// Whether one service answers over IPv4.
pub(super) fn answers(lab: &Lab, service: &Target) -> bool {
    let to = SocketAddr::new(Side::Node.v4().into(), service.port);
    let reach = lab.reach(Side::Client, service.transport, to, Duration::from_secs(3));
    matches!(reach, Ok(Reach::Answered))
}

/// One line a service.
pub(super) fn print(outcomes: &[Outcome]) {
    for (service, outcome) in SERVICES.iter().zip(outcomes) {
        super::detail(&format!("{:9}  {outcome}", service.to_string()));
    }
}
