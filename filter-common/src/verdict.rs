//! What the filter decides about a packet, and why.

/// What happens to the packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// The packet goes on to the host's network stack.
    Pass,
    /// The packet is discarded before the stack sees it.
    Drop,
}

impl Verdict {
    /// The name used in every output: `pass` or `drop`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Drop => "drop",
        }
    }
}

macro_rules! reasons {
    ($($(#[$doc:meta])* $variant:ident = $value:literal, $name:literal;)*) => {
        /// Why a packet got its verdict. The number is the index of the
        /// reason's counter (see [`crate::abi`]), so it is part of the ABI.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u8)]
        pub enum Reason {
            $($(#[$doc])* $variant = $value,)*
        }

        impl Reason {
            /// Every reason, in the order of its number.
            pub const ALL: &[Self] = &[$(Self::$variant),*];

            /// The name used in every output and metric label.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// The reason with this number.
            #[must_use]
            pub const fn from_number(number: u8) -> Option<Self> {
                match number { $($value => Some(Self::$variant),)* _ => None }
            }
        }
    };
}

reasons! {
    /// A deny rule decided.
    PolicyDeny = 0, "policy_deny";
    /// No rule decided and the endpoint denies by default.
    DefaultDeny = 1, "default_deny";
    /// A header contradicts itself or the frame: IHL < 5, a wrong version, a
    /// total length beyond the frame.
    Malformed = 2, "malformed";
    /// A first fragment too short for its L4 header, or TCP at offset 1
    /// (RFC 1858, RFC 3128).
    TinyFragment = 3, "tiny_fragment";
    /// A later fragment that a rule with L4 conditions could match.
    Fragment = 4, "fragment";
    /// The L4 header can't be read and a rule with L4 conditions could match.
    UnreadableL4 = 5, "unreadable_l4";
    /// An IPv6 extension chain that is too long, forbidden (routing type 0,
    /// RFC 5095) or cut by fragmentation (RFC 7112).
    Ipv6Extension = 6, "ipv6_extension";
    /// More than two VLAN tags.
    VlanDepth = 7, "vlan_depth";
    /// IP inside LLC/SNAP, `PPPoE` or MPLS, where no rule would see it.
    Encapsulated = 8, "encapsulated";
    /// A table look-up that must succeed failed. Never expected; counted.
    Internal = 9, "internal";
    /// An allow rule decided.
    PolicyAllow = 10, "policy_allow";
    /// A failsafe port.
    Failsafe = 11, "failsafe";
    /// ARP, neighbour discovery, path-MTU ICMP, DHCP, IGMP or MLD, which
    /// default deny would have broken.
    Essential = 12, "essential";
    /// Return traffic of a known flow.
    Established = 13, "established";
    /// No rule decided and the endpoint allows by default.
    DefaultAllow = 14, "default_allow";
    /// Not IP: not subject to rules.
    NotIp = 15, "not_ip";
}

macro_rules! essentials {
    ($($(#[$doc:meta])* $variant:ident = $value:literal, $name:literal;)*) => {
        /// A kind of packets that default deny must not break. The number says where its
        /// counter is, so it is part of the ABI.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u8)]
        pub enum Essential {
            $($(#[$doc])* $variant = $value,)*
        }

        impl Essential {
            /// Every kind, in the order of its number.
            pub const ALL: &[Self] = &[$(Self::$variant),*];

            /// The name used in every output.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }
        }
    };
}

essentials! {
    /// ARP (RFC 826).
    Arp = 0, "arp";
    /// Neighbour and router discovery (RFC 4861), with hop limit 255 only.
    NeighbourDiscovery = 1, "nd";
    /// Multicast listener discovery (RFC 2710, RFC 3810).
    Mld = 2, "mld";
    /// IGMP (RFC 3376).
    Igmp = 3, "igmp";
    /// Path-MTU discovery of IPv4 (RFC 1191): ICMP type 3, code 4.
    PathMtu = 4, "pmtu";
    /// The errors of ICMPv6 (RFC 4890 4.3.1), "packet too big" among them.
    Icmpv6Errors = 5, "icmpv6-errors";
    /// DHCP (RFC 2131): to clients on the way in, to servers on the way out.
    Dhcp = 6, "dhcp";
    /// `DHCPv6` (RFC 8415), likewise.
    Dhcpv6 = 7, "dhcpv6";
}

impl Reason {
    /// The verdict that goes with it. [`Self::NotIp`] alone can go with the
    /// other one too, where a ruleset drops what is not IP.
    #[must_use]
    pub const fn usual_verdict(self) -> Verdict {
        match self {
            Self::PolicyDeny
            | Self::DefaultDeny
            | Self::Malformed
            | Self::TinyFragment
            | Self::Fragment
            | Self::UnreadableL4
            | Self::Ipv6Extension
            | Self::VlanDepth
            | Self::Encapsulated
            | Self::Internal => Verdict::Drop,
            Self::PolicyAllow
            | Self::Failsafe
            | Self::Essential
            | Self::Established
            | Self::DefaultAllow
            | Self::NotIp => Verdict::Pass,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_dense_and_round_trip() {
        for (index, reason) in Reason::ALL.iter().enumerate() {
            assert_eq!(*reason as usize, index);
            assert_eq!(Reason::from_number(*reason as u8), Some(*reason));
        }
        assert_eq!(Reason::from_number(16), None);
    }
}
