//! Reloads: which differences are applied, said, or kept for a restart; and any bytes at all.

use super::*;

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
    (Key::PathMtu, "PathMtu dynamic 10.0.0.0/8"),
    (Key::Ecn, "Ecn compat"),
    (Key::PrlRefreshInterval, "PrlRefreshInterval 7"),
    (Key::MinRouterSolicitInterval, "MinRouterSolicitInterval 7"),
    (Key::SiteNetwork, "SiteNetwork any"),
    (Key::PeerRouter, "PeerRouter 192.0.2.2"),
    (Key::NestedTunnels, "NestedTunnels yes"),
    (Key::StrictIngress, "StrictIngress no"),
    (Key::LoopChecks, "LoopChecks no"),
    (Key::Advertise, "Advertise yes"),
    (Key::AdvertisePrefix, "AdvertisePrefix 2001:db8::/64"),
    (Key::AdvertiseRoute, "AdvertiseRoute 2001:db8::/32"),
    (Key::AdvertiseDns, "AdvertiseDns 2001:db8::53"),
    (Key::AdvertiseSearch, "AdvertiseSearch example.org"),
    (Key::AdvertiseMtu, "AdvertiseMtu 1300"),
    (Key::RouterLifetime, "RouterLifetime 0"),
    (Key::RouterPreference, "RouterPreference high"),
    (Key::DefaultRoute, "DefaultRoute no"),
    (Key::MetricsListen, "MetricsListen off"),
    (Key::ControlSocket, "ControlSocket /run/other.sock"),
    (Key::User, "User isatap"),
    (Key::ChrootDir, "ChrootDir /srv/empty"),
    (Key::PidFile, "PidFile /run/other.pid"),
    (Key::SandboxWaive, "SandboxWaive landlock"),
];

#[test]
fn a_reload_changes_what_changed_and_nothing_else() {
    let old = load("");
    assert!(plan(&old, &old).is_empty());
    for (key, text) in CHANGES {
        let new = load(text);
        let plan = plan(&old, &new);
        let keys = |changes: &[crate::config::reload::Change]| {
            changes.iter().map(|change| change.key).collect::<Vec<_>>()
        };
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
    assert!(untested.is_empty(), "{untested:?}");
}

#[test]
fn a_change_says_from_what_to_what() {
    let plan = plan(&load("Mtu 1400"), &load("ServerAddress isatap.example"));
    assert_eq!(
        told(&plan),
        ["ServerAddress: none -> isatap.example", "Mtu: 1400 -> 1280"]
    );
}

/// The machine has another address than when the file was read: for a tunnel that follows it that is no change of the file.
#[test]
fn an_automatic_address_that_moved_is_no_change() {
    let old = load("");
    let moved = Settings {
        bind: Bind::Auto(Ipv4Addr::new(10, 9, 9, 9)),
        ..old.clone()
    };
    assert!(old.bind.is_auto() && old.bind != moved.bind);
    assert_eq!(told(&plan(&moved, &old)), Vec::<String>::new());
    let fixed = Settings {
        bind: Bind::Fixed(old.bind.addr()),
        ..old.clone()
    };
    assert_eq!(told(&plan(&fixed, &old)).len(), 1);
}

fn told(plan: &Plan) -> Vec<String> {
    plan.live.iter().map(ToString::to_string).collect()
}

/// FAULTS 61: of a list that fills pages what came and what went is told, in a line that a log takes whole.
#[test]
fn of_a_long_list_the_difference_is_told() {
    let prefixes = |numbers: std::ops::Range<u32>| -> String {
        let line = |number| format!("AdvertisePrefix 2001:db8:{number:x}::/64 for 10.0.{number}.0/24\n");
        numbers.map(line).collect()
    };
    let networks = |numbers: std::ops::Range<u32>| -> String {
        numbers
            .map(|number| format!("SiteNetwork 192.0.{number}.0/24\n"))
            .collect()
    };
    let long = |prefix| format!("2001:db8:{prefix}::/64 valid 2592000 preferred 604800 for 10.0");
    let cases = [
        (
            prefixes(1..101),
            prefixes(1..102),
            format!("AdvertisePrefix: now also {}.101.0/24", long("65")),
        ),
        (
            prefixes(1..101),
            prefixes(2..102),
            format!(
                "AdvertisePrefix: now also {}.101.0/24; no longer {}.1.0/24",
                long("65"),
                long("1")
            ),
        ),
        (
            networks(0..100),
            networks(0..90),
            "SiteNetwork: no longer 192.0.90.0/24, 192.0.91.0/24, 192.0.92.0/24, 192.0.93.0/24 and 6 more"
                .to_owned(),
        ),
        (
            format!("{}{}", prefixes(50..100), prefixes(1..50)),
            prefixes(1..100),
            "AdvertisePrefix: the same in another order".to_owned(),
        ),
    ];
    for (old, new, expected) in cases {
        assert_eq!(told(&plan(&load(&old), &load(&new))), [expected]);
    }
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
    write("PeerRouter isatap.example\nControlSocket /x netops\n");
    let loader = Loader {
        source: source::ConfigSource::open(Some(&path)).unwrap(),
        overrides: Overrides::default(),
        machine: Remembering::new(Gone(false.into())),
    };
    let before = loader.load().unwrap().settings;
    loader.machine.inner().0.set(true);
    assert_eq!(loader.load().unwrap().settings, before);
    write("Mtu 1400\nPeerRouter isatap.example\nControlSocket /x netops\n");
    assert_eq!(loader.load().unwrap().settings.mtu, 1400);
    write("User isatap\n");
    let error = loader.load().unwrap_err().to_string();
    let expected = ":1:6: the user \"isatap\" cannot be looked up: accounts are looked up at start only; restart to use another";
    assert!(error.ends_with(expected), "{error}");
    write("ServerAddress mixed.example\n");
    let settings = loader.load().unwrap().settings;
    assert_eq!(settings.server_names, ["mixed.example"], "looked up elsewhere");
    write("PeerRouter isatap.example mixed.example\n");
    let error = loader.load().unwrap_err().to_string();
    assert!(
        error.ends_with(":1:27: the name \"mixed.example\" cannot be resolved: no resolver here; put it into /etc/hosts, or write its address here"),
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
