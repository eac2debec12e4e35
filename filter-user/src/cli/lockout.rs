//! Who would be cut off: connections that are there now, and whoever types the command
//! over SSH, under policies that are about to be put in force.

use std::env;
use std::fmt;
use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use procfs::net::{TcpNetEntry, TcpState};

use super::compiled::Target;
use super::output::{Color, warning};
use super::replay::decided_by;
use crate::conversation::Conversation;
use crate::datapath::{self, Compiled, HostAddresses};
use crate::decision::Decision;
use crate::packet_text::{Fields, PacketText};
use crate::ruleset::{Direction, Ruleset};
use filter_common::verdict::Verdict;

const TCP: u8 = 6;
const SYN: u8 = 0x02;
const ACK: u8 = 0x10;
/// Connections that are named; how many more there are is said.
const NAMED: usize = 5;
/// Where a client comes from next, nobody knows.
const ANY_PORT: u16 = 50_000;

/// A TCP connection of this host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Connection {
    peer: SocketAddr,
    local: SocketAddr,
}

impl fmt::Display for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} > {}", self.peer, self.local)
    }
}

impl Connection {
    /// The packet that comes in along it, or with `out` goes out.
    fn frame(self, out: bool, flags: u8) -> Vec<u8> {
        let (src, dst) = if out {
            (self.local, self.peer)
        } else {
            (self.peer, self.local)
        };
        let fields = Fields {
            protocol: Some(TCP),
            src: src.ip(),
            dst: dst.ip(),
            sport: src.port(),
            selector: dst.port(),
            ..Fields::default()
        };
        let mut frame = PacketText::new(fields).frame();
        // The header is the last that there is: 20 bytes, its flags the 14th.
        let at = frame.len() - 7;
        frame[at] = flags;
        frame
    }
}

/// What is to be in force on an interface.
struct Policies<'t> {
    ingress: Compiled<'t>,
    egress: Option<Compiled<'t>>,
    /// Whether flows are remembered.
    remembers: bool,
}

/// Why packets of a connection would be dropped.
struct Cut<'t> {
    direction: Direction,
    ruleset: &'t Ruleset,
    decision: Decision,
}

impl fmt::Display for Cut<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let direction = match self.direction {
            Direction::Ingress => "",
            Direction::Egress => "its answers ",
        };
        write!(f, "{direction}dropped ")?;
        match decided_by(self.ruleset, self.decision) {
            (Some(policy), Some(rule)) => write!(f, "by rule {rule} of {policy:?}"),
            (Some(policy), None) => write!(f, "by the end of {policy:?}"),
            (None, _) => write!(f, "as {}", self.decision.reason.name()),
        }
    }
}

impl<'t> Policies<'t> {
    /// What would end a connection. One that goes on as soon as the host itself sends is
    /// none that ends: the host remembers it then.
    fn end(&self, connection: Connection) -> Option<Cut<'t>> {
        let (out, back) = (connection.frame(true, ACK), connection.frame(false, ACK));
        let (sent, come) = match self.egress {
            Some(egress) if self.remembers => {
                let both = Conversation::new(
                    (self.ingress.ruleset, self.ingress.image),
                    (egress.ruleset, egress.image),
                );
                let sent = both.judge(Duration::ZERO, Direction::Egress, &out);
                let come = both.judge(Duration::from_millis(1), Direction::Ingress, &back);
                (Some((egress, sent)), come)
            }
            egress => (
                egress.map(|egress| (egress, egress.image.judge(&out))),
                self.ingress.image.judge(&back),
            ),
        };
        if let Some((egress, sent)) = sent
            && sent.decision.verdict == Verdict::Drop
        {
            return Some(Cut {
                direction: Direction::Egress,
                ruleset: egress.ruleset,
                decision: sent.decision,
            });
        }
        self.refusal(come.decision)
    }

    /// What would refuse a new one.
    fn refuses(&self, connection: Connection) -> Option<Cut<'t>> {
        let judgement = self.ingress.image.judge(&connection.frame(false, SYN));
        self.refusal(judgement.decision)
    }

    fn refusal(&self, decision: Decision) -> Option<Cut<'t>> {
        (decision.verdict == Verdict::Drop).then_some(Cut {
            direction: Direction::Ingress,
            ruleset: self.ingress.ruleset,
            decision,
        })
    }
}

/// Warns of what policies would cut off; how often it did.
/// `remembers`: whether flows are.
pub(super) fn warn(color: Color, targets: &[Target], remembers: bool) -> usize {
    // What can't be told is not worth an error: the check is a help, not a gate.
    let Ok(host) = datapath::addresses() else {
        return 0;
    };
    let connections = connections();
    let own = ssh_connection();
    let mut warned = 0;
    for target in targets {
        let addresses = of_interface(&host, &target.interface);
        let policies = Policies {
            ingress: Compiled {
                ruleset: &target.ruleset,
                image: &target.image,
            },
            egress: target.egress_in_force(remembers),
            remembers,
        };
        let here = |connection: &&Connection| addresses.contains(&connection.local.ip());
        for sentence in sentences(
            &target.interface,
            &policies,
            connections.iter().filter(here),
            own.as_ref().filter(here),
        ) {
            warning(color, sentence);
            warned += 1;
        }
    }
    warned
}

