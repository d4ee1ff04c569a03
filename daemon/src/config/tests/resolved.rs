//! From text to settings of this machine: our own address, routers, the command line, the lane.

use super::*;

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
    // A name is known later; until then one of several will do, and the way to everywhere says which is likely.
    let name = "ServerAddress nowhere";
    assert_eq!(bind(name, &both), Ok(Bind::Auto(v4("10.0.0.1"))));
    assert_eq!(bind(name, &towards), Ok(Bind::Auto(v4("192.0.2.9"))));
    assert_eq!(bind(name, &only_local), Ok(Bind::Auto(v4("169.254.1.1"))));
    assert_eq!(bind(name, &none), Err(nothing.into()));
}

#[test]
fn routers_are_filtered_and_counted_once() {
    let settings =
        load("ServerAddress mixed.example 192.0.2.3 10.0.0.1 isatap.example 192.0.2.3 Mixed.Example");
    assert_eq!(settings.servers, [v4("192.0.2.3")]);
    assert_eq!(settings.server_names, ["mixed.example", "isatap.example"]);
    let peers = load("PeerRouter mixed.example 192.0.2.3 10.0.0.1 isatap.example").peer_routers;
    assert_eq!(peers, [v4("192.0.2.3"), v4("192.0.2.1"), v4("192.0.2.2")]);
    let many: Vec<_> = (1..=100).map(|last| format!("192.0.2.{last}")).collect();
    assert_eq!(
        load(&format!("ServerAddress {}", many.join(","))).servers.len(),
        crate::config::resolved::MAX_SERVERS
    );
}

#[test]
fn the_command_line_wins_and_routers_add_up() {
    let overrides = Overrides {
        workers: Some(2),
        lane: Some(Lane::Syscall),
        user: Some("isatap".into()),
        chroot_dir: Some("/c".into()),
        pidfile: Some("/p".into()),
        routers: vec![Host::Name("isatap.example".into()), Host::Addr(v4("192.0.2.9"))],
    };
    let text = "Workers 7\nLane uring\nUser nobody\nChrootDir /x\nPidFile /y\nServerAddress 192.0.2.9";
    let settings = load_with(text, &overrides, &Fake::default()).unwrap();
    assert_eq!(
        (settings.workers, settings.lane, settings.user.uid),
        (2, Lane::Syscall, 990)
    );
    assert_eq!(
        (settings.chroot_dir.as_path(), settings.pidfile.as_path()),
        (Path::new("/c"), Path::new("/p"))
    );
    assert_eq!(settings.server_names, ["isatap.example"]);
    assert_eq!(settings.servers, [v4("192.0.2.9")]);
    assert_eq!(
        settings.lines_of(Key::ServerAddress),
        ["192.0.2.9 isatap.example"]
    );

    let root = Overrides {
        user: Some("root".into()),
        routers: vec![Host::Addr(v4("127.0.0.1"))],
        ..Overrides::default()
    };
    let error = load_with("", &root, &Fake::default()).unwrap_err();
    let expected = "\
command line: ROUTER: 127.0.0.1 is not the address of a host; a unicast one is expected
command line: --user: the user \"root\" is root or in its group; choose an account without privileges";
    assert_eq!(error.to_string(), expected);
    assert_eq!(error.status(), ExitStatus::Config);
}

/// A name must not keep a machine that boots from starting, nor one that is our own today from being somebody's later.
#[test]
fn names_of_servers_are_not_looked_up() {
    for name in ["nowhere", "bad.example", "empty.example", "ourselves.example"] {
        let settings = load(&format!("ServerAddress {name}"));
        assert_eq!((settings.role, settings.servers.len()), (Role::Host, 0));
        assert_eq!(settings.server_names, [name]);
    }
    let settings = load("ServerAddress 10.0.0.1 isatap.example");
    assert!(settings.servers.is_empty(), "our own address");
    let many: Vec<_> = (0..100).map(|number| format!("n{number}.example")).collect();
    assert_eq!(
        load(&format!("ServerAddress {}", many.join(",")))
            .server_names
            .len(),
        crate::config::resolved::MAX_SERVERS
    );
}
