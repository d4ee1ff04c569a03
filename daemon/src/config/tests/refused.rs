//! What a file may not say: the exact words an operator reads.

use super::*;

#[test]
fn each_kind_of_error_tells_what_to_change() {
    let table: &[(&str, &str)] = &[
        (
            "Mtuu 1280",
            "f:1:1: \"Mtuu\" is no name of this file; did you mean Mtu?",
        ),
        (
            "Frobnicate 1",
            "f:1:1: \"Frobnicate\" is no name of this file; isatapd.conf(5) lists them",
        ),
        (
            "Mtu=1280",
            "f:1:1: \"Mtu=1280\": expected a blank, not \"=\", between name and value",
        ),
        (
            "Mtu = 1280",
            "f:1:5: Mtu \"=\": expected a number from 1280 to 65515",
        ),
        (
            "\tMtu  abc # x",
            "f:1:7: Mtu \"abc\": expected a number from 1280 to 65515",
        ),
        (
            "Mtu 1279",
            "f:1:5: Mtu \"1279\": expected a number from 1280 to 65515",
        ),
        (
            "Mtu",
            "f:1:1: Mtu has no value; expected a number from 1280 to 65515",
        ),
        (
            "Mtu 1280 1400",
            "f:1:10: \"1400\" after the value of Mtu; expected a number from 1280 to 65515",
        ),
        (
            "Mtu 1280\n\nmtu 1281",
            "f:3:1: Mtu is in line 1 already; it may appear once",
        ),
        (
            "Ttl 0",
            "f:1:5: Ttl \"0\": expected inherit or a number from 1 to 255",
        ),
        (
            "Dscp 64",
            "f:1:6: Dscp \"64\": expected inherit or a number from 0 to 63",
        ),
        (
            "Workers 0",
            "f:1:9: Workers \"0\": expected a number from 1 to 128",
        ),
        (
            "Lane urin",
            "f:1:6: Lane \"urin\": expected auto, ebpf, uring or syscall; did you mean uring?",
        ),
        (
            "LogLevel verbose",
            "f:1:10: LogLevel \"verbose\": expected error, warn, info or debug",
        ),
        (
            "SyslogFacility deamon",
            "f:1:16: SyslogFacility \"deamon\": expected a syslog facility such as daemon or local0; did you mean daemon?",
        ),
        (
            "InterfaceName much-too-long-name",
            "f:1:15: InterfaceName \"much-too-long-name\": an interface name has at most 15 characters",
        ),
        (
            "InterfaceName a/b",
            "f:1:15: InterfaceName \"a/b\": an interface name has only letters, digits and signs but \"/\", \":\" and \"%\"",
        ),
        (
            "BindAddress 10.0.0.256",
            "f:1:13: BindAddress \"10.0.0.256\": expected \"auto\", an IPv4 address or a host name",
        ),
        (
            "BindAddress 127.0.0.1",
            "f:1:13: 127.0.0.1 is not the address of a host; a unicast one is expected",
        ),
        (
            "BindAddress fe80::1",
            "f:1:13: BindAddress \"fe80::1\": an IPv6 address; the tunnel runs over IPv4, an IPv4 address or a host name is needed here",
        ),
        (
            "BindAddress nowhere",
            "f:1:13: the name \"nowhere\" cannot be resolved: Name or service not known; put it into /etc/hosts, or write its address here",
        ),
        (
            "BindAddress elsewhere.example",
            "f:1:13: BindAddress has several addresses (198.51.100.1, 198.51.100.2); name the one to use",
        ),
        (
            "ServerAddress 192.0.2.1,224.0.0.5",
            "f:1:25: 224.0.0.5 is not the address of a host; a unicast one is expected",
        ),
        (
            "PeerRouter empty.example",
            "f:1:12: the name \"empty.example\" has no IPv4 address",
        ),
        (
            "PeerRouter bad.example",
            "f:1:12: the name \"bad.example\" has no IPv4 address that a host can have (0.0.0.0, 127.0.0.1, 224.0.0.1)",
        ),
        (
            "ServerAddress 10.0.0.1",
            "f:1:15: 10.0.0.1 is our own address; to be a router, name no ServerAddress and no ROUTER",
        ),
        (
            "ServerAddress 192.0.2.1\nPeerRouter 192.0.2.2",
            "f:2:12: PeerRouter is for routers, but with a ServerAddress or ROUTER this is a host; name them all there",
        ),
        (
            "SiteNetwork ten",
            "f:1:13: SiteNetwork \"ten\": expected IPv4 networks such as 10.0.0.0/8, \"private\" or \"any\"",
        ),
        (
            "SiteNetwork privat",
            "f:1:13: SiteNetwork \"privat\": expected IPv4 networks such as 10.0.0.0/8, \"private\" or \"any\"; did you mean private?",
        ),
        (
            "SiteNetwork 10.0.0.1/8",
            "f:1:13: SiteNetwork \"10.0.0.1/8\": bits after the prefix length are set; make them 0, or the length longer",
        ),
        (
            "SiteNetwork 10.0.0.0/33",
            "f:1:13: SiteNetwork \"10.0.0.0/33\": an IPv4 prefix length is a number from 0 to 32",
        ),
        (
            "StrictIngress maybe",
            "f:1:15: StrictIngress \"maybe\": expected yes or no",
        ),
        (
            "DefaultRoute yes metric",
            "f:1:1: DefaultRoute has no value; expected yes or no, then [metric N]",
        ),
        (
            "DefaultRoute no 5",
            "f:1:17: \"5\" after the value of DefaultRoute; expected yes or no, then [metric N]",
        ),
        (
            "MetricsListen 9441",
            "f:1:15: MetricsListen \"9441\": expected an address with a port such as 127.0.0.1:9441, or off",
        ),
        (
            "ControlSocket run/x",
            "f:1:15: ControlSocket \"run/x\": the path must be absolute: begin with \"/\"",
        ),
        (
            "ControlSocket /x nogroup",
            "f:1:15: ControlSocket: there is no group \"nogroup\"; create it, or name another",
        ),
        (
            "ControlSocket /x netops 999",
            "f:1:25: ControlSocket \"999\": permissions are three octal digits such as 660",
        ),
        (
            "User root",
            "f:1:6: the user \"root\" is root or in its group; choose an account without privileges",
        ),
        (
            "User wheel",
            "f:1:6: the user \"wheel\" is root or in its group; choose an account without privileges",
        ),
        (
            "User nobdy",
            "f:1:6: there is no user \"nobdy\"; create it, or choose another with User",
        ),
        (
            "User broken",
            "f:1:6: the user \"broken\" cannot be looked up: Permission denied",
        ),
        (
            "PidFile isatapd.pid",
            "f:1:9: PidFile \"isatapd.pid\": the path must be absolute: begin with \"/\"",
        ),
        (
            "User \u{1b}[2Jx",
            "f:1:6: User \"\\u{1b}[2Jx\": this cannot be the name of an account",
        ),
    ];
    for (text, expected) in table {
        let messages = refusal(text);
        assert!(
            messages.iter().any(|message| message == expected),
            "{text:?}: {messages:#?}"
        );
    }
}

