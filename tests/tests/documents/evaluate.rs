//! What becomes of a packet, by the meaning of the documents: written from
//! policy-schemas, document by document, and naive. It knows nothing of
//! how the filter lowers them.

use std::net::IpAddr;

use filter_common::verdict::{Reason, Verdict};
use ipnet::IpNet;

use super::model::{
    Action, Case, DEFAULT_ALLOW, Dialect, Documents, Endpoint, Entity, Expression, Firewall,
    FirewallProtocol, INTERFACE, KubernetesPeer, KubernetesPolicy, KubernetesRule, LabelSelector,
    Labels, NAMESPACE, Packet, Policy, Port, Protocol, Rule, Selector, WELL_KNOWN_TIERS,
};
use super::quirk::Quirk;

const TCP: u8 = 6;
const UDP: u8 = 17;
const ICMP: u8 = 1;
const IGMP: u8 = 2;
const ICMPV6: u8 = 58;

/// Who decided, or noted: the policy and the index of its rule; `None` for the
/// end of a tier.
pub(crate) type Who = Option<(String, u32)>;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    pub verdict: Verdict,
    pub reason: Reason,
    pub rule: Who,
    /// In no order.
    pub noted: Vec<Who>,
}

/// What a case says about packets. With a quirk, what it would say to who
/// gets that wrong.
pub(crate) struct Evaluator<'a> {
    pub case: &'a Case,
    pub quirk: Option<Quirk>,
}

/// How a walk ends.
enum End {
    Rule(Action, String, u32),
    DefaultDeny,
    DefaultAllow,
    Failsafe(u32),
}

