//! The questions put to a kernel that has sit tunnels, no nf_tables, and IPsec when it is asked for: that of the guest (Linux 6.1).
//!
//! ```text
//!   guest 10.0.0.9 [ eth0, sit0, tunnel ]
//! ```

use std::net::Ipv4Addr;

use isatap_tests::guest::Guest;
use isatap_tests::topology::Site;
use rtnetlink::packet_core::{NLMSG_DONE, NetlinkBuffer};
use rtnetlink::sys::protocols::{NETLINK_NETFILTER, NETLINK_ROUTE, NETLINK_XFRM};

use super::{NO_FAMILY, questions};
use crate::link::plain;

/// Sends a question and prints the answer, a datagram a line; or an errno.
const ASK: &str = r#"
my ($family, $question) = @ARGV;
socket(my $socket, 16, 3, $family) or do { print 0 + $!; exit };
send($socket, pack("H*", $question), 0) or die "send: $!";
print unpack("H*", $_), "\n" while defined recv($socket, $_, 65536, 0x40) && length;
"#;

/// The datagrams of the answer, or an errno.
fn ask(guest: &Guest, family: isize, question: &[u8]) -> Result<Vec<Vec<u8>>, i32> {
    let question: String = question.iter().map(|byte| format!("{byte:02x}")).collect();
    let printed = guest.run(&format!("perl -e '{ASK}' {family} {question}"));
    if let Ok(errno) = printed.parse() {
        return Err(errno);
    }
    let byte = |line: &str, at| u8::from_str_radix(&line[at..at + 2], 16).unwrap();
    let datagram = |line: &str| (0..line.len()).step_by(2).map(|at| byte(line, at)).collect();
    Ok(printed.lines().map(datagram).collect())
}

/// How many devices there are, and how many of them are sit tunnels that hear.
fn devices(guest: &Guest) -> (usize, usize) {
    let (mut all, mut hearing) = (0, 0);
    for datagram in ask(guest, NETLINK_ROUTE, &questions::devices()).unwrap() {
        for message in plain::messages(&datagram).map(NetlinkBuffer::new) {
            if message.message_type() == NLMSG_DONE {
                return (all, hearing);
            }
            all += 1;
            hearing += usize::from(questions::hears(message.message_type(), message.payload()).unwrap());
        }
    }
    panic!("the answer has no end");
}

/// Whether the kernel says that there are policies of IPsec.
fn has_policies(guest: &Guest) -> bool {
    let answer = ask(guest, NETLINK_XFRM, &questions::policies()).unwrap();
    let message = plain::messages(&answer[0])
        .next()
        .map(NetlinkBuffer::new)
        .unwrap();
    questions::has_policies(message.message_type(), message.payload()).unwrap()
}

#[test]
fn a_kernel_says_which_sit_tunnels_are_up_and_what_it_does_not_have() {
    let site = Site::new();
    let Some(guest) = Guest::start(&site, Ipv4Addr::new(10, 0, 0, 9)) else {
        return;
    };
    // A kernel without IPsec is one that does not find its module.
    guest.run("cd /usr/lib/modules/*/kernel/net/xfrm && mv xfrm_user.ko xfrm_user.away");
    for (family, question) in [
        (NETLINK_NETFILTER, questions::chains()),
        (NETLINK_XFRM, questions::policies()),
    ] {
        assert_eq!(ask(&guest, family, &question), Err(NO_FAMILY), "{family}");
    }
    guest.run("cd /usr/lib/modules/*/kernel/net/xfrm && mv xfrm_user.away xfrm_user.ko");
    assert!(!has_policies(&guest));
    guest.run("ip xfrm policy add dir out src 10.0.0.9 dst 10.0.0.1 tmpl proto esp mode transport");
    assert!(has_policies(&guest));
    guest.run("ip xfrm policy deleteall");
    assert!(!has_policies(&guest));
    // With sit0, which comes with the module and is down.
    guest.run("ip link show sit0");
    let (before, hearing) = devices(&guest);
    assert_eq!(hearing, 0);
    guest.run("ip tunnel add tunnel mode sit local 10.0.0.9 remote 10.0.0.1");
    assert_eq!(devices(&guest), (before + 1, 0));
    for (state, hearing) in [("up", 1), ("down", 0)] {
        guest.run(&format!("ip link set tunnel {state}"));
        assert_eq!(devices(&guest), (before + 1, hearing), "tunnel {state}");
    }
    guest.run("ip link set sit0 up");
    assert_eq!(devices(&guest), (before + 1, 1));
}
