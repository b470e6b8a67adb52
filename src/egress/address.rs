//! Which addresses are public.

use super::Egress;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};

const fn v4(a: u8, b: u8, c: u8, d: u8, prefix: u8) -> Ipv4Net {
    Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, d), prefix)
}

const fn v6(first: u16, second: u16, third: u16, prefix: u8) -> Ipv6Net {
    Ipv6Net::new_assert(Ipv6Addr::new(first, second, third, 0, 0, 0, 0, 0), prefix)
}

/// IPv4 addresses that are not public: the special-purpose registry of RFC 6890, multicast, and what is reserved.
const SPECIAL_V4: [Ipv4Net; 16] = [
    v4(0, 0, 0, 0, 8),
    v4(10, 0, 0, 0, 8),
    v4(100, 64, 0, 0, 10),
    v4(127, 0, 0, 0, 8),
    v4(169, 254, 0, 0, 16),
    v4(172, 16, 0, 0, 12),
    v4(192, 0, 0, 0, 24),
    v4(192, 0, 2, 0, 24),
    v4(192, 31, 196, 0, 24),
    v4(192, 52, 193, 0, 24),
    v4(192, 88, 99, 0, 24),
    v4(192, 168, 0, 0, 16),
    v4(198, 18, 0, 0, 15),
    v4(198, 51, 100, 0, 24),
    v4(203, 0, 113, 0, 24),
    // Multicast, class E and the broadcast address.
    v4(224, 0, 0, 0, 3),
];
/// Everything that is given out as global unicast, of which [`SPECIAL_V6`] is an exception. What is outside of it, unique local,
/// link-local, site-local, multicast and mapped addresses among them, is not public.
const UNICAST_V6: Ipv6Net = v6(0x2000, 0, 0, 3);
const SPECIAL_V6: [Ipv6Net; 4] = [
    // Protocol assignments: Teredo, benchmarking, ORCHID and more.
    v6(0x2001, 0, 0, 23),
    v6(0x2001, 0xdb8, 0, 32),
    // 6to4: whatever IPv4 address is in it, its relays are gone (RFC 7526).
    v6(0x2002, 0, 0, 16),
    v6(0x3fff, 0, 0, 20),
];
/// The well-known prefix of NAT64; what counts is the IPv4 address in its last 32 bits. The local-use prefix 64:ff9b:1::/48 is not
/// public whatever is in it.
const NAT64: Ipv6Net = v6(0x64, 0xff9b, 0, 96);

/// The address that a packet for this one comes to in the end.
fn behind(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(six) if NAT64.contains(&six) => {
            let [.., a, b, c, d] = six.octets();
            IpAddr::V4(Ipv4Addr::new(a, b, c, d))
        }
        canonical => canonical,
    }
}

/// Whether packets for an address go to the public internet.
pub fn is_public(address: IpAddr) -> bool {
    match behind(address) {
        IpAddr::V4(four) => !SPECIAL_V4.iter().any(|net| net.contains(&four)),
        IpAddr::V6(six) => UNICAST_V6.contains(&six) && !SPECIAL_V6.iter().any(|net| net.contains(&six)),
    }
}

/// Whether an address is one of this machine's own: a packet to such comes from the very same address. Nothing is sent.
fn is_own(address: IpAddr) -> bool {
    let any: IpAddr = if address.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let source = UdpSocket::bind((any, 0)).and_then(|socket| {
        socket.connect((address, 9))?;
        socket.local_addr()
    });
    source.is_ok_and(|source| source.ip() == address)
}

impl Egress {
    /// Whether an address may be dialled, and by which rule: public ones may, but for this machine's own, and those that the admin
    /// lists.
    pub(super) fn permits(&self, address: IpAddr) -> Option<String> {
        let forms = [address, address.to_canonical(), behind(address)];
        if let Some(net) = self.allowed.iter().find(|net| forms.iter().any(|form| net.contains(form))) {
            return Some(listed(net));
        }
        (is_public(address) && !is_own(behind(address))).then(|| "public".to_owned())
    }
}

fn listed(net: &IpNet) -> String {
    format!("ADE_EGRESS_ALLOW_CIDRS {net}")
}

#[cfg(test)]
mod tests {
    use super::super::tests::egress;
    use super::*;

    fn public(text: &str) -> bool {
        is_public(text.parse().unwrap())
    }

    #[test]
    fn a52_only_public_addresses_are_public() {
        for address in [
            "0.0.0.0", "0.1.2.3", "10.0.0.1", "10.255.255.255", "100.64.0.1", "100.127.255.255", "127.0.0.1",
            "127.9.9.9", "169.254.169.254", "169.254.170.2", "172.16.0.1", "172.17.0.1", "172.31.255.255", "192.0.0.1",
            "192.0.0.170", "192.0.2.1", "192.88.99.1", "192.168.0.1", "198.18.0.1", "198.19.255.255", "198.51.100.7",
            "203.0.113.9", "224.0.0.1", "239.255.255.255", "240.0.0.1", "255.255.255.255", "::", "::1",
            "::ffff:10.0.0.1", "::ffff:127.0.0.1", "::10.0.0.1", "::8.8.8.8", "64:ff9b::10.0.0.1",
            "64:ff9b::a9fe:a9fe", "64:ff9b::127.0.0.1", "64:ff9b:1::8.8.8.8", "100::1", "2001::1", "2001:0:7f00:1::1",
            "2001:2::1", "2001:10::1", "2001:20::1", "2001:db8::1", "2002:7f00:1::1", "2002:808:808::1", "3fff::1",
            "4000::1", "5f00::1", "fc00::1", "fd00:ec2::254", "fe80::1", "fec0::1", "ff02::1",
        ] {
            assert!(!public(address), "{address}");
        }
        for address in [
            "1.1.1.1", "8.8.8.8", "9.255.255.255", "11.0.0.1", "100.63.255.255", "100.128.0.1", "126.1.1.1",
            "128.0.0.1", "169.253.1.1", "172.15.255.255", "172.32.0.1", "192.1.0.1", "192.167.1.1", "198.17.1.1",
            "198.20.0.1", "223.255.255.254", "::ffff:8.8.8.8", "64:ff9b::8.8.8.8", "2606:4700:4700::1111",
            "2a00:1450::1", "2001:4860:4860::8888", "2001:200::1",
        ] {
            assert!(public(address), "{address}");
        }
    }

    #[test]
    fn a52_what_an_admin_lists_is_permitted_in_every_form_and_nothing_beside_it() {
        let egress = egress(&["10.1.0.0/16", "fd00:1::/32"]);
        for address in ["10.1.2.3", "::ffff:10.1.2.3", "64:ff9b::10.1.2.3"] {
            let rule = egress.permits(address.parse().unwrap());
            assert_eq!(rule.as_deref(), Some("ADE_EGRESS_ALLOW_CIDRS 10.1.0.0/16"), "{address}");
        }
        assert!(egress.permits("fd00:1::5".parse().unwrap()).is_some());
        for address in ["10.2.0.1", "127.0.0.1", "fd00:2::5", "::1"] {
            assert!(egress.permits(address.parse().unwrap()).is_none(), "{address}");
        }
        assert_eq!(egress.permits("8.8.8.8".parse().unwrap()).as_deref(), Some("public"));
    }

    #[test]
    fn a57_an_address_of_this_machine_is_its_own() {
        assert!(is_own("127.0.0.1".parse().unwrap()));
        assert!(!is_own("8.8.8.8".parse().unwrap()));
    }
}
