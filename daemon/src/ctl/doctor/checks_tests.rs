//! Each trap is found when it is there, and only then.

use super::*;
use crate::ctl::doctor::sight::{NeighbourTable, Tools, neighbour_table};
use crate::ops::status::tests::{example, with_programs};
use crate::ops::status::{ErrorStatus, LayerStatus, SettingStatus};

/// A host in good order.
fn host() -> Sight {
    let mut status = example();
    status.kernel_drops.clear();
    Sight {
        status: Ok(status),
        tun: Ok(()),
        uring: Ok("6.18".to_owned()),
        ebpf: None,
        modules: "tun 65536 2 - Live 0x0\n".to_owned(),
        raw_sockets: "  sl  local_address rem_address\n".to_owned()
            + &"   1: 0100000A:0029 00000000:0000 07\n".repeat(5)
            + "   2: 00000000:0001 00000000:0000 07\n",
        ipv6_addresses: "fe8000000000000000005efe0a000005 03 40 20 80      is0\n".to_owned(),
        forwarding: Some("0".to_owned()),
        rp_filter: vec![("all".to_owned(), "0".to_owned())],
        radvd: None,
        tools: Tools {
            sit_links: Ok(String::new()),
            addresses: Ok(
                "2: eth0    inet 10.0.0.5/24 brd 10.0.0.255 scope global eth0\\ valid_lft forever\n"
                    .to_owned(),
            ),
            links: Ok("2: eth0@if7: <BROADCAST,UP> mtu 1500 qdisc noqueue state UP\n".to_owned()),
            ruleset: Ok(String::new()),
            features: Ok("generic-receive-offload: on\nrx-udp-gro-forwarding: off\n".to_owned()),
            hardware: vec![(
                "eth0".to_owned(),
                "tx-ipxip4-segmentation: off [fixed]\n".to_owned(),
            )],
        },
        capabilities_missing: Vec::new(),
        clock_is_plausible: true,
        memlock: None,
        missing_layers: Vec::new(),
        neighbours: Some(NeighbourTable {
            entries: 818,
            limit: 1024,
            refused: 0,
        }),
    }
}

/// A router in good order, with radvd.
fn router_with_radvd() -> Sight {
    let mut sight = host();
    if let Ok(status) = &mut sight.status {
        status.role = "router".to_owned();
        status.routers.clear();
        status
            .interface
            .addresses
            .push("2001:db8:1::5efe:10.0.0.5/64".to_owned());
    }
    sight.forwarding = Some("1".to_owned());
    sight.radvd = Some(include_str!("../../../packaging/radvd.conf.snippet").to_owned());
    sight
}

fn status(sight: &mut Sight) -> &mut Status {
    sight.status.as_mut().unwrap()
}

/// The finding about `subject`.
fn about(sight: &Sight, subject: &str) -> Finding {
    let findings = all(sight);
    let finding = findings.into_iter().find(|finding| finding.subject == subject);
    finding.unwrap_or_else(|| panic!("nothing about {subject}"))
}

#[test]
fn a_machine_in_good_order_has_nothing_against_it() {
    for sight in [host(), router_with_radvd()] {
        let worst = all(&sight)
            .into_iter()
            .max_by_key(|finding| finding.grade)
            .unwrap();
        assert_eq!(worst.grade, Grade::Fine, "{worst:?}");
    }
}