/// Of each policy that may apply, what the walk needs.
enum Candidate<'a> {
    Calico(&'a Policy),
    Kubernetes(&'a KubernetesPolicy),
}

impl Evaluator<'_> {
    pub(crate) fn judge(&self, packet: &Packet) -> Answer {
        let (end, mut noted) = self.walk(packet, false);
        let (_, staged) = self.walk(packet, true);
        // Of the first what is enforced, of the second what is staged.
        noted.retain(|(_, staged)| !staged);
        noted.extend(staged.into_iter().filter(|(_, staged)| *staged));
        let (verdict, reason, rule) = match end {
            End::Rule(Action::Allow, name, index) => {
                (Verdict::Pass, Reason::PolicyAllow, Some((name, index)))
            }
            End::Rule(_, name, index) => (Verdict::Drop, Reason::PolicyDeny, Some((name, index))),
            End::Failsafe(index) => {
                let rule = Some(("failsafe".to_owned(), index));
                (Verdict::Pass, Reason::Failsafe, rule)
            }
            End::DefaultAllow => (Verdict::Pass, Reason::DefaultAllow, None),
            End::DefaultDeny if is_essential(packet, self.case.egress) => {
                (Verdict::Pass, Reason::Essential, None)
            }
            End::DefaultDeny => (Verdict::Drop, Reason::DefaultDeny, None),
        };
        Answer {
            verdict,
            reason,
            rule,
            noted: noted.into_iter().map(|(who, _)| who).collect(),
        }
    }

    fn is(&self, quirk: Quirk) -> bool {
        self.quirk == Some(quirk)
    }

    fn documents(&self) -> &Documents {
        &self.case.documents
    }

    /// Failsafe ports, untracked, `preDNAT`, normal, profiles. What logs, passes
    /// or is staged is noted, with whether it is staged.
    fn walk(&self, packet: &Packet, staged: bool) -> (End, Vec<(Who, bool)>) {
        let mut noted = Vec::new();
        if let Some(index) = self.failsafe(packet) {
            return (End::Failsafe(index), noted);
        }
        if !self.case.egress {
            match self.firewalls(packet) {
                Some((Action::Pass, name, index)) => noted.push((Some((name, index)), false)),
                Some((action, name, index)) => return (End::Rule(action, name, index), noted),
                None => {}
            }
        }
        let forwarded = self.is_forwarded(packet);
        for stage in [Stage::Untracked, Stage::PreDnat, Stage::Normal] {
            for (tier, default_pass) in self.tiers() {
                let mut policies: Vec<(Candidate<'_>, bool)> = self
                    .of_tier(stage, tier)
                    .into_iter()
                    .map(|policy| {
                        let is_staged = policy.is_staged() && !self.is(Quirk::StagedIsEnforced);
                        (policy, is_staged)
                    })
                    .filter(|(_, is_staged)| staged || !is_staged)
                    .collect();
                if forwarded && stage == Stage::Normal && !self.is(Quirk::ForwardedIsLocal) {
                    policies.retain(|(policy, _)| policy.applies_on_forward());
                }
                let mut passed = false;
                'policies: for (policy, is_staged) in &policies {
                    for (index, action) in (0..).zip(self.rules(policy, packet)) {
                        let Some(action) = action else { continue };
                        let who = (policy.shown_name(), index);
                        if *is_staged || matches!(action, Action::Log | Action::Pass) {
                            noted.push((Some(who.clone()), *is_staged));
                        }
                        match action {
                            Action::Allow | Action::Deny => {
                                return (End::Rule(action, who.0, who.1), noted);
                            }
                            Action::Log if self.is(Quirk::LogDecides) => {
                                return (End::Rule(Action::Allow, who.0, who.1), noted);
                            }
                            Action::Log => {}
                            Action::Pass if self.is(Quirk::PassToNextRule) => {}
                            Action::Pass if self.is(Quirk::PassToProfiles) => {
                                return (self.profiles(packet, &mut noted), noted);
                            }
                            Action::Pass => {
                                passed = true;
                                break 'policies;
                            }
                        }
                    }
                }
                let has_default = stage == Stage::Normal || self.is(Quirk::EveryStageDenies);
                let denies = !default_pass || self.is(Quirk::TierDefaultIgnored);
                if passed || !has_default || !denies {
                    continue;
                }
                if policies.iter().any(|(_, is_staged)| !is_staged) {
                    if self.is(Quirk::ProfilesFirst) && tier == "default" {
                        return (self.profiles(packet, &mut noted), noted);
                    }
                    return (End::DefaultDeny, noted);
                }
                if !policies.is_empty() && !self.is(Quirk::StagedEndIgnored) {
                    // Those that are staged would deny.
                    noted.push((None, true));
                    return (End::DefaultDeny, noted);
                }
                if self.is(Quirk::DenyWithoutSelection) && !self.documents().policies.is_empty() {
                    return (End::DefaultDeny, noted);
                }
            }
        }
        // Profiles are about the host's own packets.
        if forwarded && !self.is(Quirk::ForwardedIsLocal) {
            return (End::DefaultAllow, noted);
        }
        (self.profiles(packet, &mut noted), noted)
    }

    fn profiles(&self, packet: &Packet, noted: &mut Vec<(Who, bool)>) -> End {
        let names = match self.endpoint() {
            None => vec![DEFAULT_ALLOW],
            Some(endpoint) => endpoint.profiles.clone(),
        };
        for name in names {
            if name == DEFAULT_ALLOW {
                return End::DefaultAllow;
            }
            let profiles = self.documents().profiles.iter();
            let Some(profile) = profiles.clone().find(|profile| profile.name == name) else {
                continue;
            };
            let rules = if self.case.egress {
                &profile.egress
            } else {
                &profile.ingress
            };
            for (index, rule) in (0..).zip(rules) {
                if !self.matches(rule, None, packet) {
                    continue;
                }
                let shown = format!("profile:{name}");
                match rule.action {
                    Action::Log => noted.push((Some((shown, index)), false)),
                    action => return End::Rule(action, shown, index),
                }
            }
        }
        End::DefaultDeny
    }

    /// "Current defaults" of policy-schemas, and `DHCPv6`'s beside DHCP's.
    fn failsafe(&self, packet: &Packet) -> Option<u32> {
        const INBOUND: [(u8, u16); 10] = [
            (TCP, 22),
            (UDP, 68),
            (TCP, 179),
            (TCP, 2379),
            (TCP, 2380),
            (TCP, 5473),
            (TCP, 6443),
            (TCP, 6666),
            (TCP, 6667),
            (UDP, 546),
        ];
        const OUTBOUND: [(u8, u16); 10] = [
            (UDP, 53),
            (UDP, 67),
            (TCP, 179),
            (TCP, 2379),
            (TCP, 2380),
            (TCP, 5473),
            (TCP, 6443),
            (TCP, 6666),
            (TCP, 6667),
            (UDP, 547),
        ];
        if !self.case.failsafe {
            return None;
        }
        let list = if self.case.egress { OUTBOUND } else { INBOUND };
        let found = list
            .iter()
            .position(|&port| port == (packet.proto, packet.l4.1));
        found.and_then(|index| u32::try_from(index).ok())
    }

    /// What is not for the node itself (on the way out: not from it).
    fn is_forwarded(&self, packet: &Packet) -> bool {
        let own = if self.case.egress {
            packet.src
        } else {
            packet.dst
        };
        let node = self.case.node.as_ref();
        node.is_some_and(|nets| !nets.iter().any(|net| net.contains(&own)))
    }

    fn endpoint(&self) -> Option<&Endpoint> {
        self.documents().endpoints.first()
    }

    /// What selectors see of the endpoint.
    fn labels(&self) -> Labels {
        match self.endpoint() {
            None => self.case.labels.clone(),
            Some(endpoint) => self.labels_of(endpoint),
        }
    }

    /// Its own, and those of its profiles.
    fn labels_of(&self, endpoint: &Endpoint) -> Labels {
        let mut labels = endpoint.labels.clone();
        if self.is(Quirk::ProfileLabelsIgnored) {
            return labels;
        }
        for name in &endpoint.profiles {
            let profiles = self.documents().profiles.iter();
            for profile in profiles.filter(|profile| profile.name == *name) {
                for (label, value) in &profile.labels {
                    labels.entry(label.clone()).or_insert(value.clone());
                }
            }
        }
        labels
    }

    /// The tiers in their order, and whether their end passes.
    fn tiers(&self) -> Vec<(&'static str, bool)> {
        let mut tiers = WELL_KNOWN_TIERS
            .map(|(name, order, pass)| (order, name, pass))
            .to_vec();
        let well_known = tiers.clone();
        let is_new = |name: &str| !well_known.iter().any(|known| known.1 == name);
        let documents = self.documents().tiers.iter();
        for tier in documents.filter(|tier| is_new(tier.name)) {
            let order = tier.order.unwrap_or(f64::INFINITY);
            tiers.push((order, tier.name, tier.default_pass == Some(true)));
        }
        tiers.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(b.1)));
        if self.is(Quirk::TierOrder) {
            tiers.sort_by_key(|tier| tier.1);
        }
        tiers
            .into_iter()
            .map(|(_, name, pass)| (name, pass))
            .collect()
    }

    /// The policies of a tier in a stage that apply here, in their order.
    fn of_tier(&self, stage: Stage, tier: &str) -> Vec<Candidate<'_>> {
        let mut found: Vec<(f64, String, Candidate<'_>)> = Vec::new();
        let documents = self.documents();
        for policy in &documents.policies {
            if policy.stage() == stage
                && policy.tier.unwrap_or("default") == tier
                && self.policy_applies(policy)
            {
                let order = policy.order.unwrap_or(f64::INFINITY);
                let candidate = Candidate::Calico(policy);
                found.push((order, candidate.shown_name(), candidate));
            }
        }
        for policy in &documents.kubernetes {
            if (stage, tier) == (Stage::Normal, "default") && self.kubernetes_applies(policy) {
                let candidate = Candidate::Kubernetes(policy);
                let order = if self.is(Quirk::KubernetesLast) {
                    f64::INFINITY
                } else {
                    1_000.0
                };
                found.push((order, candidate.shown_name(), candidate));
            }
        }
        found.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
        if self.is(Quirk::PolicyOrder) {
            found.sort_by(|a, b| a.1.cmp(&b.1));
        }
        found
            .into_iter()
            .map(|(_, _, candidate)| candidate)
            .collect()
    }

    fn policy_applies(&self, policy: &Policy) -> bool {
        let types = policy
            .types
            .unwrap_or_else(|| default_types(policy.ingress.is_empty(), policy.egress.is_empty()));
        let labels = self.labels();
        let holds = |selector: &Option<Selector>| {
            let selector = selector.as_ref();
            selector.is_none_or(|selector| self.selects(selector, &labels))
        };
        let by_namespace = policy.namespace_selector.as_ref().is_none_or(|selector| {
            let selector = in_namespaces(selector);
            self.selects(&selector, &labels)
        });
        self.has_type(types)
            && self.in_namespace(policy.namespace)
            && holds(&policy.selector)
            && by_namespace
    }

    fn kubernetes_applies(&self, policy: &KubernetesPolicy) -> bool {
        let types = policy.types.unwrap_or((true, !policy.egress.is_empty()));
        self.has_type(types)
            && self.in_namespace(Some(policy.namespace.unwrap_or("default")))
            && label_selector(&policy.pod_selector, &self.labels())
    }

    fn has_type(&self, (ingress, egress): (bool, bool)) -> bool {
        let has = if self.case.egress { egress } else { ingress };
        has || self.is(Quirk::TypesIgnored)
    }

    /// An endpoint that is nobody's document counts as in every namespace.
    fn in_namespace(&self, wanted: Option<&str>) -> bool {
        match (wanted, self.labels().get(NAMESPACE)) {
            (None, _) => true,
            (Some(wanted), Some(found)) => wanted == found,
            (Some(_), None) => self.endpoint().is_none() || self.is(Quirk::NamespaceIgnored),
        }
    }

    /// Of each rule for the direction, what it does if it matches.
    fn rules(&self, policy: &Candidate<'_>, packet: &Packet) -> Vec<Option<Action>> {
        let egress = self.case.egress;
        match policy {
            Candidate::Calico(policy) => {
                let rules = if egress {
                    &policy.egress
                } else {
                    &policy.ingress
                };
                let matches = |rule: &Rule| self.matches(rule, policy.namespace, packet);
                let action = |rule: &Rule| matches(rule).then_some(rule.action);
                rules.iter().map(action).collect()
            }
            Candidate::Kubernetes(policy) => {
                let rules = if egress {
                    &policy.egress
                } else {
                    &policy.ingress
                };
                let matches = |rule: &KubernetesRule| self.kubernetes_matches(rule, packet);
                let action = |rule: &KubernetesRule| matches(rule).then_some(Action::Allow);
                rules.iter().map(action).collect()
            }
        }
    }

    // ---- Calico's rules

    /// All criteria must hold.
    fn matches(&self, rule: &Rule, namespace: Option<&str>, packet: &Packet) -> bool {
        let version = if packet.src.is_ipv4() { 4 } else { 6 };
        let is = |protocol: Protocol| protocol.number == packet.proto;
        let icmp = |(kind, code): (u8, Option<u8>)| {
            let code = code.filter(|code| *code != 0 || !self.is(Quirk::IcmpCode0IsUnset));
            let has_one = matches!(packet.proto, ICMP | ICMPV6);
            let same = u16::from(kind) == packet.l4.0
                && code.is_none_or(|code| u16::from(code) == packet.l4.1);
            (has_one, same)
        };
        let (mut sport, dport) = packet.l4;
        if self.is(Quirk::PortsOfTheWrongSide) {
            sport = dport;
        }
        let ports = |entity: &Entity, port: u16, side: Side| {
            let listed = |list: &[Port]| {
                let mut list = list.iter();
                list.any(|wanted| self.port_matches(*wanted, port, side, rule, packet))
            };
            (entity.ports.is_empty() || listed(&entity.ports))
                && (!listed(&entity.not_ports) || self.is(Quirk::NotPortsIgnored))
                && (entity.ports.is_empty() && entity.not_ports.is_empty()
                    || has_ports(packet.proto))
        };
        (self.is(Quirk::IpVersionIgnored) || rule.ip_version.is_none_or(|wanted| wanted == version))
            && rule.protocol.is_none_or(is)
            && (self.is(Quirk::NotProtocolIgnored) || !rule.not_protocol.is_some_and(is))
            && rule.icmp.is_none_or(|wanted| icmp(wanted) == (true, true))
            && (self.is(Quirk::NotIcmpIgnored)
                || rule.not_icmp.is_none_or(|not| icmp(not) == (true, false)))
            && self.entity(&rule.source, packet.src, namespace)
            && self.entity(&rule.destination, packet.dst, namespace)
            && ports(&rule.source, sport, Side::Source)
            && ports(&rule.destination, dport, Side::Destination)
    }

    fn entity(&self, entity: &Entity, address: IpAddr, namespace: Option<&str>) -> bool {
        let among = |nets: &[IpNet]| nets.iter().any(|net| net.contains(&address));
        let mut nets = entity.nets.clone();
        let mut not_nets = entity.not_nets.clone();
        if !self.is(Quirk::DeprecatedNetIgnored) {
            nets.extend(entity.net);
            not_nets.extend(entity.not_net);
        }
        if self.is(Quirk::NotNetsIgnored) {
            not_nets.clear();
        }
        let selector = match (&entity.selector, &entity.namespace_selector, namespace) {
            // What it is not is asked within its own namespace as well.
            (None, None, Some(own))
                if entity.not_selector.is_some() && !self.is(Quirk::NamespaceIgnored) =>
            {
                Some(own_namespace(own))
            }
            (None, None, _) => None,
            (Some(selector), None, None) => Some(selector.clone()),
            // Without another word it is about its own namespace.
            (Some(selector), None, Some(_)) if self.is(Quirk::NamespaceIgnored) => {
                Some(selector.clone())
            }
            (Some(selector), None, Some(own)) => {
                let own = own_namespace(own);
                Some(Selector::And(Box::new(own), Box::new(selector.clone())))
            }
            (None, Some(namespaces), _) => Some(in_namespaces(namespaces)),
            (Some(selector), Some(namespaces), _) => Some(Selector::And(
                Box::new(in_namespaces(namespaces)),
                Box::new(selector.clone()),
            )),
        };
        (nets.is_empty() || among(&nets))
            && !among(&not_nets)
            && selector.is_none_or(|selector| self.selected(&selector, address))
            && (self.is(Quirk::NotSelectorIgnored)
                || !entity
                    .not_selector
                    .as_ref()
                    .is_some_and(|selector| self.selected(selector, address)))
            && (self.is(Quirk::TagsIgnored)
                || entity.tag.is_none_or(|tag| self.tagged(tag, address)))
            && !entity.not_tag.is_some_and(|tag| self.tagged(tag, address))
    }

    /// Whether an address is in a set, or of an endpoint, with such labels.
    fn selected(&self, selector: &Selector, address: IpAddr) -> bool {
        let documents = self.documents();
        let in_set = documents.sets.iter().any(|set| {
            let mut labels = set.labels.clone();
            if let Some(namespace) = set.namespace {
                labels.insert(NAMESPACE.to_owned(), namespace.to_owned());
                for label in ["projectcalico.org/name", "kubernetes.io/metadata.name"] {
                    labels.insert(format!("pcns.{label}"), namespace.to_owned());
                }
            }
            self.selects(selector, &labels) && set.nets.iter().any(|net| net.contains(&address))
        });
        let of_endpoint = documents.endpoints.iter().any(|endpoint| {
            endpoint.expected_ips.contains(&address)
                && self.selects(selector, &self.labels_of(endpoint))
        });
        in_set || of_endpoint && !self.is(Quirk::EndpointsAreNoPeers)
    }

    /// Whether an address is of an endpoint with a profile of this tag.
    fn tagged(&self, tag: &str, address: IpAddr) -> bool {
        let documents = self.documents();
        documents.endpoints.iter().any(|endpoint| {
            endpoint.expected_ips.contains(&address)
                && documents.profiles.iter().any(|profile| {
                    endpoint.profiles.contains(&profile.name) && profile.tags.contains(&tag)
                })
        })
    }

    fn port_matches(
        &self,
        wanted: Port,
        port: u16,
        side: Side,
        rule: &Rule,
        packet: &Packet,
    ) -> bool {
        match wanted {
            Port::One(one) => port == one,
            Port::Range(first, last) if self.is(Quirk::RangeEndExclusive) => {
                first <= port && port < last.max(first + 1)
            }
            Port::Range(first, last) => first <= port && port <= last,
            Port::Named(name) => {
                let protocol = rule.protocol.map_or(0, |protocol| protocol.number);
                self.has_named(name, protocol, port, side, packet)
            }
        }
    }

    /// Whether what is on this side of the packet has a port of this name and
    /// number: an endpoint that is known by its addresses; or the one that is
    /// asked about, whose addresses aren't known.
    fn has_named(&self, name: &str, protocol: u8, port: u16, side: Side, packet: &Packet) -> bool {
        let address = match side {
            Side::Source => packet.src,
            Side::Destination => packet.dst,
        };
        let own_side = if self.case.egress {
            Side::Source
        } else {
            Side::Destination
        };
        let has = |endpoint: &Endpoint| {
            let mut ports = endpoint.ports.iter();
            ports.any(|(known, of, number)| {
                *known == name && of.number == protocol && *number == port
            })
        };
        let known = self.documents().endpoints.iter();
        let by_address = known.clone().any(|endpoint| {
            let there =
                endpoint.expected_ips.contains(&address) || self.is(Quirk::NamedPortsAnywhere);
            there && has(endpoint)
        });
        let here = self.endpoint().is_some_and(|endpoint| {
            side == own_side && endpoint.expected_ips.is_empty() && has(endpoint)
        });
        by_address || here
    }

    /// By a selector's meaning: an absent label is equal to nothing.
    fn selects(&self, selector: &Selector, labels: &Labels) -> bool {
        let get = |label: &str| labels.get(label).map(String::as_str);
        match selector {
            Selector::All => true,
            Selector::Global => get(NAMESPACE).is_none(),
            Selector::Has(label) => get(label).is_some(),
            Selector::Is(label, value) => get(label) == Some(value),
            Selector::IsNot(label, _)
                if self.is(Quirk::AbsentIsNotUnequal) && get(label).is_none() =>
            {
                false
            }
            Selector::IsNot(label, value) => get(label) != Some(value),
            Selector::In(label, values) => get(label).is_some_and(|value| values.contains(&value)),
            Selector::NotIn(label, values) => {
                !get(label).is_some_and(|value| values.contains(&value))
            }
            Selector::Contains(label, part) => get(label).is_some_and(|value| value.contains(part)),
            Selector::StartsWith(label, part) => {
                get(label).is_some_and(|value| value.starts_with(part))
            }
            Selector::EndsWith(label, part) => {
                get(label).is_some_and(|value| value.ends_with(part))
            }
            Selector::Not(inner) => !self.selects(inner, labels),
            Selector::And(left, right) => self.selects(left, labels) && self.selects(right, labels),
            Selector::Or(left, right) => self.selects(left, labels) || self.selects(right, labels),
        }
    }

    // ---- IngressNodeFirewall

    /// The longest CIDR is chosen first, then its rules by order; `Pass` where
    /// what is allowed goes on to the other kinds of policy.
    fn firewalls(&self, packet: &Packet) -> Option<(Action, String, u32)> {
        let labels = self.labels();
        let here = |firewall: &&Firewall| {
            (firewall.interfaces.contains(&INTERFACE) || self.is(Quirk::InterfacesIgnored))
                && label_selector(&firewall.node_selector, &labels)
        };
        let mut longest: Option<u8> = None;
        let mut rules = Vec::new();
        let firewalls = self.documents().firewalls.iter();
        for firewall in firewalls.filter(here) {
            let mut index = 0;
            for entry in &firewall.ingress {
                let cidrs = entry.source_cidrs.iter();
                let lengths: Vec<u8> = cidrs
                    .filter(|(address, length)| in_cidr(packet.src, *address, *length))
                    .map(|(_, length)| *length)
                    .collect();
                for rule in &entry.rules {
                    for length in &lengths {
                        longest = longest.max(Some(*length));
                        rules.push((*length, rule.order, rule, firewall.name.clone(), index));
                    }
                    index += 1;
                }
            }
        }
        if self.is(Quirk::FirewallsDontMerge) {
            let all = rules.clone();
            rules.retain(|(length, _, _, name, _)| {
                let of_it = all.iter().filter(|(_, _, _, other, _)| other == name);
                of_it.map(|(length, ..)| *length).max() == Some(*length)
            });
        } else if !self.is(Quirk::OrderBeforeCidr) {
            rules.retain(|(length, ..)| Some(*length) == longest);
        }
        rules.sort_by_key(|(_, order, ..)| *order);
        let documents = self.documents();
        let alone = documents.policies.is_empty() && documents.kubernetes.is_empty();
        rules
            .into_iter()
            .find(|(_, _, rule, _, _)| match rule.protocol {
                FirewallProtocol::Any => true,
                FirewallProtocol::Ports(number, first, last) => {
                    let last = if self.is(Quirk::RangeEndExclusive) {
                        last.saturating_sub(1).max(first)
                    } else {
                        last
                    };
                    packet.proto == number && (first..=last).contains(&packet.l4.1)
                }
                FirewallProtocol::Icmp(number, None) => packet.proto == number,
                FirewallProtocol::Icmp(number, Some((kind, code))) => {
                    packet.proto == number
                        && u16::from(kind) == packet.l4.0
                        && code.is_none_or(|code| u16::from(code) == packet.l4.1)
                }
            })
            .map(|(_, _, rule, name, index)| {
                let final_allow = alone || self.is(Quirk::FirewallAllowIsFinal);
                let action = match (rule.allow, final_allow) {
                    (false, _) => Action::Deny,
                    (true, true) => Action::Allow,
                    (true, false) => Action::Pass,
                };
                (action, name, index)
            })
    }

    // ---- Kubernetes

    /// One of the peers and one of the ports; an empty list is no condition.
    fn kubernetes_matches(&self, rule: &KubernetesRule, packet: &Packet) -> bool {
        let (address, side) = if self.case.egress {
            (packet.dst, Side::Destination)
        } else {
            (packet.src, Side::Destination)
        };
        let peer = |peer: &KubernetesPeer| match peer {
            KubernetesPeer::Block { cidr, except } => {
                cidr.contains(&address)
                    && (self.is(Quirk::ExceptIgnored)
                        || !except.iter().any(|net| net.contains(&address)))
            }
            KubernetesPeer::Pods => self.is(Quirk::PodsAreEverybody),
        };
        (rule.peers.is_empty() || rule.peers.iter().any(peer))
            && (rule.ports.is_empty()
                || rule.ports.iter().any(|wanted| {
                    let protocol = wanted.protocol.unwrap_or(TCP);
                    let any =
                        wanted.protocol.is_none() && self.is(Quirk::KubernetesPortsAreAnyProtocol);
                    (packet.proto == protocol || any)
                        && match wanted.port {
                            None => true,
                            Some(Port::One(port)) => packet.l4.1 == port,
                            Some(Port::Range(first, last)) => (first..=last).contains(&packet.l4.1),
                            Some(Port::Named(name)) => {
                                self.has_named(name, protocol, packet.l4.1, side, packet)
                            }
                        }
                }))
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    Untracked,
    PreDnat,
    Normal,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    Source,
    Destination,
}

