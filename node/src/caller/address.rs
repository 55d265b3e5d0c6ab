//! Decides which addresses are never called: those of the link, those at which clouds hand out a machine's credentials, and
//! those that name no host. However they are written, and inside of which other address. Which origins may be called is not
//! decided here.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Where clouds serve metadata or credentials outside of the link-local ranges, IPv4. (Inside of them are 169.254.169.254 of
/// nearly all, 169.254.170.2 and .23 of Amazon's containers, 169.254.0.23 of Tencent and 169.254.42.42 of Scaleway.)
const METADATA_V4: [Ipv4Addr; 3] = [
    // Alibaba.
    Ipv4Addr::new(100, 100, 100, 200),
    // Azure, the agent's channel.
    Ipv4Addr::new(168, 63, 129, 16),
    // Oracle, the older cloud.
    Ipv4Addr::new(192, 0, 0, 192),
];

/// The same, IPv6. (Inside of the link-local range is fe80::a9fe:a9fe of OpenStack.)
const METADATA_V6: [Ipv6Addr; 6] = [
    // Amazon: machines, and containers.
    Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254),
    Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x23),
    // Google.
    Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254),
    // Oracle.
    Ipv6Addr::new(0xfd00, 0xc1, 0, 0, 0, 0, 0xa9fe, 0xa9fe),
    // Scaleway.
    Ipv6Addr::new(0xfd00, 0x42, 0, 0, 0, 0, 0, 0x42),
    // Akamai.
    Ipv6Addr::new(0xfd00, 0xa9fe, 0xa9fe, 0, 0, 0, 0, 1),
];

/// Why an address is never called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Forbidden {
    /// An address of the link, or one of a cloud's metadata.
    Metadata,
    /// An address of no host: what a connect to it reaches is the system's affair, and is this machine on some.
    NoHost,
}

impl Forbidden {
    /// The reason, for people, with what to do.
    pub(crate) fn reason(self) -> &'static str {
        match self {
            Self::Metadata => {
                "link-local addresses and those of a cloud's metadata are never called; give the app another address"
            }
            Self::NoHost => {
                "unspecified, multicast and broadcast addresses name no host; for this machine write 127.0.0.1 or [::1]"
            }
        }
    }
}

/// Why `address` must never be called; none when it may.
pub(crate) fn forbidden(address: IpAddr) -> Option<Forbidden> {
    match address.to_canonical() {
        IpAddr::V4(v4) if names_no_host(v4) => Some(Forbidden::NoHost),
        IpAddr::V4(v4) => is_metadata_v4(v4).then_some(Forbidden::Metadata),
        IpAddr::V6(v6) if v6.is_unspecified() || v6.is_multicast() => Some(Forbidden::NoHost),
        IpAddr::V6(v6) => {
            let is_metadata = v6.is_unicast_link_local()
                || METADATA_V6.contains(&v6)
                || embedded(v6).into_iter().any(is_metadata_v4);
            is_metadata.then_some(Forbidden::Metadata)
        }
    }
}

fn is_metadata_v4(address: Ipv4Addr) -> bool {
    address.is_link_local() || METADATA_V4.contains(&address)
}

/// 0.0.0.0/8 is "this network" (RFC 1122, section 3.2.1.3): a connect to 0.0.0.0 reaches the machine itself on Linux.
fn names_no_host(address: Ipv4Addr) -> bool {
    address.octets()[0] == 0 || address.is_multicast() || address.is_broadcast()
}