/// V11: an advertisement is one packet that every link carries, for every host; the line that has no room is named.
#[test]
fn advertisements_too_long_for_one_packet_are_refused() {
    let prefixes = |count: u16, more: &str| {
        let line = |n| format!("AdvertisePrefix 2001:db8:{n:x}::/64 {more}\n");
        (1..=count).map(line).collect::<String>()
    };
    // 64 bytes are needed for everything else: 38 prefixes have no room.
    load(&format!("Advertise yes\n{}", prefixes(38, "")));
    let [refused] = &refusal(&prefixes(39, ""))[..] else {
        panic!("one refusal")
    };
    assert!(
        refused.starts_with(
            "f:39:17: from here on the advertisement for every host has no room: it would be 1312 bytes long"
        ),
        "{refused}"
    );
    // Those of other networks do not count; of nested ones all do.
    let other = |network| prefixes(20, &format!("for {network}"));
    let apart = format!(
        "{}{}",
        other("10.1.0.0/16"),
        other("10.2.0.0/16").replace("2001:db8", "2001:db9")
    );
    load(&apart);
    let nested = format!(
        "{}{}",
        other("10.0.0.0/8"),
        other("10.2.0.0/16").replace("2001:db8", "2001:db9")
    );
    let [refused] = &refusal(&nested)[..] else {
        panic!("one refusal")
    };
    assert!(
        refused.starts_with("f:39:17: from here on the advertisement for the hosts in 10.2.0.0/16"),
        "{refused}"
    );
    let servers: String = (1..=70).map(|n| format!("2001:db8::{n:x} ")).collect();
    let long_list = format!("AdvertiseDns {servers}\n{}", prefixes(4, ""));
    assert!(
        refusal(&long_list)[0].starts_with("f:1:14: "),
        "{:?}",
        refusal(&long_list)
    );
}

