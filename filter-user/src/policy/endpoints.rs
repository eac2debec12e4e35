//! Which endpoints there are: those of the documents, and those that the
//! command line stands in for.

use std::fmt;
use std::net::IpAddr;

use super::diagnostic::{Place, quote};
use super::model::{
    DEFAULT_ALLOW, HostEndpoint, Interface, Kind, Model, NamedPort, Policy, Profile,
};
use super::selector::{Labels, NAMESPACE};

/// One interface to filter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Its name: that of its document, or the interface's. Of an endpoint for
    /// all interfaces there is one for each, named `name/interface`.
    pub name: String,
    /// The interface.
    pub interface: String,
    /// What selectors see of it; the labels of its profiles among them.
    pub labels: Labels,
    /// Its profiles, first to last.
    pub profiles: Vec<String>,
    /// Its addresses, where its document says them.
    pub expected_ips: Vec<IpAddr>,
    /// The ports it has names for.
    pub ports: Vec<NamedPort>,
    /// Who says that there is such an endpoint.
    pub origin: Origin,
}

/// Where an endpoint comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A document, at this place.
    Document(Place),
    /// The command line, or an `IngressNodeFirewall` that names the interface.
    CommandLine,
}

/// What is known of the host that endpoints are looked for on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Host {
    /// Its name; of the endpoints in the documents only those of this node
    /// are meant, if any are.
    pub node: Option<String>,
    /// Whether the name was given, and not only found out.
    pub node_is_certain: bool,
    /// Its interfaces with their addresses; none where it isn't looked at.
    pub interfaces: Vec<(String, Vec<IpAddr>)>,
}

impl Endpoint {
    /// The endpoint that an interface is without a document: like Calico's
    /// automatic ones, it lets pass what no policy decides.
    #[must_use]
    pub fn from_command_line(interface: impl Into<String>, labels: Labels) -> Self {
        let interface = interface.into();
        Self {
            name: interface.clone(),
            interface,
            labels,
            profiles: vec![DEFAULT_ALLOW.to_owned()],
            expected_ips: Vec::new(),
            ports: Vec::new(),
            origin: Origin::CommandLine,
        }
    }

    fn from_document(model: &Model, document: &HostEndpoint, interface: &str) -> Self {
        let name = match document.interface() {
            Some(Interface::All) => format!("{}/{interface}", document.name()),
            _ => document.name().to_owned(),
        };
        Self {
            name,
            interface: interface.to_owned(),
            labels: all_labels(model, document),
            profiles: document.profiles().to_vec(),
            expected_ips: document.expected_ips().to_vec(),
            ports: document.ports().to_vec(),
            origin: Origin::Document(document.place().clone()),
        }
    }

    /// Whether a profile is one of its own.
    #[must_use]
    pub fn has_profile(&self, profile: &Profile) -> bool {
        self.profiles.iter().any(|name| **name == *profile.name)
    }

    /// Whether a policy applies to it.
    #[must_use]
    pub fn is_selected_by(&self, policy: &Policy) -> bool {
        let selects = policy.selects();
        let here = selects.interfaces.is_empty() || selects.interfaces.contains(&self.interface);
        // A host endpoint is in no namespace. Who names an interface and the
        // files of a namespace, instead, means that they belong together.
        let in_namespace = match (&selects.namespace, self.labels.get(NAMESPACE)) {
            (None, _) => true,
            (Some(wanted), Some(found)) => wanted == found,
            (Some(_), None) => self.origin == Origin::CommandLine,
        };
        here && in_namespace && selects.labels.matches(&self.labels)
    }
}

/// The labels of an endpoint, those of its profiles among them. Its own come
/// first, then its profiles' in their order.
pub(super) fn all_labels(model: &Model, document: &HostEndpoint) -> Labels {
    let mut labels = document.labels().clone();
    let profiles = document.profiles().iter();
    for profile in profiles.filter_map(|name| model.profile(name)) {
        for (name, value) in &profile.labels {
            labels.entry(name.clone()).or_insert_with(|| value.clone());
        }
    }
    labels
}