/// The IPv4 addresses that gateways and tunnels may take an IPv6 address for.
fn embedded(address: Ipv6Addr) -> Vec<Ipv4Addr> {
    let groups = address.segments();
    let v4 = |high: u16, low: u16| Ipv4Addr::from((u32::from(high) << 16) | u32::from(low));
    let last = v4(groups[6], groups[7]);
    match groups {
        // IPv4-compatible (RFC 4291, section 2.5.5.1), and translated (RFC 2765, section 2.1).
        [0, 0, 0, 0, 0, 0, ..] | [0, 0, 0, 0, 0xffff, 0, ..] => vec![last],
        // NAT64's well-known prefix (RFC 6052, section 2.1).
        [0x64, 0xff9b, 0, 0, 0, 0, ..] => vec![last],
        // NAT64's local prefix (RFC 8215), with each length of prefix that fits into it (RFC 6052, section 2.2): 48, 56, 64,
        // 96. Eight bits in the middle stay empty.
        [0x64, 0xff9b, 1, a, b, c, ..] => {
            let ([a0, a1], [_, b1], [c0, c1]) = (a.to_be_bytes(), b.to_be_bytes(), c.to_be_bytes());
            let [d0, _] = groups[6].to_be_bytes();
            let by_48 = Ipv4Addr::new(a0, a1, b1, c0);
            let by_56 = Ipv4Addr::new(a1, b1, c0, c1);
            let by_64 = Ipv4Addr::new(b1, c0, c1, d0);
            vec![by_48, by_56, by_64, last]
        }
        // 6to4 (RFC 3056, section 2).
        [0x2002, high, low, ..] => vec![v4(high, low)],
        // Teredo (RFC 4380, section 4): a server, and a client with its bits turned over.
        [0x2001, 0, high, low, ..] => vec![v4(high, low), v4(!groups[6], !groups[7])],
        // ISATAP (RFC 5214, section 6.1), under any prefix.
        [_, _, _, _, 0 | 0x200, 0x5efe, ..] => vec![last],
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> Option<Forbidden> {
        forbidden(text.parse().unwrap())
    }

    #[test]
    fn link_local_and_metadata_addresses_are_forbidden_in_whatever_they_are_wrapped() {
        let addresses = [
            // Amazon, Azure, Google, Oracle, DigitalOcean, IBM, Hetzner and others; containers; Tencent; Scaleway.
            "169.254.169.254",
            "169.254.170.2",
            "169.254.170.23",
            "169.254.0.23",
            "169.254.42.42",
            "169.254.0.1",
            "100.100.100.200",
            "168.63.129.16",
            "192.0.0.192",
            "fe80::1",
            "fe80::a9fe:a9fe",
            "febf:ffff::1",
            "fd00:ec2::254",
            "fd00:ec2::23",
            "fd20:ce::254",
            "fd00:c1::a9fe:a9fe",
            "fd00:42::42",
            "fd00:a9fe:a9fe::1",
            // Mapped, compatible, translated.
            "::ffff:169.254.169.254",
            "::ffff:100.100.100.200",
            "::169.254.169.254",
            "::ffff:0:169.254.169.254",
            // NAT64, by each prefix.
            "64:ff9b::169.254.169.254",
            "64:ff9b::168.63.129.16",
            "64:ff9b:1::169.254.169.254",
            "64:ff9b:1:ffff:0:0:169.254.169.254",
            "64:ff9b:1:a9fe:a9:fe00::",
            "64:ff9b:1:00a9:fe:a9fe::",
            "64:ff9b:1:77a9:fe:a9fe::",
            "64:ff9b:1:7777:a9:fea9:fe00:0",
            // 6to4, Teredo (server, client), ISATAP.
            "2002:a9fe:a9fe::",
            "2002:6464:64c8::1",
            "2001:0:a9fe:a9fe::1",
            "2001::5601:5601",
            "2001:db8::5efe:169.254.169.254",
            "2001:db8::200:5efe:169.254.169.254",
        ];
        for address in addresses {
            assert_eq!(of(address), Some(Forbidden::Metadata), "{address}");
        }
    }

    #[test]
    fn what_names_no_host_is_forbidden() {
        for address in [
            "0.0.0.0",
            "0.1.2.3",
            "::",
            "::ffff:0.0.0.0",
            "224.0.0.1",
            "255.255.255.255",
            "ff02::1",
        ] {
            assert_eq!(of(address), Some(Forbidden::NoHost), "{address}");
        }
    }

    #[test]
    fn machines_and_their_neighbours_may_be_called() {
        let addresses = [
            "127.0.0.1",
            "::1",
            "::ffff:127.0.0.1",
            "10.0.0.7",
            "192.168.1.1",
            "172.16.0.1",
            "100.64.0.1",
            "169.253.255.255",
            "169.255.0.0",
            "192.0.0.193",
            "93.184.216.34",
            "fd00::1",
            "fd00:ec2::1",
            "fec0::1",
            "2001:db8::1",
            "2001:4860:4860::8888",
            "2002:5db8:d822::1",
            "64:ff9b::10.0.0.7",
            "64:ff9b:1::10.0.0.7",
            "64:ff9b:1:a00:0:700::",
            "2001:db8::5efe:10.0.0.7",
            "2001:db8:0:0:1:5efe:169.254.169.254",
        ];
        for address in addresses {
            assert_eq!(of(address), None, "{address}");
        }
    }
}
