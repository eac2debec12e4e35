//! The scoreboard as a document.

use std::fmt::Write as _;

use super::{Case, Mark, Outcome, Peer, Policy, cases};

/// What became of the packets behind one filter.
#[derive(Clone, Debug)]
pub struct Column {
    /// The filter.
    pub peer: Peer,
    /// Its version, as its package or itself says it.
    pub version: String,
    /// In the order of the cases.
    pub outcomes: Vec<Outcome>,
}

impl Column {
    fn count(&self, cases: &[Case], mark: Mark) -> usize {
        let outcomes = self.outcomes.iter().zip(cases);
        outcomes
            .filter(|(outcome, case)| outcome.mark(case.must_pass()) == mark)
            .count()
    }
}

const HEAD: &str = "# Scoreboard

Odd packets, and packets made to get around a filter, each with a verdict that is required:
by the standards and by what a policy means, never by what a filter does. They are rows of
the edge-case table (`tests/src/edge.rs`), which every evaluator of nodewall is held against.
Here they go over a real veth pair to nodewall and, unmodified, to the filters that Debian
ships.

Written by `cargo xtask scoreboard` (root; two minutes after the build). CI sends all packets
to nodewall again, and fails where one is decided wrongly, or where this page does not have
the packets that there are.
";

const MARKS: &str = "
- **right**: it passed, or was dropped, as required.
- **let in**: it must be dropped, and came out behind the filter.
- **kept out**: it must pass, and the filter dropped it.
- **IP layer**: the kernel's IP layer decided and not the filter. It refused the packet
  before the filter's hook, or kept it to put fragments together, or the filter let in what
  must be dropped and the IP layer then counted it as an error of the header. A machine whose
  own kernel takes every packet is safe from these; one that forwards below IP (a bridge,
  macvlan, a virtual machine) is not.
- **not seen**: the packet never comes to the filter's hook, or the interface takes no frame
  of this size while the filter is on it. To prerouting comes only IP, and with a tag only where
  the machine has an interface for that VLAN.
";

const HOW: &str = "
## How it was measured

For each filter and policy two network namespaces are made, joined by a veth pair. The client
sends one frame through a packet socket just as it is, tags and all; it has no addresses and
sends nothing else. The veth does no offloading (`tx off`, `txvlan off`).

- **nodewall, xdp-filter** run as native XDP on the receiving end. A packet passed where a packet
  socket behind it has the very same frame (the kernel takes the outermost tag out); it was
  dropped where the driver's own counter `rx_queue_0_xdp_drops` rises. It must be one of both
  within five seconds, and never both, else the run fails.
- **nftables at ingress** has its chain at the interface's ingress hook (family `netdev`, priority
  0). Chains of another table, at priorities -1 and 1, count what comes to it and what is left
  behind it.
- **nftables in prerouting, iptables** have their rules at priority -300 (`raw`), before DNAT, where
  Calico has those of such policies. Another table counts at -450, -301 and -299: what the IP
  layer gives to netfilter, what is left when fragments were put together (connections are
  tracked, as on every node with NAT), and what is left behind the rules.
- There, a packet is known to have been decided when a marker frame that was sent behind it has
  arrived. In all cases, whether the IP layer refused it is read from the node's `InHdrErrors`,
  `InAddrErrors`, `InDiscards`, `InTruncatedPkts` and `InCsumErrors` of IPv4 and IPv6. Its timeouts
  for fragments are 0, so that those of one packet never meet those of the next.

That the runner can fail is tested (`tests/tests/scoreboard.rs`): without a filter it sees
every packet pass that comes to the hook at all, and with one that drops everything none.

What was not measured: other kernels and drivers, tags that hardware takes out, what a bridge or
a router makes of a packet behind a filter, and floods.
";

const NOTES: &str = "
Fairness. Each filter has the rules that come closest to the policy's words in its own language.
xdp-filter has no ranges, networks, ICMP types or protocols: each port and address of a range is an
entry of its own, and what it has no word for is left to its default. Under default deny it
could let the router in by its Ethernet address, which lets in everything that comes by way of
it. nftables and iptables have words for nearly everything; the plain columns say what the policy
says, as their manuals would have it. *Hardened* has fifteen rules more, by somebody who has read
the table below. Under default deny all of them are told the essentials one by one.
A later fragment that comes in without its first one does no harm at a host; the table asks for
a drop because one that overlaps does.
";

const ELSEWHERE: &str = "
## Measured elsewhere, not here