impl Policy {
    fn stage(&self) -> Stage {
        match (self.do_not_track, self.pre_dnat) {
            (true, _) => Stage::Untracked,
            (_, true) => Stage::PreDnat,
            _ => Stage::Normal,
        }
    }
}

impl Candidate<'_> {
    /// The name in outputs.
    fn shown_name(&self) -> String {
        match self {
            Self::Kubernetes(policy) => {
                format!("{}/{}", policy.namespace.unwrap_or("default"), policy.name)
            }
            Self::Calico(policy) => match (policy.namespace, policy.staged) {
                (Some(namespace), true) => format!("staged:{namespace}/{}", policy.name),
                (Some(namespace), false) => format!("{namespace}/{}", policy.name),
                (None, true) => format!("staged:{}", policy.name),
                (None, false) => policy.name.clone(),
            },
        }
    }

    fn is_staged(&self) -> bool {
        matches!(self, Self::Calico(policy) if policy.staged)
    }

    fn applies_on_forward(&self) -> bool {
        match self {
            Self::Calico(policy) => policy.dialect != Dialect::V1 && policy.apply_on_forward,
            Self::Kubernetes(_) => false,
        }
    }
}

/// Ingress if there are no egress rules; egress if there are only those;
/// otherwise both.
const fn default_types(no_ingress: bool, no_egress: bool) -> (bool, bool) {
    match (no_ingress, no_egress) {
        (_, true) => (true, false),
        (true, false) => (false, true),
        (false, false) => (true, true),
    }
}

