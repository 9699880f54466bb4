//! Every range, and what a grant covers.

use super::*;
use proptest::prelude::*;

fn own() -> Own {
    Own {
        addresses: vec!["10.1.2.3".parse().unwrap(), "2a00:1::5".parse().unwrap()],
        synthetic: Some("fdec:1::".parse().unwrap()),
    }
}

#[test]
fn every_range_has_its_class() {
    let table = "
        8.8.8.8 global | 1.0.0.1 global | 172.15.255.255 global | 172.32.0.0 global
        100.63.255.255 global | 100.128.0.0 global | 198.17.255.255 global | 198.20.0.0 global
        223.255.255.255 global | 192.0.3.0 global | 126.255.255.255 global | 128.0.0.0 global
        10.0.0.0 private | 10.255.255.255 private | 172.16.0.0 private | 172.31.255.255 private
        192.168.0.0 private | 192.168.255.255 private
        100.64.0.0 shared | 100.127.255.255 shared | 100.100.100.200 metadata
        127.0.0.1 loopback | 127.0.0.2 loopback | 127.255.255.255 loopback
        0.0.0.0 unspecified | 0.1.2.3 unspecified
        169.254.0.1 link local | 169.254.169.254 metadata | 169.254.170.2 metadata
        169.254.169.253 metadata | 168.63.129.16 metadata | 192.0.0.192 metadata
        192.0.0.1 reserved | 192.88.99.1 reserved | 240.0.0.1 reserved | 255.255.255.254 reserved
        192.0.2.1 documentation | 198.51.100.1 documentation | 203.0.113.1 documentation
        198.18.0.1 benchmarking | 198.19.255.255 benchmarking
        224.0.0.251 multicast | 239.255.255.250 multicast | 255.255.255.255 broadcast
        2a00:1450:4001::1 global | 2606:4700::1111 global | 2001:4860:4860::8888 global
        2001:200::1 global
        :: unspecified | ::1 loopback | fe80::1 link local | febf::1 link local
        fe80::a9fe:a9fe link local | fec0::1 site local | fc00::1 unique local | fd00::1 unique local
        fd00:ec2::254 metadata | fd00:ec2::23 metadata | fd20:ce::254 metadata
        ff02::fb multicast | 2001:db8::1 documentation | 3fff:1::1 documentation
        2001:2::1 benchmarking | 2001::1 reserved | 2001:10::1 reserved | 100::1 reserved
        4000::1 reserved | 5f00::1 reserved | ::2 reserved
        ::ffff:8.8.8.8 global | ::ffff:127.0.0.1 loopback | ::ffff:169.254.169.254 metadata
        ::ffff:10.0.0.1 private | ::ffff:10.1.2.3 this machine | ::ffff:0.0.0.0 unspecified
        64:ff9b::8.8.8.8 global | 64:ff9b::127.0.0.1 loopback | 64:ff9b::a9fe:a9fe metadata
        64:ff9b::10.1.2.3 this machine | 64:ff9b::192.168.0.1 private
        64:ff9b:1::8.8.8.8 reserved | ::8.8.8.8 reserved | ::127.0.0.1 reserved
        ::ffff:0:127.0.0.1 loopback | ::ffff:0:8.8.8.8 reserved
        2002:808:808::1 global | 2002:7f00:1::1 loopback | 2002:a9fe:a9fe::1 metadata
        2002:c0a8:1::1 private | 2002:a01:203::1 this machine
        2a00:1::5efe:10.0.0.1 private | fe80::5efe:8.8.8.8 link local | fd00::5efe:8.8.8.8 unique local
        10.1.2.3 this machine | 2a00:1::5 this machine | fdec:1::77 this machine
        fdec:1:0:1::77 unique local";
    for case in table
        .split(['\n', '|'])
        .map(str::trim)
        .filter(|case| !case.is_empty())
    {
        let (address, class) = case.split_once(' ').unwrap();
        let address: IpAddr = address.parse().unwrap();
        assert_eq!(classify(address, &own()).as_str(), class, "{address}");
    }
}

#[test]
fn a_grant_covers_only_its_classes() {
    let plain: Vec<Class> = all()
        .into_iter()
        .filter(|class| permitted(*class, false))
        .collect();
    assert_eq!(plain, [Class::Global]);
    let private: Vec<Class> = all()
        .into_iter()
        .filter(|class| permitted(*class, true))
        .collect();
    assert_eq!(
        private,
        [
            Class::Global,
            Class::Private,
            Class::Shared,
            Class::SiteLocal,
            Class::UniqueLocal
        ]
    );
}

fn all() -> [Class; 15] {
    [
        Class::Broadcast,
        Class::Benchmarking,
        Class::Documentation,
        Class::Global,
        Class::LinkLocal,
        Class::Loopback,
        Class::Metadata,
        Class::Multicast,
        Class::Own,
        Class::Private,
        Class::Reserved,
        Class::Shared,
        Class::SiteLocal,
        Class::UniqueLocal,
        Class::Unspecified,
    ]
}

proptest! {
    /// The standard library's own tests, where they are stable, never disagree to our harm.
    #[test]
    fn nothing_the_standard_library_calls_local_is_global(bits: u32) {
        let address = Ipv4Addr::from_bits(bits);
        let bad = address.is_private() || address.is_loopback() || address.is_link_local()
            || address.is_broadcast() || address.is_documentation() || address.is_multicast()
            || address.is_unspecified();
        prop_assert!(!bad || classify(address.into(), &Own::default()) != Class::Global);
    }

    /// Whatever carries an IPv4 address is never in a better class than that address.
    #[test]
    fn a_carrier_is_no_better_than_what_it_carries(bits: u32) {
        let inner = Ipv4Addr::from_bits(bits);
        let [a, b, c, d] = bits.to_be_bytes();
        let (a, b) = (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]));
        let carriers = [
            inner.to_ipv6_mapped(),
            Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, a, b),
            Ipv6Addr::new(0x2002, a, b, 0, 0, 0, 0, 1),
        ];
        for carrier in carriers {
            for private in [false, true] {
                let own = Own::default();
                let outer = permitted(classify(carrier.into(), &own), private);
                prop_assert_eq!(outer, permitted(classify(inner.into(), &own), private));
            }
        }
    }
}
