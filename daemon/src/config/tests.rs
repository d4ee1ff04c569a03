//! The configuration as operators meet it: whole files in, settings or message texts out. FAULTS 45, 62, 63, 73, 74.

use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::path::Path;

use proptest::prelude::*;

use super::file::{self, FileConfig, LaneText};
use super::machine::{Candidate, Machine, Remembering};
use super::names::{Key, Reload};
use super::reload::plan;
use super::resolve::{Overrides, resolve};
use super::resolved::{Bind, DscpPolicy, EcnMode, LaneChoice, Role, Settings, SiteNetworks, TtlPolicy, User};
use super::values::Host;
use super::{ConfigError, Loader, source};
use crate::exit::ExitStatus;

/// A machine made of tables.
#[derive(Clone, Debug)]
struct Fake {
    names: HashMap<&'static str, Vec<Ipv4Addr>>,
    addresses: Vec<(&'static str, &'static str)>,
    source: Option<Ipv4Addr>,
}

impl Default for Fake {
    fn default() -> Self {
        let names = [
            ("isatap.example", vec!["192.0.2.1", "192.0.2.2"]),
            ("ourselves.example", vec!["198.51.100.1", "10.0.0.1"]),
            ("elsewhere.example", vec!["198.51.100.1", "198.51.100.2"]),
            ("bad.example", vec!["0.0.0.0", "127.0.0.1", "224.0.0.1"]),
            ("mixed.example", vec!["127.0.0.1", "192.0.2.3", "255.255.255.255"]),
            ("empty.example", vec![]),
        ];
        let names = names
            .into_iter()
            .map(|(name, list)| (name, list.into_iter().map(v4).collect()))
            .collect();
        Self {
            names,
            addresses: vec![("10.0.0.1", "eth0")],
            source: None,
        }
    }
}

impl Machine for Fake {
    fn resolve(&self, name: &str) -> Result<Vec<Ipv4Addr>, String> {
        self.names
            .get(name)
            .cloned()
            .ok_or_else(|| "Name or service not known".to_owned())
    }

    fn addresses(&self) -> Result<Vec<Candidate>, String> {
        let candidate = |(addr, interface): &(&str, &str)| Candidate {
            addr: v4(addr),
            interface: (*interface).into(),
        };
        Ok(self.addresses.iter().map(candidate).collect())
    }

    fn source_towards(&self, _server: Ipv4Addr) -> Option<Ipv4Addr> {
        self.source
    }

    fn user(&self, name: &str) -> Result<Option<User>, String> {
        let ids = match name {
            "root" | "toor" => (0, 0),
            "wheel" => (5, 0),
            "nobody" => (65534, 65534),
            "isatap" => (990, 990),
            "broken" => return Err("Permission denied".into()),
            _ => return Ok(None),
        };
        Ok(Some(User {
            name: name.into(),
            uid: ids.0,
            gid: ids.1,
        }))
    }

    fn group(&self, name: &str) -> Result<Option<u32>, String> {
        Ok((name == "netops").then_some(44))
    }

    fn usable_cores(&self) -> usize {
        3
    }
}

fn v4(text: &str) -> Ipv4Addr {
    text.parse().unwrap()
}

fn parse(text: &str) -> Result<FileConfig, Vec<String>> {
    file::parse(&"f".into(), text.as_bytes()).map_err(|wrong| wrong.iter().map(ToString::to_string).collect())
}

fn load_with(text: &str, overrides: &Overrides, machine: &Fake) -> Result<Settings, ConfigError> {
    resolve(parse(text).unwrap(), overrides, Some("/etc/f".into()), machine)
}

fn load(text: &str) -> Settings {
    load_with(text, &Overrides::default(), &Fake::default()).unwrap()
}

/// The error texts of a file, whether they come from reading or from resolving.
fn refusal(text: &str) -> Vec<String> {
    match parse(text) {
        Err(wrong) => wrong,
        Ok(_) => {
            let error = load_with(text, &Overrides::default(), &Fake::default()).unwrap_err();
            error.diagnostics().iter().map(ToString::to_string).collect()
        }
    }
}

