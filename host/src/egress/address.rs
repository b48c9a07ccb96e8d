//! How far an address reaches: a name that a guest may ask for must not lead into the operator's own network.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Where an address leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// Anywhere on the internet.
    Public,
    /// This machine or its network: loopback, private and shared ranges, and the range that local proxies answer with
    /// in place of the real address (198.18.0.0/15). `private = true` opens them.
    Private,
    /// Link-local, or where a cloud keeps a machine's credentials. Only its own address in a grant opens it.
    Metadata,
    /// No host: unspecified, multicast, documentation, reserved.
    Nowhere,
}

/// Where clouds answer with a machine's credentials outside the link-local ranges: Alibaba, Volcengine, Oracle, Azure.
const METADATA_V4: [Ipv4Addr; 4] = [
    Ipv4Addr::new(100, 100, 100, 200),
    Ipv4Addr::new(100, 96, 0, 96),
    Ipv4Addr::new(192, 0, 0, 192),
    Ipv4Addr::new(168, 63, 129, 16),
];

/// The same by IPv6: AWS, Google, Scaleway.
const METADATA_V6: [Ipv6Addr; 3] = [
    Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254),
    Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254),
    Ipv6Addr::new(0xfd00, 0x42, 0, 0, 0, 0, 0, 0x42),
];

impl Reach {
    /// Finds out where an address leads. One that carries an IPv4 address inside leads where that one does.
    pub fn of(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(address) => Self::of_v4(address),
            IpAddr::V6(address) => embedded(address).map_or_else(|| Self::of_v6(address), Self::of_v4),
        }
    }

    fn of_v4(address: Ipv4Addr) -> Self {
        if METADATA_V4.contains(&address) {
            return Self::Metadata;
        }
        match address.octets() {
            [169, 254, ..] => Self::Metadata,
            [10 | 127, ..] | [172, 16..=31, ..] | [192, 168, ..] | [100, 64..=127, ..] | [198, 18 | 19, ..] => {
                Self::Private
            }
            [0 | 224..=255, ..] | [192, 0, 0 | 2, _] | [192, 88, 99, _] | [198, 51, 100, _] | [203, 0, 113, _] => {
                Self::Nowhere
            }
            _ => Self::Public,
        }
    }

    fn of_v6(address: Ipv6Addr) -> Self {
        if METADATA_V6.contains(&address) {
            return Self::Metadata;
        }
        match address.segments() {
            [0, 0, 0, 0, 0, 0, 0, 1] | [0xfc00..=0xfdff | 0xfec0..=0xfeff, ..] => Self::Private,
            [0xfe80..=0xfebf, ..] => Self::Metadata,
            // Teredo and other protocols' own, documentation.
            [0x2001, 0..=0x1ff | 0xdb8, ..] | [0x3fff, 0..=0xfff, ..] => Self::Nowhere,
            [0x2000..=0x3fff, ..] => Self::Public,
            _ => Self::Nowhere,
        }
    }
}

/// Finds the IPv4 address that an IPv6 address stands for: mapped, translated, compatible, NAT64 and 6to4.
fn embedded(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let join = |high: u16, low: u16| Some(Ipv4Addr::from(u32::from(high) << 16 | u32::from(low)));
    match address.segments() {
        // `::` and `::1` are themselves.
        [0, 0, 0, 0, 0, 0, 0, 0 | 1] => None,
        [0, 0, 0, 0, 0, 0 | 0xffff, high, low]
        | [0, 0, 0, 0, 0xffff, 0, high, low]
        | [0x64, 0xff9b, 0, 0, 0, 0, high, low] => join(high, low),
        [0x2002, high, low, ..] => join(high, low),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_leads_where_its_range_does() {
        for (reach, addresses) in [
            (Reach::Public, "1.1.1.1 223.5.5.5 100.63.0.1 100.128.0.1 172.15.0.1 172.32.0.1 169.253.1.1 198.20.0.1"),
            (Reach::Public, "2606:4700::1111 2400:3200::1 2001:200::1 3ffe::1"),
            (Reach::Public, "::ffff:1.1.1.1 64:ff9b::1.1.1.1 2002:0101:0101::1"),
            (Reach::Private, "127.0.0.1 127.255.255.255 10.0.0.1 172.16.0.1 172.31.255.255 192.168.1.1"),
            (Reach::Private, "100.64.0.1 100.127.255.255 198.18.0.1 198.19.255.255"),
            (Reach::Private, "::1 fc00::1 fdff::1 fec0::1"),
            (Reach::Private, "::ffff:127.0.0.1 ::ffff:0:10.0.0.1 ::10.0.0.1 64:ff9b::192.168.0.1 2002:7f00:1::"),
            (Reach::Metadata, "169.254.169.254 169.254.170.2 169.254.0.23 169.254.1.1"),
            (Reach::Metadata, "100.100.100.200 100.96.0.96 192.0.0.192 168.63.129.16"),
            (Reach::Metadata, "fe80::1 febf::1 fd00:ec2::254 fd20:ce::254 fd00:42::42"),
            (Reach::Metadata, "::ffff:169.254.169.254 64:ff9b::169.254.169.254 2002:a9fe:a9fe::"),
            (Reach::Nowhere, "0.0.0.0 0.1.2.3 224.0.0.1 239.1.1.1 240.0.0.1 255.255.255.255"),
            (Reach::Nowhere, "192.0.0.1 192.0.2.1 192.88.99.1 198.51.100.1 203.0.113.1"),
            (Reach::Nowhere, ":: ff02::1 2001:db8::1 2001::1 2001:1ff::1 3fff:fff::1 100::1 64:ff9b:1::1 4000::1"),
            (Reach::Nowhere, "::ffff:0.0.0.0 2002:e000:1::"),
        ] {
            for address in addresses.split(' ') {
                assert_eq!(Reach::of(address.parse().unwrap()), reach, "{address}");
            }
        }
    }
}