/// T9: a host does not advertise. L9: seventeen routes at most.
#[test]
fn advertisements_and_networks_are_checked_in_full() {
    let routes: String = (0..18)
        .map(|at| format!("AdvertiseRoute 2001:db8:{at}::/48\n"))
        .collect();
    let routes = routes.as_str();
    let table = [
        (
            "AdvertisePrefix 2001:db8::/48",
            "f:1:17: AdvertisePrefix \"2001:db8::/48\": an interface identifier has 64 bits, so the prefix must have 64 (RFC 5214 6.1)",
        ),
        (
            "AdvertisePrefix fe80::/64",
            "f:1:17: AdvertisePrefix \"fe80::/64\": a link-local or multicast prefix cannot be advertised",
        ),
        (
            "AdvertisePrefix 2001:db8::/64 valid 1 preferred 2",
            "f:1:1: AdvertisePrefix: the preferred lifetime is longer than the valid one",
        ),
        (
            "AdvertiseRoute 2001:db8::/32 lifetime soon",
            "f:1:39: AdvertiseRoute \"soon\": a lifetime is a number of seconds, or infinity",
        ),
        (
            "AdvertiseDns 10.0.0.1",
            "f:1:14: AdvertiseDns \"10.0.0.1\": expected IPv6 addresses of name servers, then [lifetime S]",
        ),
        (
            "PathMtu dynamik",
            "f:1:9: PathMtu \"dynamik\": expected static or dynamic, and an IPv4 network if it is for that only; did you mean dynamic?",
        ),
        (
            "Ecn compat 10.1.0.0/16\nEcn normal 10.1.0.0/16",
            "f:2:12: Ecn for 10.1.0.0/16 is said already",
        ),
        (
            "ServerAddress 192.0.2.1\nAdvertise yes",
            "f:2:11: Advertise is for routers, but with a ServerAddress or ROUTER this is a host",
        ),
        (
            routes,
            "f:18:16: one AdvertiseRoute too many: hosts need take only 17 (RFC 4191 4); leave out, or merge, some",
        ),
        (
            "RouterLifetime 9001",
            "f:1:16: RouterLifetime \"9001\": expected a number of seconds from 0 to 9000",
        ),
    ];
    for (text, expected) in table {
        assert_eq!(refusal(text), [expected], "{text}");
    }
}

#[test]
fn all_errors_of_a_file_come_at_once_and_in_order() {
    let messages = refusal("Mtu 1\nUnknown\nTtl 0\n\0\nDscp 99 # x\nEcn compat 10.0.0.0/33\nMtu 2\n");
    let places: Vec<_> = messages
        .iter()
        .map(|message| message.split(": ").next().unwrap())
        .collect();
    assert_eq!(
        places,
        ["f:1:5", "f:2:1", "f:3:5", "f:4:1", "f:5:6", "f:6:12", "f:7:1"],
        "{messages:#?}"
    );
    let messages = refusal("PeerRouter nowhere bad.example\nUser root\nControlSocket /x nogroup\n");
    assert_eq!(messages.len(), 4, "{messages:#?}");
}

/// FAULTS 62: networks are compared with each other, so that there is a bound; the first one beyond it is named.
#[test]
fn too_many_networks_of_their_own() {
    let lines: String = (0..1025)
        .map(|n| format!("PathMtu dynamic 10.{}.{}.0/24\n", n / 250, n % 250))
        .collect();
    let expected = "f:1025:17: one PathMtu with a network too many: at most 1024";
    assert_eq!(refusal(&lines), [expected]);
}

/// FAULTS 62: who throws another kind of file at it is told so by the first hundred lines, and soon.
#[test]
fn names_are_guessed_for_what_is_printed() {
    let wrong = refusal(&"Mtuu 1280\n".repeat(150));
    assert_eq!(wrong.len(), 150);
    let guessed = wrong
        .iter()
        .filter(|text| text.contains("did you mean Mtu?"))
        .count();
    assert_eq!(guessed, 100);
}
