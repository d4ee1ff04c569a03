//! What one process leaves to the next comes to the same settings, whatever has become of file, names and accounts.

use super::*;
use crate::config::kept::Kept;

/// A machine of which nothing can be learnt any more.
fn barren() -> Fake {
    Fake {
        names: HashMap::new(),
        addresses: Vec::new(),
        source: None,
    }
}

fn loader(text: &str, machine: Fake) -> (tempfile::TempDir, Loader<Fake>) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("isatapd.conf");
    std::fs::write(&path, text).unwrap();
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
    let loader = Loader {
        source: source::ConfigSource::open(Some(&path)).unwrap(),
        overrides: Overrides {
            workers: Some(2),
            routers: Vec::new(),
            ..Overrides::default()
        },
        machine: Remembering::new(machine),
    };
    (dir, loader)
}

#[test]
fn a_successor_comes_to_the_same_settings() {
    let texts = [
        "",
        "BindAddress ourselves.example\nUser isatap\nControlSocket /run/x netops 0640\n",
        "ServerAddress isatap.example 192.0.2.9\nLogLevel debug\nDefaultRoute no\nEcn compat 10.1.0.0/16\n",
        "PeerRouter mixed.example 10.0.0.7\nMtu 1400\nPathMtu dynamic\nPathMtu static 10.2.0.0/16\nTtl inherit\n\
         SiteNetwork private 192.0.2.0/24\nMetricsListen off\nLane syscall\nNestedTunnels yes\n\
         Advertise yes\nAdvertisePrefix 2001:db8:1::/64 on-link\nAdvertiseRoute 2001:db8:2::/48\n\
         AdvertiseDns 2001:db8::53\nAdvertiseSearch example.net\nRouterLifetime 900\nRouterPreference high\n",
    ];
    for text in texts {
        let (_dir, first) = loader(text, Fake::default());
        let settings = first.load().unwrap().settings;
        let bytes = first.keep(&settings).encode();

        let (dir, second) = loader("this is not even a configuration\n", barren());
        std::fs::remove_file(dir.path().join("isatapd.conf")).unwrap();
        let taken = second.load_kept(&Kept::decode(&bytes).unwrap()).unwrap();
        let expected = Settings {
            config_path: None,
            ..settings
        };
        assert_eq!(taken, expected, "{text}");
    }
}

/// A reload of the successor finds the names and accounts that only its predecessor could look up.
#[test]
fn what_was_looked_up_is_remembered_further() {
    let text = "BindAddress ourselves.example\nUser isatap\n";
    let (_dir, first) = loader(text, Fake::default());
    let settings = first.load().unwrap().settings;
    let (_dir, second) = loader(
        &format!("{text}Ttl 9\n"),
        Fake {
            addresses: vec![("10.0.0.1", "eth0")],
            ..barren()
        },
    );
    let kept = first.keep(&settings);
    let old = second.load_kept(&kept).unwrap();
    let new = second.load().unwrap().settings;
    let plan = plan(&old, &new);
    assert_eq!(plan.restart, []);
    assert_eq!(
        plan.live.iter().map(|change| change.key).collect::<Vec<_>>(),
        [Key::Ttl]
    );
}

#[test]
fn bytes_that_are_none_are_refused() {
    for bytes in [
        &b""[..],
        b"{}",
        b"null",
        b"\xff",
        br#"{"locator":"x","lines":"","memory":{}}"#,
    ] {
        assert!(Kept::decode(bytes).is_err(), "{bytes:?}");
    }
}