/// Why it isn't clear which endpoints are meant.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EndpointError {
    /// Neither a document nor the command line has one.
    #[error(
        "there is no host endpoint to apply the policies to; add a HostEndpoint document, or name \
         an interface with --interface (and the labels that the policies select with --label)"
    )]
    None,
    /// Labels beside documents that have their own.
    #[error(
        "--label does not go together with a host endpoint in a file, which has its own labels; \
         add the labels to the document ({place}), or leave that file out"
    )]
    LabelsWithDocument {
        /// The first endpoint.
        place: String,
    },
    /// Labels without an endpoint that they would belong to.
    #[error("--label needs an endpoint; name its interface with --interface")]
    LabelsWithoutInterface,
    /// An interface that the documents don't have.
    #[error(
        "the files hold no host endpoint for the interface {interface}; they hold {known}; name \
         one of those, or add a HostEndpoint document for {interface}"
    )]
    NotInDocuments {
        /// The interface, in quotes.
        interface: String,
        /// The endpoints there are.
        known: String,
    },
    /// Endpoints of several hosts with the same interface.
    #[error(
        "the files hold several host endpoints for the interface {interface}: {places}; say \
         which host is meant with --node, or leave those of other hosts out"
    )]
    Ambiguous {
        /// The interface, in quotes.
        interface: String,
        /// Where they are.
        places: String,
    },
    /// Endpoints of several hosts, and it isn't said which this is.
    #[error(
        "the files hold host endpoints of the nodes {nodes}; say which of them is meant with --node"
    )]
    SeveralNodes {
        /// The nodes, in quotes.
        nodes: String,
    },
    /// No endpoint of the host that was named.
    #[error("the files hold no host endpoint of the node {node}; they hold those of {nodes}")]
    NotThisNode {
        /// The node asked for, in quotes.
        node: String,
        /// The nodes there are.
        nodes: String,
    },
    /// An endpoint that is found by its addresses, and isn't.
    #[error(
        "the host endpoint {name} ({place}) names no interface, and none here has one of its addresses \
         ({addresses}); name its interface with --interface"
    )]
    NoSuchAddress {
        /// The endpoint, in quotes.
        name: String,
        /// Where it is.
        place: String,
        /// Its addresses.
        addresses: String,
    },
    /// An endpoint for all interfaces, and none named.
    #[error(
        "the host endpoint {name} ({place}) stands for all interfaces; name the ones to filter \
         with --interface"
    )]
    NeedsInterfaces {
        /// The endpoint, in quotes.
        name: String,
        /// Where it is.
        place: String,
    },
    /// A name that no interface can have.
    #[error("{0} can't be the name of an interface; `ip link` shows those there are")]
    InvalidInterface(String),
    /// Several endpoints where one is evaluated.
    #[error("there are several host endpoints: {0}; name one with --interface")]
    Several(String),
}

/// The endpoints that documents and command line describe together.
///
/// Where the documents hold none, each interface named on the command line is
/// one; where it names none, each that an `IngressNodeFirewall` names. Where
/// the documents hold some, the command line picks among those of this host;
/// naming none picks all. One for all interfaces stands for those named
/// that have none of their own.
pub fn endpoints_for(
    model: &Model,
    interfaces: &[String],
    labels: &Labels,
    host: &Host,
) -> Result<Vec<Endpoint>, EndpointError> {
    for name in interfaces {
        let short = (1..=15).contains(&name.len());
        let bad = |c: char| c == '/' || c.is_whitespace() || c.is_control();
        if !short || name.contains(bad) || matches!(&**name, "." | "..") {
            return Err(EndpointError::InvalidInterface(quote(name)));
        }
    }
    let documents = of_this_host(model.endpoints(), interfaces, host)?;
    if let (Some(first), false) = (documents.first(), labels.is_empty()) {
        return Err(EndpointError::LabelsWithDocument {
            place: first.place().to_string(),
        });
    }
    let mut endpoints: Vec<Endpoint> = Vec::new();
    if interfaces.is_empty() {
        for document in &documents {
            let interface = interface_of(document, host)?;
            pick(&documents, interface, host)?;
            endpoints.push(Endpoint::from_document(model, document, interface));
        }
    }
    let named_by_policies = || {
        let firewalls = model.policies().iter();
        firewalls
            .filter(|policy| policy.kind() == Kind::IngressNodeFirewall)
            .flat_map(|policy| &policy.selects().interfaces)
    };
    let implied: Vec<String> = if documents.is_empty() && interfaces.is_empty() {
        named_by_policies().cloned().collect()
    } else {
        Vec::new()
    };
    for name in interfaces.iter().chain(&implied) {
        if endpoints.iter().any(|endpoint| endpoint.interface == *name) {
            continue;
        }
        endpoints.push(if documents.is_empty() {
            Endpoint::from_command_line(name, labels.clone())
        } else {
            Endpoint::from_document(model, pick(&documents, name, host)?, name)
        });
    }
    match (endpoints.is_empty(), labels.is_empty()) {
        (false, _) => Ok(endpoints),
        (true, true) => Err(EndpointError::None),
        (true, false) => Err(EndpointError::LabelsWithoutInterface),
    }
}

