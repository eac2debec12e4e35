//! The filters, unmodified, and how each is told the policy.

use std::env;
use std::fs::{self, File};
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Stdio};

use anyhow::{Context as _, Result, bail};

use super::lane::Lane;
use crate::lab::{Side, program};

/// What is to be enforced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    /// Denies tcp 80 and 30000-32767, and udp 30000-32767. All else passes.
    NodePorts,
    /// Denies the source 203.0.113.0/24. All else passes.
    Blocklist,
    /// Allows tcp 80, and what IP itself needs. All else is denied.
    WebOnly,
}

impl Policy {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::NodePorts, Self::Blocklist, Self::WebOnly];

    /// In words.
    #[must_use]
    pub const fn words(self) -> &'static str {
        match self {
            Self::NodePorts => {
                "deny tcp 80, deny tcp 30000-32767, deny udp 30000-32767; all else passes"
            }
            Self::Blocklist => "deny what comes from 203.0.113.0/24; all else passes",
            Self::WebOnly => {
                "allow tcp 80; deny all else, but for ARP, neighbour discovery, multicast \
                 listeners, IGMP, path MTU, ICMPv6's errors, and DHCP to the client"
            }
        }
    }
}

/// Where a filter decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hook {
    /// XDP, in the driver.
    Driver,
    /// netfilter's ingress hook of the interface, before the protocols' layers.
    Ingress,
    /// netfilter's prerouting, in the IP layers.
    Prerouting,
}

impl Hook {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Driver, Self::Ingress, Self::Prerouting];
}

/// Who is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    /// nodewall.
    Nodewall,
    /// xdp-filter of Debian's xdp-tools.
    XdpFilter,
    /// nftables at ingress, with the policy's words and nothing else.
    NftIngress,
    /// nftables at ingress, by somebody who knows this scoreboard.
    NftHardened,
    /// nftables in prerouting.
    NftPrerouting,
    /// iptables and ip6tables in the table raw.
    Iptables,
    /// No filter: the runner must see everything pass.
    Nothing(Hook),
    /// Drops everything: the runner must see nothing pass.
    Everything(Hook),
}

impl Peer {
    /// Those of the scoreboard.
    pub const ALL: [Self; 6] = [
        Self::Nodewall,
        Self::XdpFilter,
        Self::NftIngress,
        Self::NftHardened,
        Self::NftPrerouting,
        Self::Iptables,
    ];

    /// Its name in the document.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Nodewall => "nodewall",
            Self::XdpFilter => "xdp-filter",
            Self::NftIngress => "nftables, ingress",
            Self::NftHardened => "nftables, ingress, hardened",
            Self::NftPrerouting => "nftables, prerouting",
            Self::Iptables => "iptables, raw",
            Self::Nothing(_) => "no filter",
            Self::Everything(_) => "everything dropped",
        }
    }

    /// Where it decides.
    #[must_use]
    pub const fn hook(self) -> Hook {
        match self {
            Self::Nodewall | Self::XdpFilter => Hook::Driver,
            Self::NftIngress | Self::NftHardened => Hook::Ingress,
            Self::NftPrerouting | Self::Iptables => Hook::Prerouting,
            Self::Nothing(hook) | Self::Everything(hook) => hook,
        }
    }

    /// Its rules: files, and the shell commands that put them in force.
    #[must_use]
    pub fn rules(self, policy: Policy) -> Rules {
        match self {
            Self::Nodewall => nodewall(policy),
            Self::XdpFilter => xdp_filter(policy),
            Self::NftIngress => nft_ingress(policy, ""),
            // Addresses are in every fragment.
            Self::NftHardened if policy == Policy::Blocklist => nft_ingress(policy, ""),
            Self::NftHardened => nft_ingress(policy, HARDENED),
            Self::NftPrerouting => nft(&nft_chain(
                "inet",
                "prerouting priority raw",
                policy,
                &nft_policy(policy),
            )),
            Self::Iptables => iptables(policy),
            Self::Nothing(_) => Rules::default(),
            Self::Everything(hook) => everything(hook),
        }
    }

    /// Puts its rules in force on the node of the lane, until what is returned is dropped.
    pub(super) fn put_in_force(self, lane: &Lane, policy: Policy) -> Result<InForce> {
        let rules = self.rules(policy);
        for (name, text) in &rules.files {
            fs::write(lane.files().join(name), text)?;
        }
        InForce::start(lane, &rules.commands)
            .with_context(|| format!("{} does not take the policy {policy:?}", self.name()))
    }
}