#[test]
fn every_trap_is_found_with_a_remedy() {
    type Spoil = fn(&mut Sight);
    let host_traps: [(&str, Grade, Spoil); 28] = [
        ("daemon", Grade::Obstacle, |s| s.status = Err("no daemon".into())),
        ("engine", Grade::Warning, |s| {
            let restarts = &mut status(s).control.engine_restarts;
            restarts.insert("panic".into(), 1);
        }),
        ("ready", Grade::Obstacle, |s| {
            status(s).ready = false;
            status(s).not_ready = vec!["no router".into()];
        }),
        ("/dev/net/tun", Grade::Obstacle, |s| {
            s.status = Err("no daemon".into());
            s.tun = Err("No such file or directory".into());
        }),
        ("io_uring", Grade::Warning, |s| s.uring = Err("disabled".into())),
        ("ebpf lane", Grade::Note, |s| {
            s.status = Err("no daemon".into());
            s.ebpf = Some(Err("not built in".into()));
        }),
        ("ebpf lane", Grade::Note, |s| {
            *status(s) = with_programs();
            status(s).programs.obstacles = vec!["there are IPsec policies".into()];
        }),
        ("locked memory", Grade::Note, |s| s.memlock = Some(65536)),
        ("neighbours", Grade::Warning, |s| {
            s.neighbours.as_mut().unwrap().entries = 820;
        }),
        ("neighbours", Grade::Note, |s| {
            s.neighbours.as_mut().unwrap().refused = 1;
        }),
        ("kernel tunnels", Grade::Warning, |s| {
            s.modules = "sit 1 0 - Live\n".into()
        }),
        ("kernel tunnels", Grade::Warning, |s| {
            s.tools.sit_links = Ok("4: sit1@NONE: <NOARP> mtu 1480\n".into());
        }),
        ("protocol 41", Grade::Warning, |s| {
            s.raw_sockets += "   9: 00000000:0029 00000000:0000 07\n";
        }),
        ("locator", Grade::Obstacle, |s| {
            status(s).locator.shared_with.push("is1".into());
        }),
        ("rp_filter", Grade::Note, |s| {
            s.rp_filter.push(("eth0".into(), "1".into()))
        }),
        ("MTU", Grade::Warning, |s| {
            s.tools.links = Ok("2: eth0: <UP> mtu 1280 qdisc x\n".into());
        }),
        ("GRO", Grade::Warning, |s| {
            status(s).total.decap.drops.insert("merged".into(), 7);
        }),
        ("firewall", Grade::Obstacle, |s| {
            status(s).workers[0].errors.push(ErrorStatus {
                operation: "raw_send".into(),
                errno: 1,
                message: String::new(),
                count: 3,
            });
        }),
        ("firewall", Grade::Warning, |s| {
            s.tools.ruleset = Ok("chain f { ip protocol ipv6 drop }\n".into());
        }),
        ("firewall", Grade::Warning, |s| {
            s.tools.ruleset =
                Ok("type filter hook input priority filter; policy drop;\n tcp dport 22 accept\n".into());
        }),
        ("capabilities", Grade::Obstacle, |s| {
            s.status = Err("no daemon".into());
            s.capabilities_missing.push("CAP_NET_RAW".into());
        }),
        ("clock", Grade::Warning, |s| s.clock_is_plausible = false),
        ("NAT", Grade::Warning, |s| {
            status(s).locator.address = [192, 168, 1, 7].into();
            status(s).routers[0].address = [8, 8, 8, 8].into();
        }),
        ("NAT", Grade::Note, |s| {
            s.tools.ruleset = Ok("oifname \"eth0\" masquerade\n".into());
        }),
        ("kernel's drops", Grade::Note, |s| {
            status(s).kernel_drops.insert("0".into(), 9);
        }),
        ("sending", Grade::Note, |s| status(s).device_drops = 1),
        ("sending", Grade::Note, |s| {
            status(s).total.encap.drops.insert("send_error".into(), 1);
        }),
        ("sending", Grade::Note, |s| {
            let sent = &mut status(s).control.advertisements_sent;
            sent.insert("failed".into(), 1);
        }),
    ];
    let router_traps: [(&str, Grade, Spoil); 6] = [
        ("segmentation", Grade::Note, |s| {
            status(s).programs.carries.decap = true;
            s.tools.hardware[0].1 = "tx-ipxip4-segmentation: on\n".into();
        }),
        ("forwarding", Grade::Obstacle, |s| s.forwarding = Some("0".into())),
        ("forwarding", Grade::Obstacle, |s| s.forwarding = None),
        ("router's address", Grade::Warning, |s| {
            status(s).interface.addresses.truncate(1)
        }),
        ("advertisements", Grade::Warning, |s| s.radvd = None),
        ("advertisements", Grade::Note, |s| {
            s.radvd = s
                .radvd
                .take()
                .map(|text| text.replace("UnicastOnly on;", "# UnicastOnly on;"));
        }),
    ];
    let of = |make: fn() -> Sight, traps: &[(&str, Grade, Spoil)]| {
        for (subject, grade, spoil) in traps {
            let mut sight = make();
            spoil(&mut sight);
            let finding = about(&sight, subject);
            assert_eq!(finding.grade, *grade, "{finding:?}");
            assert!(!finding.remedy.is_empty(), "{finding:?}");
        }
    };
    of(host, &host_traps);
    of(router_with_radvd, &router_traps);
}

#[test]
fn what_cannot_be_looked_at_is_a_note() {
    let mut sight = host();
    sight.tools.ruleset = Err("nft list ruleset: Operation not permitted".into());
    assert_eq!(about(&sight, "firewall").grade, Grade::Note);
    sight.tun = Err("Permission denied".into());
    assert_eq!(
        about(&sight, "/dev/net/tun").grade,
        Grade::Note,
        "the daemon has it"
    );
}

#[test]
fn the_daemons_own_advertisements_need_no_radvd() {
    let mut sight = router_with_radvd();
    sight.radvd = None;
    status(&mut sight).configuration.push(SettingStatus {
        name: "Advertise".into(),
        value: "yes".into(),
    });
    assert_eq!(about(&sight, "advertisements").grade, Grade::Fine);
}