/// The endpoints of this host; all, where they are of one host, or none says
/// of which.
fn of_this_host<'m>(
    documents: &'m [HostEndpoint],
    interfaces: &[String],
    host: &Host,
) -> Result<Vec<&'m HostEndpoint>, EndpointError> {
    let mut nodes: Vec<&str> = documents.iter().filter_map(HostEndpoint::node).collect();
    nodes.sort_unstable();
    nodes.dedup();
    let listed = || enumerate(nodes.iter().map(|node| quote(node)));
    let this = match &host.node {
        Some(this) if nodes.contains(&this.as_str()) => this,
        Some(this) if host.node_is_certain && !nodes.is_empty() => {
            return Err(EndpointError::NotThisNode {
                node: quote(this),
                nodes: listed(),
            });
        }
        // An interface that is named may still tell.
        _ if nodes.len() > 1 && interfaces.is_empty() => {
            return Err(EndpointError::SeveralNodes { nodes: listed() });
        }
        _ => return Ok(documents.iter().collect()),
    };
    Ok(documents
        .iter()
        .filter(|document| document.node().is_none_or(|node| node == this))
        .collect())
}

/// The interface that an endpoint stands for.
fn interface_of<'a>(document: &'a HostEndpoint, host: &'a Host) -> Result<&'a str, EndpointError> {
    match document.interface() {
        Some(Interface::Named(name)) => Ok(name),
        Some(Interface::All) => Err(EndpointError::NeedsInterfaces {
            name: quote(document.name()),
            place: document.place().to_string(),
        }),
        None => host
            .interfaces
            .iter()
            .find(|(_, addresses)| has_one_of(addresses, document.expected_ips()))
            .map(|(name, _)| name.as_str())
            .ok_or_else(|| EndpointError::NoSuchAddress {
                name: quote(document.name()),
                place: document.place().to_string(),
                addresses: enumerate(document.expected_ips().iter()),
            }),
    }
}

fn has_one_of(addresses: &[IpAddr], wanted: &[IpAddr]) -> bool {
    wanted.iter().any(|address| addresses.contains(address))
}

/// The document for an interface: its own, or one for all.
fn pick<'m>(
    documents: &[&'m HostEndpoint],
    interface: &str,
    host: &Host,
) -> Result<&'m HostEndpoint, EndpointError> {
    let those = |wanted: &dyn Fn(&HostEndpoint) -> bool| -> Vec<&'m HostEndpoint> {
        let all = documents.iter().copied();
        all.filter(|document| wanted(document)).collect()
    };
    let named = Interface::Named(interface.to_owned());
    let addresses = host.interfaces.iter().find(|(name, _)| name == interface);
    let mut found = those(&|document| document.interface() == Some(&named));
    if found.is_empty() {
        // By its addresses; where the host isn't looked at, it may be this one.
        found = those(&|document| {
            document.interface().is_none()
                && addresses.map_or(host.interfaces.is_empty(), |(_, addresses)| {
                    has_one_of(addresses, document.expected_ips())
                })
        });
    }
    if found.is_empty() {
        found = those(&|document| document.interface() == Some(&Interface::All));
    }
    match found.as_slice() {
        [] => Err(EndpointError::NotInDocuments {
            interface: quote(interface),
            known: enumerate(documents.iter().map(|document| match document.interface() {
                Some(Interface::Named(name)) => quote(name),
                Some(Interface::All) => quote("*"),
                None => enumerate(document.expected_ips().iter()),
            })),
        }),
        [one] => Ok(one),
        several => Err(EndpointError::Ambiguous {
            interface: quote(interface),
            places: enumerate(several.iter().map(|document| document.place().to_string())),
        }),
    }
}

