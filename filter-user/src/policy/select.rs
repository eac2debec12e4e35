//! Model + endpoint → ruleset: which policies apply to an endpoint, in which
//! order, and what happens to the rest.

use std::sync::Arc;

use super::diagnostic::{Code, Diagnostic, quote};
use super::endpoints::{Endpoint, Origin, enumerate};
use super::failsafe::FailsafeList;
use super::lower::{Lowering, ingress_node_firewall};
use super::model::{self, DEFAULT_ALLOW, Kind, Model, Policy};
use crate::ruleset::{
    Action, Addresses, Direction, Match, NetSet, Options, Rule, RuleId, Ruleset, Stage,
};
use ipnet::IpNet;

/// What a ruleset has beside its policies.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SelectOptions {
    /// The ports that stay open, for what comes in and what goes out.
    pub failsafe: Failsafe,
    /// How packets are treated that rules don't decide.
    pub options: Options,
    /// The node's own addresses: packets to (on the way out: from) others are
    /// forwarded. `None`: none are.
    pub node_addresses: Option<Vec<IpNet>>,
}

/// The ports that stay open whatever the policies say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failsafe {
    /// On the host itself.
    pub inbound: FailsafeList,
    /// On others, for this host.
    pub outbound: FailsafeList,
}

impl Failsafe {
    /// No port stays open.
    pub const NONE: Self = Self {
        inbound: FailsafeList::NONE,
        outbound: FailsafeList::NONE,
    };
}

impl Default for Failsafe {
    fn default() -> Self {
        Self {
            inbound: FailsafeList::inbound(),
            outbound: FailsafeList::outbound(),
        }
    }
}

/// What is in force on one endpoint.
#[derive(Clone, Debug, PartialEq)]
pub struct Selected {
    /// The rules.
    pub ruleset: Ruleset,
    /// The policies they come from, in evaluation order; also those without
    /// rules. Empty: no policy applies to this endpoint.
    pub selected_policies: Vec<Arc<str>>,
    /// What is probably not intended, or (errors) can't be enforced.
    pub warnings: Vec<Diagnostic>,
}

/// The name that failsafe rules have as their policy.
pub const FAILSAFE: &str = "failsafe";

/// What the names of profiles have before them where rules name them.
pub const PROFILE_PREFIX: &str = "profile:";

/// The name of the set of the node's own addresses.
pub const NODE_ADDRESSES: &str = "this node's addresses";

/// Lowers the policies that select an endpoint into one ordered list of rules.
#[must_use]
pub fn select(
    model: &Model,
    endpoint: &Endpoint,
    direction: Direction,
    options: &SelectOptions,
) -> Selected {
    let selected: Vec<&Policy> = model
        .policies()
        .iter()
        .filter(|policy| endpoint.is_selected_by(policy))
        .filter(|policy| match direction {
            Direction::Ingress => policy.types().ingress,
            Direction::Egress => policy.types().egress,
        })
        .collect();
    let mut list = List {
        lowering: Lowering::new(model, endpoint, direction),
        direction,
        rules: failsafe_rules(&options.failsafe, direction),
        node: None,
        default: None,
    };
    list.node = options.node_addresses.as_ref().map(|nets| {
        list.lowering.sets.push(NetSet {
            name: NODE_ADDRESSES.to_owned(),
            nets: nets.clone().into(),
        })
    });

    let firewalls: Vec<&Policy> = of_kind(&selected, Kind::IngressNodeFirewall);
    if !firewalls.is_empty() {
        let alone = model
            .policies()
            .iter()
            .all(|policy| policy.kind() == Kind::IngressNodeFirewall);
        list.rules
            .extend(ingress_node_firewall::lower(&firewalls, direction, alone));
    }
    let tiered: Vec<&Policy> = selected
        .iter()
        .filter(|policy| policy.kind() != Kind::IngressNodeFirewall)
        .copied()
        .collect();
    for tier in tiered.chunk_by(|a, b| (a.stage(), a.tier()) == (b.stage(), b.tier())) {
        list.tier(model, tier);
        if list.default.is_some() {
            break;
        }
    }
    list.profiles(model, endpoint);

    let (sets, rules) = (list.lowering.sets.list, list.rules);
    let default = list.default.unwrap_or(Action::Deny);
    let opens = rules
        .iter()
        .any(|rule| rule.action == Action::Allow && rule.id.stage != Stage::Failsafe);
    let mut warnings = list.lowering.diagnostics;
    if default == Action::Deny && !opens {
        let normal = selected
            .iter()
            .any(|policy| policy.stage() == Stage::Normal && !policy.staged());
        warnings.extend(denies_everything(
            endpoint,
            direction,
            normal,
            &options.failsafe,
        ));
    }
    Selected {
        ruleset: Ruleset {
            endpoint: endpoint.name.clone(),
            direction,
            sets,
            rules,
            default,
            options: options.options.clone(),
        },
        selected_policies: selected
            .iter()
            .map(|policy| Arc::clone(policy.name()))
            .collect(),
        warnings,
    }
}

