//! Decides which addresses are never called: those of the link and those at which clouds hand out a
//! machine's credentials. Which origins may be called is not decided here.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Where clouds serve metadata outside the link-local ranges.
const METADATA: [IpAddr; 3] = [
    // Amazon, IPv6.
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254)),
    // Google, IPv6.
    IpAddr::V6(Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254)),
    // Alibaba.
    IpAddr::V4(Ipv4Addr::new(100, 100, 100, 200)),
];

/// Whether `address` must never be called.
pub(crate) fn is_forbidden(address: IpAddr) -> bool {
    let address = address.to_canonical();
    let link_local = match address {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    };
    link_local || METADATA.contains(&address)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn link_local_and_metadata_addresses_are_forbidden_however_written() {
        let forbidden = [
            "169.254.169.254",
            "169.254.0.1",
            "fe80::1",
            "::ffff:169.254.169.254",
            "fd00:ec2::254",
            "100.100.100.200",
        ];
        for address in forbidden {
            assert!(is_forbidden(address.parse().unwrap()), "{address}");
        }
        for address in ["127.0.0.1", "::1", "10.0.0.7", "192.168.1.1", "93.184.216.34", "fd00::1"] {
            assert!(!is_forbidden(address.parse().unwrap()), "{address}");
        }
    }
}