fn own_namespace(namespace: &str) -> Selector {
    match namespace {
        "red" => Selector::Is(NAMESPACE, "red"),
        _ => Selector::Is(NAMESPACE, "blue"),
    }
}

/// A selector over namespaces as one over what is in them.
fn in_namespaces(selector: &Selector) -> Selector {
    match selector {
        Selector::All => Selector::Has(NAMESPACE),
        Selector::Is("projectcalico.org/name", value) => {
            Selector::Is("pcns.projectcalico.org/name", value)
        }
        Selector::IsNot("kubernetes.io/metadata.name", value) => {
            Selector::IsNot("pcns.kubernetes.io/metadata.name", value)
        }
        other => other.clone(),
    }
}

fn label_selector(selector: &LabelSelector, labels: &Labels) -> bool {
    let get = |label: &str| labels.get(label).map(String::as_str);
    let mut wanted = selector.labels.iter();
    wanted.all(|(label, value)| get(label) == Some(value))
        && selector
            .expressions
            .iter()
            .all(|expression| match expression {
                Expression::In(label, values) => {
                    get(label).is_some_and(|value| values.contains(&value))
                }
                Expression::NotIn(label, values) => {
                    !get(label).is_some_and(|value| values.contains(&value))
                }
                Expression::Exists(label) => get(label).is_some(),
                Expression::DoesNotExist(label) => get(label).is_none(),
            })
}

/// Whether an address lies in a CIDR with host bits.
fn in_cidr(address: IpAddr, cidr: IpAddr, length: u8) -> bool {
    IpNet::new(cidr, length).is_ok_and(|net| net.contains(&address))
}

const fn has_ports(proto: u8) -> bool {
    matches!(proto, 6 | 17 | 132 | 136)
}

/// Edge-cases: what passes under default deny all the same.
fn is_essential(packet: &Packet, egress: bool) -> bool {
    let (first, second) = packet.l4;
    let [dhcp, dhcpv6] = if egress { [67, 547] } else { [68, 546] };
    match (packet.src.is_ipv4(), packet.proto) {
        (true, ICMP) => (first, second) == (3, 4),
        (true, IGMP) => true,
        (true, UDP) => second == dhcp,
        (false, UDP) => second == dhcpv6,
        (false, ICMPV6) => match first {
            1..=4 | 130..=132 | 143 => true,
            133..=137 => packet.hop_limit == 255,
            _ => false,
        },
        _ => false,
    }
}