OpenShift's ingress-node-firewall is not shipped by Debian. The reference that this project was
begun with has figures of 14 evasion packets against \"deny tcp 80 and 30000-32767\": **it decides 4 of 14
right, xdp-filter 13**. The same reference says that ingress-node-firewall passes IPv4 options,
tiny and later fragments, truncated packets, VLAN tags, and GRE, ESP and others under deny-all,
and that the end of its port ranges is exclusive. Neither was repeated here.
";

/// The whole document.
#[must_use]
pub fn document(kernel: &str, columns: &[Column]) -> String {
    let cases = cases();
    let mut text = HEAD.to_owned();
    let mut line = |parts: &str| {
        text.push_str(parts);
        text.push('\n');
    };
    line("");
    line(&format!("**{} packets.** Linux {kernel}.", cases.len()));
    line("");
    line("| filter | version | right | let in | kept out | IP layer | not seen |");
    line("|---|---|---:|---:|---:|---:|---:|");
    for column in columns {
        let count = |mark| column.count(&cases, mark);
        line(&format!(
            "| {} | {} | **{} of {}** | {} | {} | {} | {} |",
            column.peer.name(),
            column.version,
            count(Mark::Right),
            cases.len(),
            count(Mark::LetIn),
            count(Mark::KeptOut),
            count(Mark::Stack),
            count(Mark::NotApplicable),
        ));
    }
    line(MARKS.trim_end());
    line("");
    line("## The policies");
    line("");
    for policy in Policy::ALL {
        let of_it = cases.iter().filter(|case| case.policy == policy).count();
        line(&format!(
            "- **{}**, {of_it} packets: {}.",
            label(policy),
            policy.words()
        ));
    }
    line(NOTES.trim_end());
    table(&mut text, &cases, columns);
    text.push_str(HOW);
    rules(&mut text, columns);
    text.push_str(ELSEWHERE);
    text
}

const fn label(policy: Policy) -> &'static str {
    match policy {
        Policy::NodePorts => "node ports",
        Policy::Blocklist => "networks",
        Policy::WebOnly => "default deny",
    }
}

fn table(text: &mut String, cases: &[Case], columns: &[Column]) {
    text.push_str("\n## The packets\n");
    let names = columns.iter().fold(String::new(), |names, column| {
        names + " " + column.peer.name() + " |"
    });
    let mut group = "";
    for (index, case) in cases.iter().enumerate() {
        if case.group.title != group {
            group = case.group.title;
            let dashes = "---|".repeat(columns.len());
            let (policy, why) = (label(case.policy), case.group.why);
            let _ = write!(
                text,
                "\n### {group}\n\nPolicy: {policy}. {why}\n\n\
                 | | packet | by | required |{names}\n|---:|---|---|---|{dashes}\n"
            );
        }
        let (name, source) = (&case.row.name, case.row.source.trim_start_matches("… "));
        let verdict = case.row.verdict;
        let _ = write!(text, "| {} | {name} | {source} | {verdict} |", index + 1);
        for column in columns {
            let outcome = column.outcomes[index];
            let _ = write!(text, " {} |", cell(outcome, case.must_pass()));
        }
        text.push('\n');
    }
}

fn cell(outcome: Outcome, must_pass: bool) -> &'static str {
    match outcome.mark(must_pass) {
        Mark::Right => "✓",
        Mark::LetIn => "✗ **let in**",
        Mark::KeptOut => "✗ **kept out**",
        Mark::Stack if outcome == Outcome::PassedThenRefused => "let in, IP layer refuses",
        Mark::Stack => "IP layer",
        Mark::NotApplicable if outcome == Outcome::TooLarge => "no such frames",
        Mark::NotApplicable => "not seen",
    }
}

fn rules(text: &mut String, columns: &[Column]) {
    text.push_str("\n## The rules\n");
    for peer in columns.iter().map(|column| column.peer) {
        let _ = writeln!(text, "\n### {}", peer.name());
        for policy in Policy::ALL {
            let rules = peer.rules(policy);
            let _ = writeln!(text, "\n{}:\n\n```sh\n{}```", label(policy), rules.commands);
            for (name, content) in rules.files {
                let _ = writeln!(text, "\n`{name}`:\n\n```\n{content}```");
            }
        }
    }
}

/// The packets that a document has: names, and what is required of each.
#[must_use]
pub fn listed(document: &str) -> Vec<(String, String)> {
    let rows = document.lines().filter_map(|line| {
        let mut cells = line.strip_prefix("| ")?.split(" | ");
        let _: usize = cells.next()?.parse().ok()?;
        let name = cells.next()?;
        let _source = cells.next()?;
        Some((name.to_owned(), cells.next()?.to_owned()))
    });
    rows.collect()
}