fn of_kind<'m>(policies: &[&'m Policy], kind: Kind) -> Vec<&'m Policy> {
    let all = policies.iter().copied();
    all.filter(|policy| policy.kind() == kind).collect()
}

/// The rules of an endpoint as they come together.
struct List<'m> {
    lowering: Lowering<'m>,
    direction: Direction,
    rules: Vec<Rule>,
    /// The set of the node's own addresses, where forwarded packets are set
    /// apart by them.
    node: Option<u32>,
    /// What happens to all packets that come so far, once that is clear.
    default: Option<Action>,
}

impl List<'_> {
    /// The policies of one tier of one stage, and what happens at its end.
    fn tier(&mut self, model: &Model, policies: &[&Policy]) {
        let Some(first) = policies.first() else {
            return;
        };
        let (stage, name) = (first.stage(), first.tier());
        let mut passes = false;
        for policy in policies {
            let rules = match self.direction {
                Direction::Ingress => policy.ingress(),
                Direction::Egress => policy.egress(),
            };
            passes |= rules.iter().any(|rule| rule.action == Action::Pass);
            for (index, rule) in (0..).zip(rules) {
                let mut lowered = self.rule(stage, policy.name(), index, rule);
                lowered.tier = Some(Arc::clone(name));
                lowered.staged = policy.staged();
                if stage == Stage::Normal && !policy.apply_on_forward() {
                    self.keep_to_the_node(&mut lowered.matches);
                }
                self.rules.push(lowered);
            }
        }
        // The other stages have no default, and a tier may have none.
        if stage != Stage::Normal || model.tier(name).is_some_and(|tier| tier.default_pass) {
            return;
        }
        let selecting = |staged: bool| {
            let mut those = policies
                .iter()
                .filter(move |policy| policy.staged() == staged);
            let forward = those.clone().any(|policy| policy.apply_on_forward());
            (those.next_back(), forward || self.node.is_none())
        };
        let (enforced, enforced_on_all) = selecting(false);
        let (staged, staged_on_all) = selecting(true);
        if enforced.is_some() && enforced_on_all && !passes {
            // Nothing comes further.
            self.default = Some(Action::Deny);
            return;
        }
        if enforced.is_some() {
            self.end(Some(name), name, Action::Deny, false, enforced_on_all);
        }
        if let Some(last) = staged
            && (enforced.is_none() || staged_on_all && !enforced_on_all)
        {
            self.end(Some(name), last.name(), Action::Deny, true, staged_on_all);
        }
    }

    /// What happens behind the tiers.
    fn profiles(&mut self, model: &Model, endpoint: &Endpoint) {
        if self.default.is_some() {
            return;
        }
        if let Some(node) = self.node {
            // Profiles and their end are about the host's own packets.
            let mut elsewhere = Match::default();
            self.own(&mut elsewhere).not_sets.push(node);
            self.rules.push(Rule {
                id: RuleId {
                    stage: Stage::Normal,
                    policy: "forwarded".into(),
                    direction: self.direction,
                    index: None,
                },
                tier: None,
                action: Action::Allow,
                staged: false,
                matches: vec![elsewhere],
                source: None,
            });
        }
        for name in &endpoint.profiles {
            if name == DEFAULT_ALLOW {
                self.default = Some(Action::Allow);
                break;
            }
            let Some(profile) = model.profile(name) else {
                continue;
            };
            let shown: Arc<str> = format!("{PROFILE_PREFIX}{name}").into();
            let rules = match self.direction {
                Direction::Ingress => &profile.ingress,
                Direction::Egress => &profile.egress,
            };
            for (index, rule) in (0..).zip(rules) {
                let lowered = self.rule(Stage::Normal, &shown, index, rule);
                self.rules.push(lowered);
            }
        }
        let default = *self.default.get_or_insert(Action::Deny);
        // Where all is allowed anyway, nothing needs to be let through.
        if default == Action::Allow
            && let Some(last) = self.rules.last()
            && last.is_default()
            && last.action == Action::Allow
        {
            self.rules.pop();
        }
    }

    fn rule(&mut self, stage: Stage, policy: &Arc<str>, index: u32, rule: &model::Rule) -> Rule {
        Rule {
            id: RuleId {
                stage,
                policy: Arc::clone(policy),
                direction: self.direction,
                index: Some(index),
            },
            tier: None,
            action: rule.action,
            staged: false,
            matches: rule
                .criteria
                .iter()
                .flat_map(|criteria| self.lowering.criteria(criteria, &rule.source))
                .collect(),
            source: Some(rule.source.clone()),
        }
    }

    /// The end of a tier.
    fn end(
        &mut self,
        tier: Option<&Arc<str>>,
        policy: &Arc<str>,
        action: Action,
        staged: bool,
        on_all: bool,
    ) {
        let mut matches = vec![Match::default()];
        if !on_all {
            self.keep_to_the_node(&mut matches);
        }
        self.rules.push(Rule {
            id: RuleId {
                stage: Stage::Normal,
                policy: Arc::clone(policy),
                direction: self.direction,
                index: None,
            },
            tier: tier.cloned(),
            action,
            staged,
            matches,
            source: None,
        });
    }

    /// Leaves forwarded packets out.
    fn keep_to_the_node(&self, matches: &mut [Match]) {
        if let Some(node) = self.node {
            for condition in matches {
                self.own(condition).sets.push(node);
            }
        }
    }

    /// The side of a packet that is the host's own.
    fn own<'a>(&self, condition: &'a mut Match) -> &'a mut Addresses {
        match self.direction {
            Direction::Ingress => &mut condition.dst,
            Direction::Egress => &mut condition.src,
        }
    }
}