/// What a filter is told.
#[derive(Clone, Debug, Default)]
pub struct Rules {
    /// Names and contents.
    pub files: Vec<(&'static str, String)>,
    /// Commands for a shell in the folder of the files.
    pub commands: String,
}

fn nodewall(policy: Policy) -> Rules {
    let spec = match policy {
        Policy::NodePorts => {
            "  preDNAT: true
  applyOnForward: true
  types: [Ingress]
  ingress:
  - action: Deny
    protocol: TCP
    destination: {ports: [80, '30000:32767']}
  - action: Deny
    protocol: UDP
    destination: {ports: ['30000:32767']}
"
        }
        Policy::Blocklist => {
            "  preDNAT: true
  applyOnForward: true
  types: [Ingress]
  ingress:
  - action: Deny
    source: {nets: [203.0.113.0/24]}
"
        }
        Policy::WebOnly => {
            "  types: [Ingress]
  ingress:
  - action: Allow
    protocol: TCP
    destination: {ports: [80]}
"
        }
    };
    let policy = format!(
        "apiVersion: projectcalico.org/v3
kind: GlobalNetworkPolicy
metadata: {{name: scoreboard}}
spec:
  selector: all()
{spec}"
    );
    Rules {
        files: vec![("policy.yaml", policy)],
        // What is open in any case would be no answer of the policy's.
        commands: "nodewall apply -f policy.yaml --interface node0 --mode native \
                   --failsafe-inbound none\n"
            .to_owned(),
    }
}

fn xdp_filter(policy: Policy) -> Rules {
    let load = |policy: &str, features: &str| {
        format!("xdp-filter load --mode native --policy {policy} --features {features} node0\n")
    };
    let commands = match policy {
        Policy::NodePorts => {
            load("allow", "tcp,udp")
                + "xdp-filter port 80 --mode dst --proto tcp
for port in $(seq 30000 32767); do
    xdp-filter port $port --mode dst --proto tcp,udp
done
"
        }
        Policy::Blocklist => {
            load("allow", "ipv4")
                + "for last in $(seq 0 255); do
    xdp-filter ip 203.0.113.$last --mode src
done
"
        }
        Policy::WebOnly => {
            load("deny", "tcp,udp")
                + "xdp-filter port 80 --mode dst --proto tcp
xdp-filter port 68 --mode dst --proto udp
xdp-filter port 546 --mode dst --proto udp
"
        }
    };
    Rules {
        files: Vec::new(),
        commands,
    }
}

/// What somebody adds who knows which packets evade the plain rules.
const HARDENED: &str = "
        meta protocol ip ip version != 4 drop
        meta protocol ip ip hdrlength < 5 drop
        meta protocol ip6 ip6 version != 6 drop
        meta protocol { 0x8100, 0x88a8, 0x9100 } drop
        meta protocol { 0x8847, 0x8848, 0x8864 } drop
        meta protocol 0x0004 @ll,112,16 0x0606 drop
        meta protocol 0x0004 @ll,160,16 { 0x0800, 0x86dd } drop
        meta protocol 0x0004 @ll,192,16 { 0x0800, 0x86dd } drop
        meta protocol ip ip protocol { tcp, udp } ip frag-off & 0x1fff != 0 drop
        frag frag-off != 0 drop
        meta protocol ip ip protocol tcp ip length < 40 drop
        meta protocol ip ip protocol udp ip length < 28 drop
        meta protocol ip6 ip6 nexthdr tcp ip6 length < 20 drop
        meta protocol ip6 ip6 nexthdr udp ip6 length < 8 drop
        rt type 0 drop";

fn nft_ingress(policy: Policy, before: &str) -> Rules {
    let mut lines = before.to_owned();
    if policy == Policy::WebOnly {
        lines.push_str("\n        meta protocol arp accept");
    }
    lines += &nft_policy(policy);
    nft(&nft_chain(
        "netdev",
        "ingress device node0 priority 0",
        policy,
        &lines,
    ))
}

fn nft_chain(family: &str, hook: &str, policy: Policy, lines: &str) -> String {
    let default = match policy {
        Policy::NodePorts | Policy::Blocklist => "accept",
        Policy::WebOnly => "drop",
    };
    format!(
        "table {family} filter {{
    chain input {{
        type filter hook {hook}; policy {default};{lines}
    }}
}}
"
    )
}

fn nft_policy(policy: Policy) -> String {
    match policy {
        Policy::NodePorts => {
            "
        tcp dport { 80, 30000-32767 } drop
        udp dport 30000-32767 drop"
        }
        Policy::Blocklist => {
            "
        ip saddr 203.0.113.0/24 drop"
        }
        Policy::WebOnly => {
            "
        tcp dport 80 accept
        icmp type destination-unreachable icmp code frag-needed accept
        ip protocol igmp accept
        meta protocol ip udp dport 68 accept
        meta protocol ip6 udp dport 546 accept
        icmpv6 type { destination-unreachable, packet-too-big, time-exceeded, parameter-problem } accept
        icmpv6 type { nd-router-solicit, nd-router-advert } ip6 hoplimit 255 accept
        icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert, nd-redirect } ip6 hoplimit 255 accept
        icmpv6 type { mld-listener-query, mld-listener-report, mld-listener-done } accept
        icmpv6 type mld2-listener-report accept"
        }
    }
    .to_owned()
}

