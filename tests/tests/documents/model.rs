//! Documents as their authors write them, field by field, in small structs of
//! this test's own: nothing here comes from the filter's model.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;

pub(crate) type Labels = BTreeMap<String, String>;

/// All documents of a case.
#[derive(Clone, Debug, Default)]
pub(crate) struct Documents {
    pub policies: Vec<Policy>,
    pub tiers: Vec<Tier>,
    pub profiles: Vec<Profile>,
    pub endpoints: Vec<Endpoint>,
    pub sets: Vec<NetworkSet>,
    pub firewalls: Vec<Firewall>,
    pub kubernetes: Vec<KubernetesPolicy>,
}

/// Calico's, of either version.
#[derive(Clone, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "as the document has them")]
pub(crate) struct Policy {
    pub dialect: Dialect,
    /// A `NetworkPolicy`'s.
    pub namespace: Option<&'static str>,
    pub staged: bool,
    /// As it is written, with its tier where it has to have it.
    pub name: String,
    pub tier: Option<&'static str>,
    pub order: Option<f64>,
    pub selector: Option<Selector>,
    pub namespace_selector: Option<Selector>,
    pub do_not_track: bool,
    pub pre_dnat: bool,
    pub apply_on_forward: bool,
    /// Ingress, egress.
    pub types: Option<(bool, bool)>,
    pub ingress: Vec<Rule>,
    pub egress: Vec<Rule>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dialect {
    V1,
    V3,
    /// `crd.projectcalico.org/v1`.
    Crd,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    Allow,
    Deny,
    Log,
    Pass,
}

#[derive(Clone, Debug)]
pub(crate) struct Rule {
    pub action: Action,
    pub ip_version: Option<u8>,
    pub protocol: Option<Protocol>,
    pub not_protocol: Option<Protocol>,
    pub icmp: Option<(u8, Option<u8>)>,
    pub not_icmp: Option<(u8, Option<u8>)>,
    pub source: Entity,
    pub destination: Entity,
}

/// By its name, or by its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Protocol {
    pub number: u8,
    pub by_name: bool,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Entity {
    /// v1's deprecated ones.
    pub net: Option<IpNet>,
    pub not_net: Option<IpNet>,
    pub nets: Vec<IpNet>,
    pub not_nets: Vec<IpNet>,
    pub selector: Option<Selector>,
    pub not_selector: Option<Selector>,
    pub namespace_selector: Option<Selector>,
    pub tag: Option<&'static str>,
    pub not_tag: Option<&'static str>,
    pub ports: Vec<Port>,
    pub not_ports: Vec<Port>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Port {
    One(u16),
    Range(u16, u16),
    Named(&'static str),
}

#[derive(Clone, Debug)]
pub(crate) enum Selector {
    All,
    Global,
    Has(&'static str),
    Is(&'static str, &'static str),
    IsNot(&'static str, &'static str),
    In(&'static str, Vec<&'static str>),
    NotIn(&'static str, Vec<&'static str>),
    Contains(&'static str, &'static str),
    StartsWith(&'static str, &'static str),
    EndsWith(&'static str, &'static str),
    Not(Box<Selector>),
    And(Box<Selector>, Box<Selector>),
    Or(Box<Selector>, Box<Selector>),
}

#[derive(Clone, Debug)]
pub(crate) struct Tier {
    pub name: &'static str,
    pub order: Option<f64>,
    /// `defaultAction`, if it is written.
    pub default_pass: Option<bool>,
}

#[derive(Clone, Debug)]
pub(crate) struct Profile {
    pub dialect: Dialect,
    pub name: &'static str,
    pub labels: Labels,
    /// v1 only.
    pub tags: Vec<&'static str>,
    pub ingress: Vec<Rule>,
    pub egress: Vec<Rule>,
}

#[derive(Clone, Debug)]
pub(crate) struct Endpoint {
    pub dialect: Dialect,
    pub name: String,
    pub labels: Labels,
    /// `None`: found by its addresses.
    pub interface: Option<&'static str>,
    pub expected_ips: Vec<IpAddr>,
    pub profiles: Vec<&'static str>,
    /// Name, protocol, port.
    pub ports: Vec<(&'static str, Protocol, u16)>,
}

#[derive(Clone, Debug)]
pub(crate) struct NetworkSet {
    pub namespace: Option<&'static str>,
    pub name: String,
    pub labels: Labels,
    pub nets: Vec<IpNet>,
}

/// An `IngressNodeFirewall`.
#[derive(Clone, Debug)]
pub(crate) struct Firewall {
    pub name: String,
    pub interfaces: Vec<&'static str>,
    pub node_selector: LabelSelector,
    pub ingress: Vec<FirewallEntry>,
}

#[derive(Clone, Debug)]
pub(crate) struct FirewallEntry {
    /// As written, with host bits.
    pub source_cidrs: Vec<(IpAddr, u8)>,
    pub rules: Vec<FirewallRule>,
}

#[derive(Clone, Debug)]
pub(crate) struct FirewallRule {
    pub order: u32,
    pub protocol: FirewallProtocol,
    pub allow: bool,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum FirewallProtocol {
    Any,
    /// The number, first and last port.
    Ports(u8, u16, u16),
    /// The number, type and code.
    Icmp(u8, Option<(u8, Option<u8>)>),
}

/// A Kubernetes `NetworkPolicy`.
#[derive(Clone, Debug)]
pub(crate) struct KubernetesPolicy {
    pub namespace: Option<&'static str>,
    pub name: String,
    pub pod_selector: LabelSelector,
    pub types: Option<(bool, bool)>,
    pub ingress: Vec<KubernetesRule>,
    pub egress: Vec<KubernetesRule>,
}

#[derive(Clone, Debug)]
pub(crate) struct KubernetesRule {
    pub peers: Vec<KubernetesPeer>,
    pub ports: Vec<KubernetesPort>,
}

#[derive(Clone, Debug)]
pub(crate) enum KubernetesPeer {
    Block {
        cidr: IpNet,
        except: Vec<IpNet>,
    },
    /// By labels of pods, which nobody knows here.
    Pods,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct KubernetesPort {
    /// TCP where it isn't written.
    pub protocol: Option<u8>,
    pub port: Option<Port>,
}

/// `matchLabels` and `matchExpressions`.
#[derive(Clone, Debug, Default)]
pub(crate) struct LabelSelector {
    pub labels: Labels,
    pub expressions: Vec<Expression>,
}

#[derive(Clone, Debug)]
pub(crate) enum Expression {
    In(&'static str, Vec<&'static str>),
    NotIn(&'static str, Vec<&'static str>),
    Exists(&'static str),
    DoesNotExist(&'static str),
}

/// Documents, and what they are asked about.
#[derive(Clone, Debug)]
pub(crate) struct Case {
    pub documents: Documents,
    /// The first endpoint document, or this interface with these labels where
    /// there are no such documents.
    pub labels: Labels,
    pub egress: bool,
    pub failsafe: bool,
    /// Whether the node forwards: then its addresses.
    pub node: Option<Vec<IpNet>>,
}

/// The tiers that there always are: name, order, whether their end passes.
pub(crate) const WELL_KNOWN_TIERS: [(&str, f64, bool); 3] = [
    ("kube-admin", 1_000.0, true),
    ("default", 1_000_000.0, false),
    ("kube-baseline", 10_000_000.0, true),
];
/// The interface that is asked about.
pub(crate) const INTERFACE: &str = "eth0";
/// The profile that allows everything.
pub(crate) const DEFAULT_ALLOW: &str = "projectcalico-default-allow";
/// The label of what is in a namespace.
pub(crate) const NAMESPACE: &str = "projectcalico.org/namespace";

/// A packet, whole and well-formed: oddities are other tests' matter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Packet {
    pub src: IpAddr,
    pub dst: IpAddr,
    pub proto: u8,
    pub hop_limit: u8,
    /// The ports, or the ICMP type and code (0 where there is neither).
    pub l4: (u16, u16),
}