fn failsafe_rules(failsafe: &Failsafe, direction: Direction) -> Vec<Rule> {
    let policy: Arc<str> = FAILSAFE.into();
    let list = match direction {
        Direction::Ingress => &failsafe.inbound,
        Direction::Egress => &failsafe.outbound,
    };
    (0..)
        .zip(list.ports())
        .map(|(index, port)| Rule {
            id: RuleId {
                stage: Stage::Failsafe,
                policy: Arc::clone(&policy),
                direction,
                index: Some(index),
            },
            tier: None,
            action: Action::Allow,
            staged: false,
            matches: vec![port.to_match(direction)],
            source: None,
        })
        .collect()
}

/// Calico's default for host endpoints is to deny, which surprises those who
/// come from its automatic ones.
fn denies_everything(
    endpoint: &Endpoint,
    direction: Direction,
    normal: bool,
    failsafe: &Failsafe,
) -> Option<Diagnostic> {
    let Origin::Document(place) = &endpoint.origin else {
        // Only policies that its author wrote for it can have denied it all.
        return None;
    };
    let (what, failsafe, needed) = match direction {
        Direction::Ingress => ("everything", &failsafe.inbound, "what this host serves"),
        Direction::Egress => (
            "everything that goes out",
            &failsafe.outbound,
            "what this host asks for (`egress: [{action: allow}]` for all of it)",
        ),
    };
    let rest = if failsafe.ports().is_empty() {
        String::new()
    } else {
        format!(" but the failsafe ports ({failsafe})")
    };
    let message = format!(
        "the host endpoint {} would deny {what}{rest}",
        quote(&endpoint.name)
    );
    let (label, help) = if normal {
        (
            "no rule allows anything here, and normal policies deny the rest",
            format!("add a policy that allows {needed}"),
        )
    } else {
        (
            "has no profile, so what no policy decides is denied",
            format!(
                "add `profiles: [projectcalico-default-allow]` to its spec to let the rest pass, \
                 or a policy that allows {needed}"
            ),
        )
    };
    Some(
        Diagnostic::warning(Code::DeniesEverything, message)
            .at(place.clone())
            .label(label)
            .help(help),
    )
}