/// FAULTS 36: a daemon for another address has sockets of its own, which do no harm.
#[test]
fn the_sockets_of_another_tunnel_are_no_warning() {
    let mut sight = host();
    sight.raw_sockets += "   9: 00000000:0029 00000000:0000 07\n";
    sight.ipv6_addresses += "fe8000000000000000005efe0a010001 04 40 20 80      is1\n";
    let finding = about(&sight, "protocol 41");
    assert_eq!(finding.grade, Grade::Fine);
    assert_eq!(
        finding.found,
        "1 socket(s) for protocol 41 that are not this daemon's: of the tunnel interface is1"
    );
    sight.status = Err("no daemon".to_owned());
    assert_eq!(about(&sight, "protocol 41").grade, Grade::Fine);
}

#[test]
fn sections_of_radvd_conf() {
    let text = "interface eth0 { UnicastOnly on; };\ninterface \"is0\"\n{ # UnicastOnly on;\n prefix x { A on; };\n AdvSendAdvert on;\n};\ninterface b{};";
    let section = section_of(text, "is0").unwrap();
    assert!(has_option(&section, "AdvSendAdvert", "on"));
    assert!(!has_option(&section, "UnicastOnly", "on"));
    assert!(section_of(text, "is1").is_none() && section_of(text, "b").is_some());
}

#[test]
fn no_mtu_is_advised_that_cannot_be_set() {
    let advised = |mtu: u32| {
        let mut sight = host();
        sight.tools.links = Ok(format!("2: eth0: <UP> mtu {mtu} qdisc x\n"));
        status(&mut sight).interface.tunnel_mtu = 1480;
        about(&sight, "MTU").remedy
    };
    assert_eq!(advised(1400), "Mtu 1380, or a larger MTU of eth0");
    assert_eq!(advised(1299), "a larger MTU of eth0: no Mtu is below 1280");
}

/// FAULTS 71.
#[test]
fn a_sandbox_with_holes_is_named() {
    let layer = |name: &str, waived| LayerStatus {
        name: name.to_owned(),
        waived,
        detail: "version 7".to_owned(),
    };
    let mut sight = host();
    status(&mut sight).sandbox.layers = vec![layer("landlock", false), layer("seccomp", false)];
    let finding = about(&sight, "sandbox");
    assert_eq!(finding.grade, Grade::Fine);
    assert_eq!(finding.found, "landlock (version 7), seccomp (version 7)");
    status(&mut sight).sandbox.layers[1].waived = true;
    let finding = about(&sight, "sandbox");
    assert_eq!(
        (finding.grade, finding.found.as_str()),
        (Grade::Warning, "without seccomp")
    );

    sight.status = Err("no daemon".to_owned());
    sight.missing_layers = vec![("landlock", "this kernel has no Landlock".to_owned())];
    let finding = about(&sight, "sandbox");
    assert_eq!(finding.grade, Grade::Obstacle);
    assert!(finding.remedy.contains("SandboxWaive landlock"), "{finding:?}");
}

#[test]
fn the_ebpf_lane_says_how_it_is() {
    let mut sight = host();
    assert!(all(&sight).iter().all(|finding| finding.subject != "ebpf lane"));
    *status(&mut sight) = with_programs();
    let finding = about(&sight, "ebpf lane");
    assert_eq!(
        (finding.grade, finding.found.as_str()),
        (Grade::Fine, "the programs carry both directions, at eth0")
    );
    sight.status = Err("no daemon".to_owned());
    sight.ebpf = Some(Ok("both directions, by TCX".to_owned()));
    assert_eq!(about(&sight, "ebpf lane").grade, Grade::Fine);
}

#[test]
fn the_table_of_neighbours_is_read_as_the_kernel_writes_it() {
    let counts = "entries  allocs   destroys hash_grows forced_gc_runs unresolved_discards table_fulls\n\
        00000400 0000039f 0000038e 00000002 00000000       00000000            0000000a\n\
        00000400 0000038c 00000389 00000000 00000000       00000000            00000002\n";
    let read = neighbour_table(Some(counts), Some("1024\n"));
    let full = NeighbourTable {
        entries: 1024,
        limit: 1024,
        refused: 12,
    };
    assert_eq!(read, Some(full));
    assert_eq!(neighbour_table(None, Some("1024\n")), None, "another namespace");
    for odd in [
        "",
        "entries table_fulls\n",
        "entries table_fulls\nx y\n",
        "entries\n1\n",
    ] {
        assert_eq!(neighbour_table(Some(odd), Some("1024\n")), None, "{odd:?}");
    }
}
