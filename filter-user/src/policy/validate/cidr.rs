//! Networks as the formats of clusters have them: always with a prefix, and
//! the bits behind it don't count.

use ipnet::IpNet;

use crate::policy::diagnostic::{Code, quote};
use crate::policy::values::{self, Refusal};

/// A network, and whether it was written with bits set behind its prefix.
pub(super) fn parse(text: &str) -> Result<(IpNet, bool), Refusal> {
    match values::net(text) {
        Ok(net) if text.contains('/') => Ok((net, false)),
        Ok(net) => Err(Refusal {
            code: Code::InvalidNet,
            message: format!("{} is an address and not a CIDR", quote(text)),
            label: "without a prefix".into(),
            help: format!("write `{net}` for the one address"),
        }),
        Err(refusal) => match text.parse::<IpNet>() {
            Ok(net) if refusal.code == Code::HostBits => Ok((net.trunc(), true)),
            _ => Err(refusal),
        },
    }
}