/// A warning for each policy that applies to none of the endpoints.
#[must_use]
pub fn unselected(model: &Model, endpoints: &[Endpoint]) -> Vec<Diagnostic> {
    let policies = model.policies().iter();
    let idle = policies.filter(|policy| {
        let mut all = endpoints.iter();
        !all.any(|endpoint| endpoint.is_selected_by(policy))
    });
    idle.map(|policy| {
        let selects = policy.selects();
        let mut label = format!("selects {}", selects.labels);
        if !selects.interfaces.is_empty() {
            let interfaces = enumerate(selects.interfaces.iter().map(|name| quote(name)));
            label = format!("is for {interfaces}, and {label}");
        }
        let namespaced = selects.namespace.as_ref().filter(|_| {
            let from_document = |endpoint: &Endpoint| endpoint.origin != Origin::CommandLine;
            endpoints.iter().any(from_document)
        });
        let why = match namespaced {
            Some(namespace) => format!(
                "it is for what is in the namespace {}, and host endpoints are in none",
                quote(namespace)
            ),
            None => "none of its rules would be in force".to_owned(),
        };
        Diagnostic::warning(
            Code::SelectsNothing,
            format!("the policy {} selects no endpoint", quote(policy.name())),
        )
        .at(policy.place().clone())
        .label(label)
        .help(format!(
            "{why}; there is {}",
            enumerate(endpoints.iter().map(describe))
        ))
    })
    .collect()
}

fn describe(endpoint: &Endpoint) -> String {
    if endpoint.labels.is_empty() {
        return format!("{} without labels", quote(&endpoint.name));
    }
    let labels = endpoint.labels.iter();
    let labels = enumerate(labels.map(|(name, value)| format!("{name}={value}")));
    format!("{} with {}", quote(&endpoint.name), quote(&labels))
}

#[cfg(test)]
mod tests {
    use super::super::endpoints::Host;
    use super::super::{Labels, Source, check, endpoints_for};
    use super::*;

    fn model(text: &str) -> Model {
        let checked = check(&[Source::new("t", text)]);
        checked
            .model
            .unwrap_or_else(|| panic!("{:?}", checked.diagnostics))
    }

    fn policy(name: &str, spec: &str) -> String {
        format!(
            "- {{apiVersion: v1, kind: policy, metadata: {{name: {name}}}, spec: {{{spec}}}}}\n"
        )
    }

    fn endpoint(name: &str, interface: &str, more: &str) -> String {
        format!(
            "- {{apiVersion: projectcalico.org/v3, kind: HostEndpoint, \
             metadata: {{name: {name}, labels: {{role: {name}}}}}, \
             spec: {{node: n, interfaceName: {interface}{more}}}}}\n"
        )
    }

    fn labels(pairs: &[(&str, &str)]) -> Labels {
        pairs
            .iter()
            .map(|&(name, value)| (name.into(), value.into()))
            .collect()
    }

    fn none() -> SelectOptions {
        SelectOptions {
            failsafe: Failsafe::NONE,
            ..SelectOptions::default()
        }
    }