fn of_interface<'h>(host: &'h HostAddresses, interface: &str) -> &'h [IpAddr] {
    let mut interfaces = host.interfaces.iter();
    interfaces
        .find(|(name, _)| name == interface)
        .map_or(&[], |(_, addresses)| addresses)
}

fn sentences<'c>(
    interface: &str,
    policies: &Policies<'_>,
    connections: impl Iterator<Item = &'c Connection>,
    own: Option<&Connection>,
) -> Vec<String> {
    let mut sentences = Vec::new();
    if let Some(own) = own {
        let again = Connection {
            peer: SocketAddr::new(own.peer.ip(), ANY_PORT),
            local: own.local,
        };
        let help = "allow it, or try the policies with --confirm 60s, after which the kernel goes \
                    back by itself";
        if let Some(cut) = policies.end(*own) {
            sentences.push(format!(
                "these policies would cut your own SSH connection on {interface}, {own}: {cut}. To \
                 stay: {help}."
            ));
        } else if let Some(cut) = policies.refuses(again) {
            sentences.push(format!(
                "with these policies you could not log in again on {interface} from {}: a new \
                 connection to {} would be {cut}. To stay: {help}.",
                own.peer.ip(),
                own.local
            ));
        }
    }
    let others = connections.filter(|connection| Some(*connection) != own);
    let cut: Vec<(Connection, Cut<'_>)> = others
        .filter_map(|connection| Some((*connection, policies.end(*connection)?)))
        .collect();
    if !cut.is_empty() {
        let named: Vec<String> = cut
            .iter()
            .take(NAMED)
            .map(|(connection, cut)| format!("{connection} ({cut})"))
            .collect();
        let more = cut.len().saturating_sub(NAMED);
        let more = if more == 0 {
            String::new()
        } else {
            format!(", and {more} more")
        };
        sentences.push(format!(
            "these policies would cut {} of the connections that are established now on {interface}: \
             {}{more}",
            cut.len(),
            named.join(", "),
        ));
    }
    sentences
}

/// Those that are established in this network namespace.
fn connections() -> Vec<Connection> {
    let (v4, v6) = (procfs::net::tcp(), procfs::net::tcp6());
    let all = v4.into_iter().flatten().chain(v6.into_iter().flatten());
    all.filter(|entry| entry.state == TcpState::Established)
        .map(|entry: TcpNetEntry| Connection {
            peer: canonical(entry.remote_address),
            local: canonical(entry.local_address),
        })
        .collect()
}

/// Over the wire a mapped address is one of IPv4.
fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// The SSH connection that this process was started over. sudo forgets it, so its
/// ancestors are asked as well.
fn ssh_connection() -> Option<Connection> {
    if let Ok(text) = env::var(SSH_CONNECTION) {
        return read_ssh(&text);
    }
    let mut process = procfs::process::Process::myself().ok()?;
    // Not for ever: a process may take the place of its parent.
    for _ in 0..64 {
        let parent = process.stat().ok()?.ppid;
        if parent <= 1 {
            return None;
        }
        process = procfs::process::Process::new(parent).ok()?;
        let environment = fs::read(format!("/proc/{parent}/environ")).unwrap_or_default();
        let found = environment.split(|byte| *byte == 0).find_map(|entry| {
            let entry = std::str::from_utf8(entry).ok()?;
            entry.strip_prefix(SSH_CONNECTION)?.strip_prefix('=')
        });
        if let Some(found) = found {
            return read_ssh(found);
        }
    }
    None
}

/// As sshd sets it: the client's address and port, the server's address and port.
const SSH_CONNECTION: &str = "SSH_CONNECTION";

fn read_ssh(text: &str) -> Option<Connection> {
    let mut words = text.split_whitespace();
    let mut end = || {
        let address: IpAddr = words.next()?.split('%').next()?.parse().ok()?;
        Some(SocketAddr::new(
            address.to_canonical(),
            words.next()?.parse().ok()?,
        ))
    };
    Some(Connection {
        peer: end()?,
        local: end()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_sshd_says_is_read() {
        let connection = read_ssh("203.0.113.7 51515 192.0.2.10 22").expect("a connection");
        assert_eq!(connection.to_string(), "203.0.113.7:51515 > 192.0.2.10:22");
        let connection = read_ssh("fe80::7%eth0 51515 ::ffff:192.0.2.10 22").expect("a connection");
        assert_eq!(connection.to_string(), "[fe80::7]:51515 > 192.0.2.10:22");
        for text in [
            "",
            "203.0.113.7 51515 192.0.2.10",
            "a b c d",
            "1.2.3.4 x 1.2.3.4 22",
        ] {
            assert_eq!(read_ssh(text), None, "{text:?}");
        }
    }

    #[test]
    fn frames_carry_the_flags_where_they_belong() {
        for text in [
            "203.0.113.7 51515 192.0.2.10 22",
            "2001:db8::7 51515 2001:db8::10 22",
        ] {
            let connection = read_ssh(text).expect("a connection");
            let frame = connection.frame(false, ACK);
            let tcp = &frame[frame.len() - 20..];
            assert_eq!(&tcp[..4], [0xc9, 0x3b, 0, 22]);
            assert_eq!(tcp[12] >> 4, 5);
            assert_eq!(tcp[13], ACK);
            assert_eq!(
                &connection.frame(true, SYN)[frame.len() - 20..][..4],
                [0, 22, 0xc9, 0x3b]
            );
        }
    }
}
