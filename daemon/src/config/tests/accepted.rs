//! What a file may say, and what it means: defaults, the old program's file, every new name.

use super::*;

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
PathMtu static
Ttl 64
Dscp 0
Ecn normal
PrlRefreshInterval 3600
MinRouterSolicitInterval 120
SiteNetwork private
NestedTunnels no
StrictIngress yes
LoopChecks yes
Advertise no
RouterLifetime 1800
RouterPreference medium
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
    assert!(settings.servers.is_empty());
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
PathMtu dynamic 10.0.0.0/8
Ttl inherit
Dscp 46
Ecn compat
Ecn normal 10.1.0.0/16
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
SandboxWaive ring, seccomp
SandboxWaive ring
";
    let settings = load(text);
    assert_eq!(settings.servers, [v4("192.0.2.7"), v4("192.0.2.1")]);
    assert_eq!(settings.server_names, ["isatap.example"]);
    assert_eq!(
        (settings.workers, settings.lane, settings.mtu),
        (8, Lane::Uring, 1480)
    );
    assert_eq!(
        (settings.ttl, settings.dscp),
        (TtlPolicy::Inherit, DscpPolicy::Fixed(46))
    );
    let modes = |peer| (settings.ecn.of(v4(peer)), settings.path_mtu.of(v4(peer)));
    assert_eq!(modes("192.0.2.1"), (EcnMode::Compat, PathMtuMode::Static));
    assert_eq!(modes("10.2.0.1"), (EcnMode::Compat, PathMtuMode::Dynamic));
    assert_eq!(modes("10.1.0.1"), (EcnMode::Normal, PathMtuMode::Dynamic));
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
    assert_eq!(settings.sandbox_waive, [Layer::Seccomp, Layer::Ring]);
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
fn what_is_printed_can_be_read_again() {
    let text = "ServerAddress isatap.example\nTtl inherit\nDscp inherit\nEcn compat\nSiteNetwork any 10.0.0.0/8\n\
                DefaultRoute no\nSandboxWaive ring landlock seccomp\nMetricsListen off\nControlSocket /x netops 600\nPrlRefreshInterval infinite\n";
    let router = "Advertise yes\nAdvertisePrefix 2001:db8:1:2::/64 on-link preferred 60 for 10.1.0.0/16\n\
                  AdvertisePrefix 2001:db8:1:3::/64 valid infinity\nAdvertiseRoute ::/0 preference low\n\
                  AdvertiseRoute 2001:db8::/32 lifetime 7\nAdvertiseDns 2001:db8::53, 2001:db8::54 lifetime 9\n\
                  AdvertiseSearch example.org example.net.\nAdvertiseMtu 1300\nRouterLifetime 0\n\
                  RouterPreference high\nPathMtu dynamic\nPathMtu static 10.0.0.0/8\nEcn compat 10.1.0.0/16\n";
    for text in ["", text, router] {
        let settings = load(text);
        assert_eq!(load(&settings.to_string()), settings, "{settings}");
    }
}

#[test]
fn the_example_file_names_everything_and_its_values_are_right() {
    let example = include_str!("../../../isatapd.conf");
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
            Ok(_) if key.has_default() => assert_eq!(load(body), defaults, "{line}"),
            Ok(_) => {}
            Err(wrong) => panic!("{wrong:?}"),
        }
    }
    named.sort();
    assert_eq!(named, Key::ALL);
}

/// FAULTS 63: a list that is too long for one line is written down in several, and read again as the same.
#[test]
fn long_lists_are_written_in_several_lines() {
    let networks: Vec<_> = (0..1000)
        .map(|n| format!("SiteNetwork 10.{}.{}.0/24\n", n / 250, n % 250))
        .collect();
    let names: Vec<_> = (0..64)
        .map(|n| format!("ServerAddress {}.{n}.example\n", "a".repeat(60)))
        .collect();
    let settings = load(&(networks.concat() + &names.concat()));
    let text = settings.to_string();
    let lines = |name| text.lines().filter(|line| line.starts_with(name)).count();
    assert_eq!((lines("SiteNetwork "), lines("ServerAddress ")), (14, 5));
    assert!(text.lines().all(|line| line.len() <= 1056), "{text}");
    assert_eq!(load(&text), settings);
}