    #[test]
    fn stages_come_in_calicos_order() {
        let model = model(
            &[
                policy(
                    "normal",
                    "order: 1, ingress: [{action: allow}, {action: deny}]",
                ),
                policy(
                    "early",
                    "order: 9, preDNAT: true, ingress: [{action: deny}]",
                ),
                policy("others", "selector: has(x), ingress: [{action: deny}]"),
            ]
            .concat(),
        );
        let endpoint = Endpoint::from_command_line("eth0", Labels::new());
        let selected = select(
            &model,
            &endpoint,
            Direction::Ingress,
            &SelectOptions::default(),
        );
        let rules = &selected.ruleset.rules;
        let failsafe = FailsafeList::inbound().ports().len();
        assert!(rules[..failsafe].iter().all(|rule| {
            rule.id.stage == Stage::Failsafe
                && &*rule.id.policy == FAILSAFE
                && rule.action == Action::Allow
                && rule.source.is_none()
        }));
        let ids: Vec<_> = rules[failsafe..]
            .iter()
            .map(|rule| (rule.id.stage, &*rule.id.policy, rule.id.index))
            .collect();
        assert_eq!(
            ids,
            [
                (Stage::PreDnat, "early", Some(0)),
                (Stage::Normal, "normal", Some(0)),
                (Stage::Normal, "normal", Some(1)),
            ]
        );
        let names: Vec<_> = selected
            .selected_policies
            .iter()
            .map(|name| &**name)
            .collect();
        assert_eq!(names, ["early", "normal"]);
        assert_eq!(selected.ruleset.endpoint, "eth0");
        assert_eq!(selected.ruleset.direction, Direction::Ingress);
    }

    #[test]
    fn the_default_follows_stage_and_profile() {
        let pre_dnat = policy(
            "p",
            "preDNAT: true, ingress: [{action: allow, protocol: tcp}]",
        );
        let normal = policy("n", "ingress: [{action: allow, protocol: tcp}]");
        let empty = policy("e", "ingress: []");
        let elsewhere = policy("x", "selector: has(x), ingress: [{action: deny}]");
        for (policies, with_profile, without) in [
            (String::new(), Action::Allow, Action::Deny),
            (elsewhere, Action::Allow, Action::Deny),
            (pre_dnat.clone(), Action::Allow, Action::Deny),
            (normal.clone(), Action::Deny, Action::Deny),
            // A policy without rules selects all the same.
            (empty, Action::Deny, Action::Deny),
            (pre_dnat + &normal, Action::Deny, Action::Deny),
        ] {
            for (profile, expected) in [
                (", profiles: [projectcalico-default-allow]", with_profile),
                (", profiles: []", without),
                ("", without),
            ] {
                let text = format!("{}{policies}", endpoint("e", "eth0", profile));
                let model = model(&text);
                let endpoints =
                    endpoints_for(&model, &[], &Labels::new(), &Host::default()).expect("one");
                let selected = select(&model, &endpoints[0], Direction::Ingress, &none());
                assert_eq!(selected.ruleset.default, expected, "{text}");
            }
        }
        let model = Model::default();
        let automatic = Endpoint::from_command_line("eth0", Labels::new());
        assert_eq!(
            select(&model, &automatic, Direction::Ingress, &none())
                .ruleset
                .default,
            Action::Allow
        );
    }

    #[test]
    fn warns_where_nothing_would_pass() {
        let warnings = |policies: &str, profile: &str| {
            let model = model(&format!("{}{policies}", endpoint("e", "eth0", profile)));
            let endpoints =
                endpoints_for(&model, &[], &Labels::new(), &Host::default()).expect("one");
            select(&model, &endpoints[0], Direction::Ingress, &none())
                .warnings
                .len()
        };
        let profile = ", profiles: [projectcalico-default-allow]";
        assert_eq!(warnings("", ""), 1);
        assert_eq!(warnings("", profile), 0);
        assert_eq!(
            warnings(&policy("p", "ingress: [{action: deny}]"), profile),
            1
        );
        assert_eq!(warnings(&policy("p", "ingress: [{action: allow}]"), ""), 0);
        // From the command line somebody asked for just that.
        let model = model(&policy("p", "ingress: [{action: deny}]"));
        let endpoint = Endpoint::from_command_line("eth0", Labels::new());
        assert!(
            select(&model, &endpoint, Direction::Ingress, &none())
                .warnings
                .is_empty()
        );
    }

    #[test]
    fn names_policies_that_select_nothing() {
        let model = model(
            &[
                policy("a", "selector: role == 'x', ingress: []"),
                policy("b", "selector: role == 'y', ingress: []"),
                policy("c", "selector: role == 'z', ingress: []"),
            ]
            .concat(),
        );
        let on = |role| Endpoint::from_command_line("eth0", labels(&[("role", role)]));
        let found = unselected(&model, &[on("x"), on("z")]);
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].message, "the policy `b` selects no endpoint");
        assert_eq!(found[0].code, Code::SelectsNothing);
    }
}