fn nft(text: &str) -> Rules {
    Rules {
        files: vec![("rules.nft", text.to_owned())],
        commands: "nft -f rules.nft\n".to_owned(),
    }
}

fn iptables(policy: Policy) -> Rules {
    let (default, v4, v6) = match policy {
        Policy::NodePorts => {
            let both = "-A PREROUTING -p tcp -m multiport --dports 80,30000:32767 -j DROP
-A PREROUTING -p udp -m multiport --dports 30000:32767 -j DROP
";
            ("ACCEPT", both, both)
        }
        Policy::Blocklist => ("ACCEPT", "-A PREROUTING -s 203.0.113.0/24 -j DROP\n", ""),
        Policy::WebOnly => (
            "DROP",
            "-A PREROUTING -p tcp --dport 80 -j ACCEPT
-A PREROUTING -p icmp --icmp-type fragmentation-needed -j ACCEPT
-A PREROUTING -p igmp -j ACCEPT
-A PREROUTING -p udp --dport 68 -j ACCEPT
",
            "-A PREROUTING -p tcp --dport 80 -j ACCEPT
-A PREROUTING -p icmpv6 --icmpv6-type destination-unreachable -j ACCEPT
-A PREROUTING -p icmpv6 --icmpv6-type packet-too-big -j ACCEPT
-A PREROUTING -p icmpv6 --icmpv6-type time-exceeded -j ACCEPT
-A PREROUTING -p icmpv6 --icmpv6-type parameter-problem -j ACCEPT
-A PREROUTING -p icmpv6 --icmpv6-type router-solicitation -m hl --hl-eq 255 -j ACCEPT
-A PREROUTING -p icmpv6 --icmpv6-type router-advertisement -m hl --hl-eq 255 -j ACCEPT
-A PREROUTING -p icmpv6 --icmpv6-type neighbor-solicitation -m hl --hl-eq 255 -j ACCEPT
-A PREROUTING -p icmpv6 --icmpv6-type neighbor-advertisement -m hl --hl-eq 255 -j ACCEPT
-A PREROUTING -p icmpv6 --icmpv6-type redirect -m hl --hl-eq 255 -j ACCEPT
-A PREROUTING -p icmpv6 --icmpv6-type 130 -j ACCEPT
-A PREROUTING -p icmpv6 --icmpv6-type 131 -j ACCEPT
-A PREROUTING -p icmpv6 --icmpv6-type 132 -j ACCEPT
-A PREROUTING -p icmpv6 --icmpv6-type 143 -j ACCEPT
-A PREROUTING -p udp --dport 546 -j ACCEPT
",
        ),
    };
    let table = |lines: &str| format!("*raw\n:PREROUTING {default}\n{lines}COMMIT\n");
    Rules {
        files: vec![("v4.rules", table(v4)), ("v6.rules", table(v6))],
        commands: "iptables-restore v4.rules\nip6tables-restore v6.rules\n".to_owned(),
    }
}

fn everything(hook: Hook) -> Rules {
    match hook {
        // With no port that it lets in.
        Hook::Driver => Rules {
            files: Vec::new(),
            commands: "xdp-filter load --mode native --policy deny --features tcp node0\n"
                .to_owned(),
        },
        Hook::Ingress => nft_ingress(Policy::NodePorts, "\n        drop"),
        Hook::Prerouting => nft(&nft_chain(
            "inet",
            "prerouting priority raw",
            Policy::NodePorts,
            "\n        drop",
        )),
    }
}

/// A shell that has put a filter in force. What the filter pins is in a bpffs that only
/// this shell sees, so that all of it goes when it ends.
pub(super) struct InForce(Child);

impl InForce {
    fn start(lane: &Lane, commands: &str) -> Result<Self> {
        let script = format!(
            "set -e; mount -t bpf bpf /sys/fs/bpf; exec 3>&1 >&2
{commands}echo ready >&3; read end"
        );
        let program = program();
        let program = program.parent().unwrap_or(Path::new(""));
        let path = env::var("PATH").unwrap_or_default();
        let mut command = lane.lab().command(Side::Node, "unshare");
        command
            .args(["--mount", "sh", "-c", &script])
            .current_dir(lane.files())
            .env(
                "PATH",
                format!("{}:/usr/sbin:/sbin:{path}", program.display()),
            )
            .env("NODEWALL_RUN_DIR", lane.files().join("run"))
            .env("NODEWALL_STATE_DIR", lane.files().join("state"));
        let log = lane.files().join("log");
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(File::create(&log)?)
            .spawn()
            .context("cannot run a shell")?;
        let stdout = child.stdout.take().context("no standard output")?;
        let in_force = Self(child);
        let mut said = String::new();
        BufReader::new(stdout).read_line(&mut said)?;
        if said != "ready\n" {
            bail!("{}", fs::read_to_string(log)?.trim_end());
        }
        Ok(in_force)
    }
}

impl Drop for InForce {
    fn drop(&mut self) {
        // It reads the end of its input, and ends.
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}