#[test]
fn nothing_said_means_the_defaults_of_the_manual() {
    let expected = "\
# ISATAP router at 10.0.0.1
InterfaceName is0
BindAddress auto
SyslogFacility daemon
LogLevel info
Workers 3
Lane auto
Mtu 1280
Ttl 64
Dscp 0
Ecn normal
PrlRefreshInterval 3600
MinRouterSolicitInterval 120
SiteNetwork private
NestedTunnels no
StrictIngress yes
DefaultRoute yes metric 1024
MetricsListen 127.0.0.1:9441
ControlSocket /run/isatapd/control.sock
User nobody
ChrootDir /var/empty/isatapd
PidFile /var/run/isatapd.pid
";
    assert_eq!(load("").to_string(), expected);
}

#[test]
fn a_file_of_the_old_program_runs_unchanged() {
    let old = "# /etc/isatapd.conf\r\n\r\n  interfacename\tis1   # tunnel\r\nBINDADDRESS 10.0.0.9\n\
               serverADDRESS isatap.example # the router\n\n\tSyslogFacility LOCAL3\n";
    let settings = load(old);
    assert_eq!(settings.interface, "is1");
    assert_eq!(settings.bind, Bind::Fixed(v4("10.0.0.9")));
    assert_eq!(settings.role, Role::Host);
    assert_eq!(settings.servers, [v4("192.0.2.1"), v4("192.0.2.2")]);
    assert_eq!(settings.server_names, ["isatap.example"]);
    assert_eq!(settings.syslog_facility.to_string(), "local3");
}

#[test]
fn every_new_name_is_understood() {
    let text = "\
ServerAddress 192.0.2.7, isatap.example 192.0.2.1
LogLevel debug
Workers 8
Lane uring
Mtu 1480
PathMtu static
PathMtu static 10.0.0.0/8
Ttl inherit
Dscp 46
Ecn compat
Ecn compat 10.1.0.0/16
PrlRefreshInterval 60
MinRouterSolicitInterval infinite
SiteNetwork private, 203.0.113.0/24
SiteNetwork 198.51.100.7
NestedTunnels yes
StrictIngress no
LoopChecks yes
Advertise no
RouterLifetime 1800
RouterPreference medium
DefaultRoute yes metric 77
MetricsListen [::1]:9000
ControlSocket /run/x.sock netops 0600
User isatap
ChrootDir /srv/empty,really
PidFile /run/x.pid
";
    let settings = load(text);
    assert_eq!(
        settings.servers,
        [v4("192.0.2.7"), v4("192.0.2.1"), v4("192.0.2.2")]
    );
    assert_eq!(
        (settings.workers, settings.lane, settings.mtu),
        (8, LaneChoice::Uring, 1480)
    );
    assert_eq!(
        (settings.ttl, settings.dscp),
        (TtlPolicy::Inherit, DscpPolicy::Fixed(46))
    );
    assert_eq!(settings.ecn, EcnMode::Compat);
    assert_eq!(
        (
            settings.prl_refresh_interval,
            settings.min_router_solicit_interval
        ),
        (60, u32::MAX)
    );
    let list = vec!["203.0.113.0/24".parse().unwrap(), "198.51.100.7".parse().unwrap()];
    assert_eq!(
        settings.site,
        SiteNetworks {
            any: false,
            private: true,
            list
        }
    );
    assert!(settings.nested && !settings.strict_ingress);
    assert_eq!(settings.default_route, Some(77));
    assert_eq!(settings.metrics_listen, Some("[::1]:9000".parse().unwrap()));
    assert_eq!(
        (settings.control_socket.gid, settings.control_socket.mode),
        (Some(44), 0o600)
    );
    assert_eq!(
        (settings.user.uid, settings.chroot_dir.as_path()),
        (990, Path::new("/srv/empty,really"))
    );
    assert_eq!(settings.pidfile, Path::new("/run/x.pid"));
}

