//! `/proc/net/raw`, the kernel's table of IPv4 raw sockets: those of protocol 41. Pure.

/// IPv4 protocol 41 at the end of a local address.
const PROTOCOL_41: &str = ":0029";
/// The column of the inode; those before are `sl`, addresses, state, queues, timers, retransmissions, user and timeout.
const INODE: usize = 9;

/// The inodes of the sockets of protocol 41; `None` for one whose line has no inode.
pub fn inodes_of_protocol_41(table: &str) -> impl Iterator<Item = Option<u64>> {
    let of_protocol_41 = |line: &&str| {
        let local = line.split_whitespace().nth(1);
        local.is_some_and(|local| local.ends_with(PROTOCOL_41))
    };
    let inode = |line: &str| line.split_whitespace().nth(INODE)?.parse().ok();
    table.lines().filter(of_protocol_41).map(inode)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As Linux 6.18 writes it.
    const TABLE: &str = "\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops
   1: 00000000:0001 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 16 2 000000004c43ef2c 0
  41: 0100000A:0029 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 18446744073709551615 2 0 0
  41: 00000000:0029 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 4711 2 0000000055d3b1f1 12
 255: 00000000:00FF 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 18 2 00000000a55d3b1f 0
";

    #[test]
    fn sockets_of_protocol_41_are_found_by_inode() {
        let found: Vec<_> = inodes_of_protocol_41(TABLE).collect();
        assert_eq!(found, [Some(u64::MAX), Some(4711)]);
        let odd = "0029\n x :0029\n41: 00000000:0029 a b c d e f g -1\n:0029\n";
        let found: Vec<_> = inodes_of_protocol_41(odd).collect();
        assert_eq!(found, [None, None]);
    }
}
