//! `/proc/net/if_inet6`, the kernel's table of IPv6 addresses: the locators of ISATAP interfaces. Pure.

use std::net::{Ipv4Addr, Ipv6Addr};

use isatap_engine::isatap::iid;

/// The column of the device's name; those before are address, index, length of the prefix, scope and flags.
const DEVICE: usize = 5;

/// Each device with the link-local address of a locator, which ISATAP interfaces alone have (RFC 5214 6.2), and that locator.
pub fn isatap_interfaces(table: &str) -> impl Iterator<Item = (&str, Ipv4Addr)> {
    table.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        let digits = words.next().filter(|digits| digits.len() == 32)?;
        let addr = Ipv6Addr::from(u128::from_str_radix(digits, 16).ok()?);
        let locator = iid::link_local_locator(&addr)?;
        Some((words.nth(DEVICE - 1)?, locator))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As Linux 6.18 writes it.
    const TABLE: &str = "\
00000000000000000000000000000001 01 80 10 80       lo
fe80000000000000ac17c6fffe6f1dd2 02 40 20 80     eth0
20010db80001000000005efe0a000001 03 40 00 80      is0
fe8000000000000000005efe0a000001 03 40 20 80      is0
fe8000000000000002005efe08080808 0a 40 20 80 a-name-of-15-ch
";

    #[test]
    fn isatap_interfaces_are_told_by_their_link_local_addresses() {
        let found: Vec<_> = isatap_interfaces(TABLE).collect();
        let expected = [
            ("is0", Ipv4Addr::new(10, 0, 0, 1)),
            ("a-name-of-15-ch", Ipv4Addr::new(8, 8, 8, 8)),
        ];
        assert_eq!(found, expected);
        let cut = TABLE.lines().map(|line| line.get(..40).unwrap_or(line));
        let cut: Vec<_> = cut.collect();
        assert_eq!(isatap_interfaces(&cut.join("\n")).count(), 0);
        assert_eq!(isatap_interfaces("\n x\n+e80 1 2 3 4 is0\n").count(), 0);
    }
}