/// The one endpoint that `explain`, `replay` and `bench` evaluate.
pub fn only_endpoint(endpoints: Vec<Endpoint>) -> Result<Endpoint, EndpointError> {
    match <[Endpoint; 1]>::try_from(endpoints) {
        Ok([one]) => Ok(one),
        Err(endpoints) if endpoints.is_empty() => Err(EndpointError::None),
        Err(endpoints) => Err(EndpointError::Several(enumerate(
            endpoints.iter().map(|endpoint| quote(&endpoint.interface)),
        ))),
    }
}

pub(super) fn enumerate(items: impl Iterator<Item = impl fmt::Display>) -> String {
    let items: Vec<_> = items.map(|item| item.to_string()).collect();
    items.join(", ")
}

#[cfg(test)]
mod tests {
    use super::super::{Source, check};
    use super::*;

    fn model(text: &str) -> Model {
        let checked = check(&[Source::new("t", text)]);
        checked
            .model
            .unwrap_or_else(|| panic!("{:?}", checked.diagnostics))
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

    /// Which endpoints there are, as `name interface`, or the error.
    fn resolve(documents: &str, interfaces: &[&str], with: &Labels) -> Result<Vec<String>, String> {
        let model = if documents.is_empty() {
            Model::default()
        } else {
            model(documents)
        };
        let interfaces: Vec<_> = interfaces.iter().map(|&name| name.to_owned()).collect();
        endpoints_for(&model, &interfaces, with, &Host::default())
            .map(|endpoints| {
                let shown = endpoints
                    .iter()
                    .map(|e| format!("{} {}", e.name, e.interface));
                shown.collect()
            })
            .map_err(|error| error.to_string())
    }

    #[test]
    fn the_command_line_stands_for_missing_documents() {
        let role = labels(&[("role", "x")]);
        assert_eq!(
            resolve("", &["eth0", "eth1", "eth0"], &role),
            Ok(vec!["eth0 eth0".to_owned(), "eth1 eth1".to_owned()])
        );
        assert!(
            resolve("", &[], &Labels::new())
                .unwrap_err()
                .contains("--interface")
        );
        assert!(resolve("", &[], &role).unwrap_err().contains("--interface"));
        for bad in ["", "..", "a/b", "a b", "a234567890123456"] {
            assert!(
                resolve("", &[bad], &role)
                    .unwrap_err()
                    .contains("name of an interface")
            );
        }
    }

    #[test]
    fn the_command_line_picks_among_documents() {
        let two = endpoint("a", "eth0", "") + &endpoint("b", "eth1", "");
        let no_labels = Labels::new();
        let all = vec!["a eth0".to_owned(), "b eth1".to_owned()];
        assert_eq!(resolve(&two, &[], &no_labels), Ok(all));
        assert_eq!(
            resolve(&two, &["eth1"], &no_labels),
            Ok(vec!["b eth1".to_owned()])
        );
        let error = resolve(&two, &["eth2"], &no_labels).unwrap_err();
        assert!(error.contains("`eth0`, `eth1`"), "{error}");
        let error = resolve(&two, &["eth0"], &labels(&[("x", "y")])).unwrap_err();
        assert!(
            error.contains("--label") && error.contains("t:1:"),
            "{error}"
        );

        let for_all = endpoint("all", "'*'", "");
        assert!(
            resolve(&for_all, &[], &no_labels)
                .unwrap_err()
                .contains("--interface")
        );
        let both = for_all + &endpoint("b", "eth1", "");
        assert_eq!(
            resolve(&both, &["eth0", "eth1"], &no_labels),
            Ok(vec!["all/eth0 eth0".to_owned(), "b eth1".to_owned()])
        );

        let hosts =
            endpoint("a", "eth0", "") + &endpoint("b", "eth0", "").replace("node: n", "node: m");
        let error = resolve(&hosts, &["eth0"], &no_labels).unwrap_err();
        assert!(error.contains("several"), "{error}");
        let error = resolve(&hosts, &[], &no_labels).unwrap_err();
        assert!(error.contains("`m`, `n`; say which"), "{error}");
    }

    #[test]
    fn one_endpoint_is_evaluated() {
        let on = |name: &str| Endpoint::from_command_line(name, Labels::new());
        assert_eq!(only_endpoint(vec![on("eth0")]), Ok(on("eth0")));
        assert_eq!(only_endpoint(vec![]), Err(EndpointError::None));
        let error = only_endpoint(vec![on("eth0"), on("eth1")])
            .unwrap_err()
            .to_string();
        assert!(error.contains("`eth0`, `eth1`"), "{error}");
    }
}