#[test]
fn spellings_of_the_default_route() {
    for (text, expected) in [
        ("yes", Some(1024)),
        ("no", None),
        ("yes metric 5", Some(5)),
        ("yes 5", Some(5)),
        ("metric 5", Some(5)),
    ] {
        assert_eq!(
            load(&format!("DefaultRoute {text}")).default_route,
            expected,
            "{text}"
        );
    }
}

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
            "Lane ebpf",
            "f:1:6: the ebpf lane is not built into this version; choose auto, uring or syscall",
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
            "f:1:13: 127.0.0.1 is not the address of a host",
        ),
        (
            "BindAddress fe80::1",
            "f:1:13: BindAddress \"fe80::1\": an IPv6 address; the tunnel runs over IPv4, an IPv4 address or a host name is needed here",
        ),
        (
            "BindAddress nowhere",
            "f:1:13: the name \"nowhere\" cannot be resolved: Name or service not known",
        ),
        (
            "BindAddress elsewhere.example",
            "f:1:13: BindAddress has several addresses (198.51.100.1, 198.51.100.2); name the one to use",
        ),
        (
            "ServerAddress 192.0.2.1,224.0.0.5",
            "f:1:25: 224.0.0.5 is not the address of a host",
        ),
        (
            "ServerAddress empty.example",
            "f:1:15: the name \"empty.example\" has no IPv4 address",
        ),
        (
            "ServerAddress bad.example",
            "f:1:15: the name \"bad.example\" has no IPv4 address that a host can have (0.0.0.0, 127.0.0.1, 224.0.0.1)",
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
            "f:1:13: SiteNetwork \"10.0.0.1/8\": bits after the prefix length are set",
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
            "f:1:15: ControlSocket: there is no group \"nogroup\"",
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

#[test]
fn what_this_version_lacks_is_refused_not_ignored() {
    let radvd = "let radvd advertise on the interface, with \"UnicastOnly on;\" (radvd.conf(5))";
    let table = [
        ("Advertise yes", format!("this Advertise is not available in this version; {radvd}")),
        (
            "AdvertisePrefix 2001:db8::/64 on-link valid 86400 preferred 14400 for 10.0.0.0/8",
            format!("this AdvertisePrefix is not available in this version; {radvd}"),
        ),
        (
            "AdvertiseRoute 2001:db8::/32 preference high lifetime 600",
            format!("this AdvertiseRoute is not available in this version; {radvd}"),
        ),
        (
            "AdvertiseDns 2001:db8::53, 2001:db8::54 lifetime 600",
            format!("this AdvertiseDns is not available in this version; {radvd}"),
        ),
        (
            "AdvertiseSearch example.org lifetime infinity",
            format!("this AdvertiseSearch is not available in this version; {radvd}"),
        ),
        ("AdvertiseMtu 1400", format!("this AdvertiseMtu is not available in this version; {radvd}")),
        ("RouterLifetime 0", format!("this RouterLifetime is not available in this version; {radvd}")),
        ("RouterPreference high", format!("this RouterPreference is not available in this version; {radvd}")),
        (
            "PathMtu dynamic 10.1.0.0/16",
            "this PathMtu is not available in this version; \"PathMtu static\" with the right Mtu carries everything"
                .into(),
        ),
        ("LoopChecks no", "this LoopChecks is not available in this version; leave it at yes".into()),
        (
            "Ecn compat 10.1.0.0/16",
            "Ecn for one network is not available in this version; without a network it holds for all".into(),
        ),
    ];
    for (text, expected) in table {
        let messages = refusal(text);
        assert_eq!(messages.len(), 1, "{text}: {messages:?}");
        assert!(
            messages[0].ends_with(&format!(": {expected}")),
            "{text}: {messages:?}"
        );
    }
}

#[test]
fn names_of_later_versions_are_checked_in_full() {
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
    let messages = refusal("Mtu 1\nUnknown\nTtl 0\n\0\nDscp 99 # x\nEcn compat 10.0.0.0/8\nMtu 2\n");
    let places: Vec<_> = messages
        .iter()
        .map(|message| message.split(": ").next().unwrap())
        .collect();
    assert_eq!(
        places,
        ["f:1:5", "f:2:1", "f:3:5", "f:4:1", "f:5:6", "f:6:5", "f:7:1"],
        "{messages:#?}"
    );
    let messages = refusal("ServerAddress nowhere bad.example\nUser root\nControlSocket /x nogroup\n");
    assert_eq!(messages.len(), 4, "{messages:#?}");
}

#[test]
fn our_own_address() {
    let both = Fake {
        addresses: vec![("10.0.0.1", "eth0"), ("192.0.2.9", "eth1"), ("10.0.0.1", "br0")],
        ..Fake::default()
    };
    let none = Fake {
        addresses: vec![("127.0.0.2", "x")],
        ..Fake::default()
    };
    let local = Fake {
        addresses: vec![("169.254.1.1", "eth0"), ("10.0.0.1", "eth0")],
        ..Fake::default()
    };
    let only_local = Fake {
        addresses: vec![("169.254.1.1", "eth0")],
        ..Fake::default()
    };
    let towards = Fake {
        source: Some(v4("192.0.2.9")),
        ..both.clone()
    };
    let bind = |text: &str, machine: &Fake| {
        load_with(text, &Overrides::default(), machine)
            .map(|settings| settings.bind)
            .map_err(|error| error.to_string())
    };
    assert_eq!(bind("", &Fake::default()), Ok(Bind::Auto(v4("10.0.0.1"))));
    assert_eq!(
        bind("BindAddress AUTO", &Fake::default()),
        Ok(Bind::Auto(v4("10.0.0.1")))
    );
    let several = "this machine has several IPv4 addresses: 10.0.0.1 (eth0), 192.0.2.9 (eth1); choose one with BindAddress";
    assert_eq!(bind("", &both), Err(several.into()));
    assert_eq!(bind("BindAddress auto", &both), Err(format!("f:1:13: {several}")));
    let nothing =
        "this machine has no IPv4 address to use; give it one, or name the one it will get with BindAddress";
    assert_eq!(bind("", &none), Err(nothing.into()));
    assert_eq!(bind("", &local), Ok(Bind::Auto(v4("10.0.0.1"))));
    assert_eq!(bind("", &only_local), Ok(Bind::Auto(v4("169.254.1.1"))));
    assert_eq!(
        bind("BindAddress 10.9.9.9", &none),
        Ok(Bind::Fixed(v4("10.9.9.9")))
    );
    assert_eq!(
        bind("BindAddress ourselves.example", &both),
        Ok(Bind::Fixed(v4("10.0.0.1")))
    );
    assert_eq!(
        bind("ServerAddress 192.0.2.1", &towards),
        Ok(Bind::Auto(v4("192.0.2.9")))
    );
    assert_eq!(
        bind("ServerAddress 192.0.2.1", &Fake::default()),
        Ok(Bind::Auto(v4("10.0.0.1")))
    );
    assert_eq!(bind("ServerAddress 192.0.2.1", &both), Err(several.into()));
}

#[test]
fn routers_are_filtered_and_counted_once() {
    let settings = load("ServerAddress mixed.example 192.0.2.3 10.0.0.1 isatap.example");
    assert_eq!(
        settings.servers,
        [v4("192.0.2.3"), v4("192.0.2.1"), v4("192.0.2.2")]
    );
    let many: Vec<_> = (1..=100).map(|last| format!("192.0.2.{last}")).collect();
    assert_eq!(
        load(&format!("ServerAddress {}", many.join(","))).servers.len(),
        super::resolved::MAX_SERVERS
    );
}

#[test]
fn the_command_line_wins_and_routers_add_up() {
    let overrides = Overrides {
        workers: Some(2),
        lane: Some(LaneText::Syscall),
        user: Some("isatap".into()),
        chroot_dir: Some("/c".into()),
        pidfile: Some("/p".into()),
        routers: vec![Host::Name("isatap.example".into()), Host::Addr(v4("192.0.2.9"))],
    };
    let text = "Workers 7\nLane uring\nUser nobody\nChrootDir /x\nPidFile /y\nServerAddress 192.0.2.9";
    let settings = load_with(text, &overrides, &Fake::default()).unwrap();
    assert_eq!(
        (settings.workers, settings.lane, settings.user.uid),
        (2, LaneChoice::Syscall, 990)
    );
    assert_eq!(
        (settings.chroot_dir.as_path(), settings.pidfile.as_path()),
        (Path::new("/c"), Path::new("/p"))
    );
    assert_eq!(settings.server_names, ["192.0.2.9", "isatap.example"]);
    assert_eq!(
        settings.servers,
        [v4("192.0.2.9"), v4("192.0.2.1"), v4("192.0.2.2")]
    );

    let root = Overrides {
        user: Some("root".into()),
        routers: vec![Host::Name("nowhere".into())],
        ..Overrides::default()
    };
    let error = load_with("", &root, &Fake::default()).unwrap_err();
    let expected = "\
command line: ROUTER: the name \"nowhere\" cannot be resolved: Name or service not known
command line: --user: the user \"root\" is root or in its group; choose an account without privileges";
    assert_eq!(error.to_string(), expected);
    assert_eq!(error.status(), ExitStatus::Config);
}

#[test]
fn a_lane_that_is_not_there_has_its_own_status() {
    let ebpf = Overrides {
        lane: Some(LaneText::Ebpf),
        ..Overrides::default()
    };
    let error = load_with("", &ebpf, &Fake::default()).unwrap_err();
    assert_eq!(error.status(), ExitStatus::Unavailable);
    let expected =
        "command line: --lane: the ebpf lane is not built into this version; choose auto, uring or syscall";
    assert_eq!(error.to_string(), expected);
    assert_eq!(
        load_with("User root", &ebpf, &Fake::default())
            .unwrap_err()
            .status(),
        ExitStatus::Config
    );
}

#[test]
fn what_is_printed_can_be_read_again() {
    let text = "ServerAddress isatap.example\nTtl inherit\nDscp inherit\nEcn compat\nSiteNetwork any 10.0.0.0/8\n\
                DefaultRoute no\nMetricsListen off\nControlSocket /x netops 600\nPrlRefreshInterval infinite\n";
    for text in ["", text] {
        let settings = load(text);
        assert_eq!(load(&settings.to_string()), settings);
    }
}

#[test]
fn the_example_file_names_everything_and_its_values_are_right() {
    let example = include_str!("../../isatapd.conf");
    let defaults = load("");
    assert_eq!(load(example), defaults);
    let mut named = Vec::new();
    for line in example.lines() {
        assert!(line.is_empty() || line.starts_with('#'), "not commented: {line}");
        let Some(body) = line
            .strip_prefix('#')
            .filter(|body| body.starts_with(char::is_alphabetic))
        else {
            continue;
        };
        let key = Key::from_text(body.split_whitespace().next().unwrap())
            .unwrap_or_else(|| panic!("unknown: {line}"));
        assert!(!named.contains(&key), "twice: {line}");
        named.push(key);
        match parse(body) {
            // What the file shows as a default is the default.
            Ok(_)
                if !matches!(
                    key,
                    Key::ServerAddress | Key::PeerRouter | Key::Workers | Key::ControlSocket
                ) =>
            {
                assert_eq!(load(body), defaults, "{line}");
            }
            Ok(_) => {}
            Err(wrong) => assert!(
                wrong
                    .iter()
                    .all(|why| why.contains("not available in this version")),
                "{wrong:?}"
            ),
        }
    }
    named.sort();
    assert_eq!(named, Key::ALL);
}

/// For every name with a function: a file that differs from the default in this name only.
const CHANGES: &[(Key, &str)] = &[
    (Key::InterfaceName, "InterfaceName is9"),
    (Key::BindAddress, "BindAddress 10.0.0.77"),
    (Key::ServerAddress, "ServerAddress 192.0.2.1"),
    (Key::SyslogFacility, "SyslogFacility local0"),
    (Key::LogLevel, "LogLevel debug"),
    (Key::Workers, "Workers 9"),
    (Key::Lane, "Lane syscall"),
    (Key::Mtu, "Mtu 1400"),
    (Key::Ttl, "Ttl inherit"),
    (Key::Dscp, "Dscp inherit"),
    (Key::Ecn, "Ecn compat"),
    (Key::PrlRefreshInterval, "PrlRefreshInterval 7"),
    (Key::MinRouterSolicitInterval, "MinRouterSolicitInterval 7"),
    (Key::SiteNetwork, "SiteNetwork any"),
    (Key::PeerRouter, "PeerRouter 192.0.2.2"),
    (Key::NestedTunnels, "NestedTunnels yes"),
    (Key::StrictIngress, "StrictIngress no"),
    (Key::DefaultRoute, "DefaultRoute no"),
    (Key::MetricsListen, "MetricsListen off"),
    (Key::ControlSocket, "ControlSocket /run/other.sock"),
    (Key::User, "User isatap"),
    (Key::ChrootDir, "ChrootDir /srv/empty"),
    (Key::PidFile, "PidFile /run/other.pid"),
];

#[test]
fn a_reload_changes_what_changed_and_nothing_else() {
    let old = load("");
    assert!(plan(&old, &old).is_empty());
    for (key, text) in CHANGES {
        let new = load(text);
        let plan = plan(&old, &new);
        let keys =
            |changes: &[super::reload::Change]| changes.iter().map(|change| change.key).collect::<Vec<_>>();
        match key.reload() {
            Reload::Live => {
                assert_eq!(
                    (keys(&plan.live), keys(&plan.restart)),
                    (vec![*key], vec![]),
                    "{text}"
                );
                assert_eq!(plan.settings, new, "{text}");
            }
            Reload::Restart => {
                assert_eq!(
                    (keys(&plan.live), keys(&plan.restart)),
                    (vec![], vec![*key]),
                    "{text}"
                );
                assert_eq!(plan.settings, old, "{text}");
            }
        }
    }
    let tested: Vec<_> = CHANGES.iter().map(|(key, _)| *key).collect();
    let untested: Vec<_> = Key::ALL.iter().filter(|key| !tested.contains(key)).collect();
    // What is left has no function yet and so nothing to change: its default is refused or no part of the settings.
    assert!(
        untested.iter().all(|key| old.value_of(**key).is_empty()),
        "{untested:?}"
    );
}

#[test]
fn a_change_says_from_what_to_what() {
    let plan = plan(&load("Mtu 1400"), &load("ServerAddress isatap.example"));
    let texts: Vec<_> = plan
        .live
        .iter()
        .map(|change| format!("{}: {} -> {}", change.key, change.old, change.new))
        .collect();
    assert_eq!(texts, ["ServerAddress:  -> isatap.example", "Mtu: 1400 -> 1280"]);
}

#[test]
fn a_router_that_moved_is_a_change() {
    let mut moved = Fake::default();
    moved.names.insert("isatap.example", vec![v4("192.0.2.200")]);
    let text = "ServerAddress isatap.example";
    let plan = plan(
        &load(text),
        &load_with(text, &Overrides::default(), &moved).unwrap(),
    );
    assert_eq!(
        plan.live.iter().map(|change| change.key).collect::<Vec<_>>(),
        [Key::ServerAddress]
    );
}

/// Inside the chroot nobody answers; what was known before the change of root is still known. FAULTS 62.
#[test]
fn a_reload_inside_the_chroot_keeps_what_it_knew() {
    #[derive(Debug)]
    struct Gone(std::cell::Cell<bool>);
    impl Machine for Gone {
        fn resolve(&self, name: &str) -> Result<Vec<Ipv4Addr>, String> {
            if self.0.get() {
                Err("no resolver here".into())
            } else {
                Fake::default().resolve(name)
            }
        }
        fn addresses(&self) -> Result<Vec<Candidate>, String> {
            Fake::default().addresses()
        }
        fn source_towards(&self, _: Ipv4Addr) -> Option<Ipv4Addr> {
            None
        }
        fn user(&self, name: &str) -> Result<Option<User>, String> {
            if self.0.get() {
                Ok(None)
            } else {
                Fake::default().user(name)
            }
        }
        fn group(&self, name: &str) -> Result<Option<u32>, String> {
            if self.0.get() {
                Ok(None)
            } else {
                Fake::default().group(name)
            }
        }
        fn usable_cores(&self) -> usize {
            1
        }
    }
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("isatapd.conf");
    let write = |text: &str| std::fs::write(&path, text).unwrap();
    write("ServerAddress isatap.example\nControlSocket /x netops\n");
    let loader = Loader {
        source: source::ConfigSource::open(Some(&path)).unwrap(),
        overrides: Overrides::default(),
        machine: Remembering::new(Gone(false.into())),
    };
    let before = loader.load().unwrap().settings;
    loader.machine.inner().0.set(true);
    assert_eq!(loader.load().unwrap().settings, before);
    write("Mtu 1400\nServerAddress isatap.example\nControlSocket /x netops\n");
    assert_eq!(loader.load().unwrap().settings.mtu, 1400);
    write("User isatap\n");
    let error = loader.load().unwrap_err().to_string();
    let expected = ":1:6: the user \"isatap\" cannot be looked up: accounts are looked up at start only; restart to use another";
    assert!(error.ends_with(expected), "{error}");
    write("ServerAddress isatap.example mixed.example\n");
    let error = loader.load().unwrap_err().to_string();
    assert!(
        error.ends_with(":1:30: the name \"mixed.example\" cannot be resolved: no resolver here"),
        "{error}"
    );
}

proptest! {
    /// FAULTS 63: any bytes give settings or messages, never a panic; each message has a place and prints in one line.
    #[test]
    fn any_bytes_are_read(bytes in proptest::collection::vec(any::<u8>(), 0..2000)) {
        check_bytes(&bytes);
    }

    /// The same with bytes that look like a configuration, so that the values are reached too.
    #[test]
    fn any_words_are_read(lines in proptest::collection::vec(config_line(), 0..20)) {
        check_bytes(lines.join("\n").as_bytes());
    }
}

fn check_bytes(bytes: &[u8]) {
    match file::parse(&"f".into(), bytes) {
        Ok(file) => drop(resolve(file, &Overrides::default(), None, &Fake::default())),
        Err(wrong) => {
            assert!(!wrong.is_empty());
            for diagnostic in wrong {
                let text = diagnostic.to_string();
                assert!(text.starts_with("f:"), "{text}");
                assert!(!text.contains(char::is_control), "{text:?}");
            }
        }
    }
}

fn config_line() -> impl Strategy<Value = String> {
    let key = proptest::sample::select(Key::ALL);
    let word = prop_oneof![
        "[ -~]{0,12}",
        "\\PC{0,8}",
        proptest::sample::select(vec![
            "auto",
            "yes",
            "no",
            "metric",
            "lifetime",
            "valid",
            "preferred",
            "for",
            "on-link",
            "any",
            "10.0.0.0/8",
            "2001:db8::/64",
            "inherit",
            "4294967295",
            "/run/x",
            ",",
            "#",
            "\u{1b}",
            "\0",
            "dynamic",
            "compat",
        ])
        .prop_map(str::to_owned),
    ];
    (key, proptest::collection::vec(word, 0..5)).prop_map(|(key, words)| format!("{key} {}", words.join(" ")))
}
