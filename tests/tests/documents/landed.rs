//! What the parsers of Calico's documents don't read yet is left out here. This
//! file goes when they do.

use std::collections::BTreeSet;

use super::model::{Action, Case, DEFAULT_ALLOW, Dialect, INTERFACE, Port};
use super::quirk::Quirk;

/// The case without it.
pub(crate) fn reduce(mut case: Case) -> Case {
    let documents = &mut case.documents;
    documents.tiers.clear();
    documents.profiles.clear();
    documents.sets.clear();
    let interfaces = [INTERFACE, "eth1", "eth2"];
    for (endpoint, interface) in documents.endpoints.iter_mut().zip(interfaces) {
        if endpoint.dialect == Dialect::Crd {
            endpoint.dialect = Dialect::V3;
        }
        endpoint.expected_ips.clear();
        endpoint.ports.clear();
        endpoint.profiles.retain(|name| *name == DEFAULT_ALLOW);
        endpoint.interface = Some(interface);
    }
    documents
        .policies
        .retain(|policy| !policy.staged && policy.namespace.is_none());
    for policy in &mut documents.policies {
        if policy.dialect == Dialect::Crd {
            policy.dialect = Dialect::V3;
        }
        policy.do_not_track = false;
        policy.tier = None;
        let plain = policy.name.rsplit('.').next().unwrap_or_default();
        policy.name = plain.to_owned();
        policy.apply_on_forward = policy.pre_dnat;
        policy.egress.clear();
        policy.types = None;
        policy.namespace_selector = None;
        policy
            .ingress
            .retain(|rule| matches!(rule.action, Action::Allow | Action::Deny));
        for rule in &mut policy.ingress {
            rule.icmp = None;
            rule.not_icmp = None;
            rule.not_protocol = None;
            rule.source.ports.clear();
            for entity in [&mut rule.source, &mut rule.destination] {
                entity.net = None;
                entity.not_net = None;
                entity.not_nets.clear();
                entity.selector = None;
                entity.not_selector = None;
                entity.namespace_selector = None;
                entity.tag = None;
                entity.not_tag = None;
                entity.not_ports.clear();
                entity.ports.retain(|port| !matches!(port, Port::Named(_)));
            }
        }
    }
    let mut names = BTreeSet::new();
    documents
        .policies
        .retain(|policy| names.insert(policy.name.clone()));
    case
}

/// Whether what is left shows such a misreading.
pub(crate) fn shows(quirk: Quirk) -> bool {
    ![
        Quirk::TierOrder,
        Quirk::TierDefaultIgnored,
        Quirk::PassToProfiles,
        Quirk::PassToNextRule,
        Quirk::LogDecides,
        Quirk::StagedIsEnforced,
        Quirk::TypesIgnored,
        Quirk::EndpointsAreNoPeers,
        Quirk::NotPortsIgnored,
        Quirk::IcmpCode0IsUnset,
    ]
    .contains(&quirk)
}
