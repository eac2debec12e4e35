//! What is legal, and probably not intended: warnings about a model and what
//! it comes to on an endpoint.
//!
//! What is said of rules is exact: it is asked of the ruleset's classes, and so
//! of all packets there are.

use filter_common::verdict::{Essential, Verdict};

use crate::compile::Analysis;
use crate::policy::diagnostic::{Code, Diagnostic, Place, quote};
use crate::policy::{Endpoint, Model, Source, Span};
use crate::ruleset::{
    Action, Direction, Essentials, Family, Match, PortRange, Rule, Ruleset, SourceLine, Stage,
};

const TCP: u8 = 6;
const UDP: u8 = 17;
const ICMP: u8 = 1;
const ICMPV6: u8 = 58;

/// The ports that Kubernetes gives to node ports unless it is told otherwise.
const NODE_PORTS: PortRange = PortRange {
    first: 30_000,
    last: 32_767,
};

/// What is odd about the documents themselves, whichever endpoint they are
/// for: sets without networks, and such as no rule asks for.
#[must_use]
pub fn of_model(model: &Model) -> Vec<Diagnostic> {
    let rules = || {
        let policies = model.policies().iter();
        let policies = policies.flat_map(|policy| policy.ingress().iter().chain(policy.egress()));
        let profiles = model.profiles().iter();
        policies.chain(profiles.flat_map(|profile| profile.ingress.iter().chain(&profile.egress)))
    };
    let asked_for = |labels: &_| {
        rules()
            .flat_map(|rule| &rule.criteria)
            .flat_map(|criteria| [&criteria.src, &criteria.dst])
            .flat_map(|peer| [&peer.selector, &peer.not_selector])
            .flatten()
            .any(|selector| selector.matches(labels))
    };
    let mut found = Vec::new();
    for set in model.sets() {
        if set.nets.is_empty() {
            found.push(
                Diagnostic::warning(
                    Code::EmptySet,
                    format!("the set {} holds no network", quote(&set.name)),
                )
                .at(set.place.clone())
                .label("rules that ask for it match nothing")
                .help("list its networks in `spec.nets`, or remove the set"),
            );
        }
        if !asked_for(&set.labels) {
            found.push(
                Diagnostic::warning(
                    Code::UnusedSet,
                    format!("no rule asks for the set {}", quote(&set.name)),
                )
                .at(set.place.clone())
                .label("no selector of a rule matches its labels")
                .help("check its labels and the selectors of the rules"),
            );
        }
    }
    found
}

/// What is odd about the rules of one endpoint. `sources` are those that the
/// model comes from.
pub fn of_ruleset(
    analysis: &Analysis<'_>,
    endpoint: &Endpoint,
    sources: &[Source],
) -> Vec<Diagnostic> {
    let mut found = Vec::new();
    if let Err(error) = analysis.asks_in_time() {
        found.push(
            Diagnostic::warning(
                Code::NotAnalysed,
                format!("rules without effect are not looked for: {error}"),
            )
            .help("the tables are exact all the same; `explain` says what happens to a packet"),
        );
    }
    let lint = Lint {
        ruleset: analysis.ruleset(),
        endpoint,
        sources,
        analysis,
    };
    lint.unreachable(&mut found);
    lint.empty_selectors(&mut found);
    lint.allow_all(&mut found);
    lint.essentials(&mut found);
    // What follows is about the host's own services.
    if lint.ruleset.direction == Direction::Ingress {
        lint.node_ports(&mut found);
        lint.cut_services(&mut found);
    }
    found
}

struct Lint<'a> {
    ruleset: &'a Ruleset,
    endpoint: &'a Endpoint,
    sources: &'a [Source],
    analysis: &'a Analysis<'a>,
}

