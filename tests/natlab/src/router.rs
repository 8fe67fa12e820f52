//! What stands between a site and the internet, in nftables.
//!
//! Every kind forwards what the inside began and its answers, and silently drops the rest, also what is addressed to
//! itself; one answers SYNs with a RST. The last point matters: a router that took unsolicited datagrams would remember
//! them, and the mapping of the inside's own packet, coming a moment later, would have to move to another port.

/// The kinds of router, in the words of RFC 4787.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Router {
    /// Linux `masquerade`: keeps the inside's port where it is free, so that it looks endpoint-independent; filters by
    /// address and port.
    Masquerade,
    /// Linux `masquerade fully-random`: a random port for every destination, which is mapping and filtering by address
    /// and port.
    MasqueradeRandom,
    /// As `Masquerade`, but a SYN that nobody asked for is answered with a RST.
    MasqueradeReset,
    /// No translation; a stateful firewall that filters by address and port.
    Firewall,
}

impl Router {
    /// Parses the name that the command line uses.
    pub fn parse(name: &str) -> Option<Self> {
        match name {
            "masquerade" => Some(Self::Masquerade),
            "fully-random" => Some(Self::MasqueradeRandom),
            "masquerade-reset" => Some(Self::MasqueradeReset),
            "firewall" => Some(Self::Firewall),
            _ => None,
        }
    }

    /// Whether the inside has private addresses.
    pub fn translates(self) -> bool {
        match self {
            Self::Masquerade | Self::MasqueradeRandom | Self::MasqueradeReset => true,
            Self::Firewall => false,
        }
    }

    /// What it does, in a few words.
    pub fn describe(self) -> &'static str {
        match self {
            Self::Masquerade => "NAT: keeps ports where it can, drops what nobody asked for",
            Self::MasqueradeRandom => "NAT: a new random port for every destination, drops what nobody asked for",
            Self::MasqueradeReset => "NAT: keeps ports where it can, drops or resets what nobody asked for",
            Self::Firewall => "firewall without NAT: drops what nobody asked for",
        }
    }

    /// The rules; the interfaces are called `lan` and `wan`.
    pub(crate) fn rules(self) -> String {
        let translate = match self {
            Self::Masquerade | Self::MasqueradeReset => "masquerade",
            Self::MasqueradeRandom => "masquerade fully-random",
            Self::Firewall => "accept",
        };
        let refuse = match self {
            Self::MasqueradeReset => "meta l4proto tcp reject with tcp reset",
            Self::Masquerade | Self::MasqueradeRandom | Self::Firewall => "",
        };
        format!(
            "table inet filter {{
                chain input {{
                    type filter hook input priority filter; policy drop;
                    ct state established,related accept
                    iifname {{ \"lan\", \"lo\" }} accept
                    icmpv6 type {{ nd-neighbor-solicit, nd-neighbor-advert, nd-router-solicit, nd-router-advert }} accept
                    {refuse}
                }}
                chain forward {{
                    type filter hook forward priority filter; policy drop;
                    ct state established,related accept
                    ct status dnat accept
                    iifname \"lan\" accept
                }}
            }}
            table ip nat {{
                chain prerouting {{ type nat hook prerouting priority dstnat; }}
                chain postrouting {{
                    type nat hook postrouting priority srcnat;
                    oifname \"wan\" {translate}
                }}
            }}\n"
        )
    }
}
