//! Mistakes that a reader of the documents might make.

/// Each must be caught by the comparison.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Quirk {
    /// Tiers come by their names.
    TierOrder,
    /// Policies come by their names.
    PolicyOrder,
    /// A tier's end denies although its default is Pass.
    TierDefaultIgnored,
    /// A tier's end denies although no policy selects the endpoint.
    DenyWithoutSelection,
    /// Untracked and `preDNAT` policies end with a deny too.
    EveryStageDenies,
    /// A Pass goes to the profiles, past all other tiers.
    PassToProfiles,
    /// A Pass goes on with the next rule.
    PassToNextRule,
    /// A Log allows.
    LogDecides,
    /// Staged policies are enforced.
    StagedIsEnforced,
    /// All policies apply to forwarded packets, and profiles too.
    ForwardedIsLocal,
    /// Policies have a word in both directions.
    TypesIgnored,
    /// Namespaces are not asked for.
    NamespaceIgnored,
    /// `!=` doesn't match an absent label.
    AbsentIsNotUnequal,
    /// Selectors of rules see network sets alone.
    EndpointsAreNoPeers,
    /// The end of a port range doesn't belong to it.
    RangeEndExclusive,
    /// `notPorts` is not honoured.
    NotPortsIgnored,
    /// An ICMP code 0 is taken for none.
    IcmpCode0IsUnset,
    /// An `IngressNodeFirewall`'s rules come by their order, whatever CIDR
    /// they are for.
    OrderBeforeCidr,
    /// What an `IngressNodeFirewall` allows passes by the other policies.
    FirewallAllowIsFinal,
    /// `except` is not honoured.
    ExceptIgnored,
    /// Peers by the labels of pods are all addresses.
    PodsAreEverybody,
    /// Endpoints don't have the labels of their profiles.
    ProfileLabelsIgnored,
    /// Profiles have a word although policies select the endpoint.
    ProfilesFirst,
    /// v1's `tag` is no condition.
    TagsIgnored,
    /// `notSelector` is not honoured.
    NotSelectorIgnored,
    /// `notNets` is not honoured.
    NotNetsIgnored,
    /// v1's `net` and `notNet` are not read.
    DeprecatedNetIgnored,
    /// `ipVersion` is not honoured.
    IpVersionIgnored,
    /// `notProtocol` is not honoured.
    NotProtocolIgnored,
    /// `notICMP` is not honoured.
    NotIcmpIgnored,
    /// `source.ports` are asked of the destination.
    PortsOfTheWrongSide,
    /// A port's name means its number at every address.
    NamedPortsAnywhere,
    /// Staged policies have no end of a tier.
    StagedEndIgnored,
    /// Kubernetes' policies come behind Calico's of their tier.
    KubernetesLast,
    /// A port without protocol is one of every protocol.
    KubernetesPortsAreAnyProtocol,
    /// The longest CIDR is chosen in each `IngressNodeFirewall` by itself.
    FirewallsDontMerge,
    /// An `IngressNodeFirewall` is for every interface.
    InterfacesIgnored,
}

impl Quirk {
    pub(crate) const ALL: [Self; 37] = [
        Self::TierOrder,
        Self::PolicyOrder,
        Self::TierDefaultIgnored,
        Self::DenyWithoutSelection,
        Self::EveryStageDenies,
        Self::PassToProfiles,
        Self::PassToNextRule,
        Self::LogDecides,
        Self::StagedIsEnforced,
        Self::ForwardedIsLocal,
        Self::TypesIgnored,
        Self::NamespaceIgnored,
        Self::AbsentIsNotUnequal,
        Self::EndpointsAreNoPeers,
        Self::RangeEndExclusive,
        Self::NotPortsIgnored,
        Self::IcmpCode0IsUnset,
        Self::OrderBeforeCidr,
        Self::FirewallAllowIsFinal,
        Self::ExceptIgnored,
        Self::PodsAreEverybody,
        Self::ProfileLabelsIgnored,
        Self::ProfilesFirst,
        Self::TagsIgnored,
        Self::NotSelectorIgnored,
        Self::NotNetsIgnored,
        Self::DeprecatedNetIgnored,
        Self::IpVersionIgnored,
        Self::NotProtocolIgnored,
        Self::NotIcmpIgnored,
        Self::PortsOfTheWrongSide,
        Self::NamedPortsAnywhere,
        Self::StagedEndIgnored,
        Self::KubernetesLast,
        Self::KubernetesPortsAreAnyProtocol,
        Self::FirewallsDontMerge,
        Self::InterfacesIgnored,
    ];
}