impl Lint<'_> {
    fn rule(&self, index: u32) -> &Rule {
        &self.ruleset.rules[index as usize]
    }

    /// The rules that documents have.
    fn written(&self) -> impl Iterator<Item = &Rule> {
        let rules = self.ruleset.rules.iter();
        rules.filter(|rule| rule.id.stage != Stage::Failsafe && !rule.is_default())
    }

    fn warning(&self, code: Code, rule: &Rule, message: String) -> Diagnostic {
        let warning = Diagnostic::warning(code, message);
        match rule.source.as_ref().and_then(|line| self.place(line)) {
            Some(place) => warning.at(place),
            None => warning,
        }
    }

    /// Where a rule stands, with its first word.
    fn place(&self, line: &SourceLine) -> Option<Place> {
        let mut sources = (0..).zip(self.sources);
        let (file, source) = sources.find(|(_, source)| *source.name() == line.file)?;
        let start = source.offset(line.line, line.column)?;
        let word = source.text()[start as usize..]
            .find(|c: char| !(c.is_alphanumeric() || "_-.".contains(c)))
            .unwrap_or(1)
            .max(1);
        let end = start + u32::try_from(word).ok()?;
        Some(Place::new(self.sources, Span { file, start, end }))
    }

    fn unreachable(&self, found: &mut Vec<Diagnostic>) {
        for missed in self.analysis.unreachable() {
            let rule = self.rule(missed.rule);
            let name = name(rule);
            let Some((&first, rest)) = missed.by.split_first() else {
                found.push(
                    self.warning(
                        Code::MatchesNothing,
                        rule,
                        format!("{name} matches no packet"),
                    )
                    .label("no packet is all of this at once")
                    .help(format!(
                        "it asks for {}; check that its conditions don't exclude each other, and \
                         that its selectors select something",
                        self.ruleset.words(rule)
                    )),
                );
                continue;
            };
            let by = self.rule(first);
            let others = match rest.len() {
                0 => String::new(),
                1 => " together with another rule".to_owned(),
                more => format!(" together with {more} other rules"),
            };
            let verb = match by.action {
                Action::Pass => "passes over",
                _ if by.is_default() => "denies",
                _ => "decides",
            };
            let mut warning = self
                .warning(Code::ShadowedRule, rule, format!("{name} is never reached"))
                .label(format!(
                    "{}{others} {verb} all that it matches",
                    self::name(by)
                ));
            warning = match by.source.as_ref().and_then(|line| self.place(line)) {
                Some(place) => warning.related(place, "comes before it"),
                None => warning,
            };
            found.push(warning.help(match (by.id.stage, self.ruleset.direction) {
                (Stage::Failsafe, Direction::Ingress) => {
                    "failsafe ports come before all policies: change them with --failsafe-inbound, \
                     or remove the rule"
                }
                (Stage::Failsafe, Direction::Egress) => {
                    "failsafe ports come before all policies: change them with --failsafe-outbound, \
                     or remove the rule"
                }
                _ => "remove the rule, or move it before what shadows it",
            }));
        }
    }

    fn empty_selectors(&self, found: &mut Vec<Diagnostic>) {
        for rule in self.written() {
            let sides = rule
                .matches
                .iter()
                .flat_map(|asked| [&asked.src, &asked.dst]);
            let mut sets: Vec<u32> = sides
                .flat_map(|side| side.sets.iter().chain(&side.not_sets).copied())
                .collect();
            sets.sort_unstable();
            sets.dedup();
            for set in sets
                .iter()
                .filter_map(|set| self.ruleset.sets.get(*set as usize))
            {
                if set.nets.is_empty() {
                    found.push(
                        self.warning(
                            Code::EmptySet,
                            rule,
                            format!("in {}, the {} selects nothing", name(rule), set.name),
                        )
                        .label("no set, and no address of an endpoint, matches")
                        .help(
                            "selectors of rules see the sets and host endpoints of the files, not \
                             the pods of a cluster: add the set, or correct the selector",
                        ),
                    );
                }
            }
        }
    }

    fn node_ports(&self, found: &mut Vec<Diagnostic>) {
        for rule in self.written() {
            let ranges = rule.matches.iter().flat_map(|asked| {
                let not = &asked.not_dst_ports;
                asked.dst_ports.iter().chain(not)
            });
            let cut = ranges.copied().find(|range| {
                let inside = NODE_PORTS.first <= range.first && range.last <= NODE_PORTS.last;
                let around = range.first <= NODE_PORTS.first && NODE_PORTS.last <= range.last;
                let touches = range.first <= NODE_PORTS.last && NODE_PORTS.first <= range.last;
                touches && !inside && !around
            });
            if let Some(range) = cut {
                found.push(
                    self.warning(
                        Code::CutsNodePorts,
                        rule,
                        format!("{} cuts across the range of node ports", name(rule)),
                    )
                    .label(format!("{range} holds a part of {NODE_PORTS}"))
                    .help(
                        "node ports are 30000:32767, both ends included, unless the API server \
                         says otherwise",
                    ),
                );
            }
        }
    }

    /// Policies that deny something, and then allow all the rest for good.
    fn allow_all(&self, found: &mut Vec<Diagnostic>) {
        for rule in self.written() {
            let unconditional = rule.matches.contains(&Match::default());
            let denies = || {
                self.written()
                    .any(|other| other.id.policy == rule.id.policy && other.action == Action::Deny)
            };
            if rule.action == Action::Allow && unconditional && denies() {
                let later = self
                    .written()
                    .skip_while(|other| other.id != rule.id)
                    .any(|other| other.id.policy != rule.id.policy);
                if later {
                    found.push(
                        self.warning(
                            Code::AllowsAll,
                            rule,
                            format!("{} allows everything, in a policy that denies", name(rule)),
                        )
                        .label("decides for good: later policies and stages are not asked")
                        .help(
                            "remove it where the rest was to go on to the next policy, or write \
                             `Pass`",
                        ),
                    );
                }
            }
        }
    }

    /// What hosts can't do without, denied by a rule.
    fn essentials(&self, found: &mut Vec<Diagnostic>) {
        type Kind = (Family, u8, u16, &'static str);
        const KINDS: &[Kind] = &[
            (Family::V6, ICMPV6, 135 << 8, "neighbour discovery"),
            (Family::V6, ICMPV6, 136 << 8, "neighbour discovery"),
            (Family::V6, ICMPV6, 134 << 8, "router advertisements"),
            (Family::V6, ICMPV6, 2 << 8, "path-MTU discovery over IPv6"),
            (Family::V4, ICMP, 3 << 8 | 4, "path-MTU discovery"),
        ];
        const ANSWERS: &[Kind] = &[
            (Family::V4, UDP, 68, "the answers of DHCP servers"),
            (Family::V6, UDP, 546, "the answers of DHCPv6 servers"),
        ];
        const QUESTIONS: &[Kind] = &[
            (Family::V4, UDP, 67, "the questions to DHCP servers"),
            (Family::V6, UDP, 547, "the questions to DHCPv6 servers"),
        ];
        let dhcp = match self.ruleset.direction {
            Direction::Ingress => ANSWERS,
            Direction::Egress => QUESTIONS,
        };
        let mut said: Vec<(u32, &str)> = Vec::new();
        for &(family, protocol, selector, what) in KINDS.iter().chain(dhcp) {
            let outcomes = self.analysis.outcomes(family, protocol, selector);
            // From some networks it may be denied; here, nothing of it is left.
            let cut = outcomes
                .iter()
                .all(|outcome| outcome.verdict == Verdict::Drop && outcome.rule.is_some());
            for index in outcomes.iter().filter_map(|outcome| outcome.rule) {
                if !cut || said.contains(&(index, what)) {
                    continue;
                }
                said.push((index, what));
                let rule = self.rule(index);
                found.push(
                    self.warning(
                        Code::CutsEssential,
                        rule,
                        format!("{} denies {what}", name(rule)),
                    )
                    .label("hosts lose their network without it")
                    .help(
                        "essentials pass under default deny, and a rule that denies them comes \
                         first: allow them before it, or let it ask for less",
                    ),
                );
            }
        }
        let options = &self.ruleset.options;
        if options.essentials != Essentials::ALL && self.ruleset.denies_by_default() {
            let all = Essential::ALL.iter();
            let dropped = all.filter(|kind| !options.essentials.has(**kind));
            let dropped: Vec<&str> = dropped.map(|kind| kind.name()).collect();
            found.push(
                Diagnostic::warning(
                    Code::CutsEssential,
                    format!(
                        "on the endpoint {}, default deny drops essentials: {}",
                        quote(&self.endpoint.name),
                        dropped.join(", ")
                    ),
                )
                .help("put them among --essentials, or allow what the host needs of them"),
            );
        }
    }

    /// Services without which nobody gets at the host any more.
    fn cut_services(&self, found: &mut Vec<Diagnostic>) {
        for (port, code, what, always) in [
            (22, Code::CutsSsh, "SSH (tcp 22)", true),
            (
                6443,
                Code::CutsApiServer,
                "the API server (tcp 6443)",
                false,
            ),
        ] {
            let outcomes: Vec<_> = [Family::V4, Family::V6]
                .into_iter()
                .flat_map(|family| self.analysis.outcomes(family, TCP, port))
                .collect();
            let cut = outcomes
                .iter()
                .all(|outcome| outcome.verdict == Verdict::Drop);
            let by = outcomes.iter().find_map(|outcome| outcome.rule);
            // Not every host is an API server: only a rule that denies it counts.
            if !cut || (by.is_none() && !always) {
                continue;
            }
            let message = format!(
                "on the endpoint {}, nobody can reach {what}",
                quote(&self.endpoint.name)
            );
            let warning = match by.map(|index| self.rule(index)) {
                Some(rule) => self
                    .warning(code, rule, message)
                    .label(format!("{} denies it to everybody", name(rule))),
                None => Diagnostic::warning(code, message),
            };
            found.push(warning.help(
                "keep it among the failsafe ports (--failsafe-inbound), or allow it from the \
                 networks of the administrators",
            ));
        }
    }
}

/// `rule 2 of the policy p`.
fn name(rule: &Rule) -> String {
    match (rule.id.stage, rule.id.index) {
        (Stage::Failsafe, _) => "a failsafe port".to_owned(),
        (_, Some(index)) => format!("rule {index} of {}", quote(&rule.id.policy)),
        (_, None) => format!("the end of the tier {}", quote(&rule.id.policy)),
    }
}
