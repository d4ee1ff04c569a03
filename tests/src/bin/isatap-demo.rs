//! `make demo`: a router, two hosts and an IPv6-only server in namespaces of this machine; shows ping, a TCP transfer
//! and the counters, and cleans up.
#![forbid(unsafe_code)]

use std::net::{Ipv4Addr, SocketAddrV6};
use std::process::ExitCode;
use std::time::Duration;

use isatap_tests::daemon::{Daemon, TUNNEL};
use isatap_tests::metrics::Direction;
use isatap_tests::netns::Netns;
use isatap_tests::ping::ping_until;
use isatap_tests::radvd::Radvd;
use isatap_tests::scene::{ROUTER, SERVER, Scene, host_v4, on_link, set_address};
use isatap_tests::traffic::tcp_transfer;
use isatap_tests::wait;

const PICTURE: &str = "
            srv   2001:db8:99::2              a server that knows IPv6 only
             |
            rtr   isatapd (router) and radvd  2001:db8:1::/64 on is0
             |    10.0.0.1
   ----------+-----------+---                 the site: IPv4 only
             |           |
            h1          h2                    isatapd 10.0.0.1 (hosts)
            10.0.0.2    10.0.0.3
";

/// For each step; several daemons start at once.
const PATIENCE: Duration = Duration::from_secs(20);
const TCP_BYTES: u64 = 64_000_000;

fn main() -> ExitCode {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("the demo makes network namespaces and needs root: run it with sudo");
        return ExitCode::FAILURE;
    }
    demo();
    ExitCode::SUCCESS
}

fn demo() {
    println!("{PICTURE}");
    let scene = Scene::new(2);
    let [h1, h2] = &scene.hosts[..] else {
        unreachable!("two hosts were asked for")
    };

    step(
        "the router: isatapd with BindAddress 10.0.0.1, an address on is0, and radvd with the shipped snippet",
    );
    let router = Daemon::router(&scene.router, ROUTER).start();
    set_address(&scene.router, ROUTER);
    let radvd = Radvd::start(&scene.router, &Radvd::snippet());

    step("the hosts: isatapd 10.0.0.1; the rest comes by router advertisement");
    let hosts = [(0, h1), (1, h2)].map(|(index, ns)| Daemon::host(ns, host_v4(index), &[ROUTER]).start());
    for (index, ns) in [(0, h1), (1, h2)] {
        wait_configured(ns, host_v4(index));
        shell(ns, &format!("ip -6 -br addr show dev {TUNNEL}"));
        shell(ns, "ip -6 route show default");
    }

    step("ping from h1 to h2, and to the server behind the router");
    for target in [on_link(host_v4(1)), SERVER] {
        ping_until(h1, &target.to_string(), PATIENCE);
        shell(h1, &format!("ping -6 -n -c 3 -i 0.2 {target}"));
    }

    step("TCP from h1 to h2, and to the server; each byte is compared");
    for (name, to, dst) in [("h2", h2, on_link(host_v4(1))), ("srv", &scene.server, SERVER)] {
        match tcp_transfer(h1, to, SocketAddrV6::new(dst, 5001, 0, 0), TCP_BYTES, PATIENCE) {
            Ok(report) => println!("h1 to {name}: {report}"),
            Err(e) => panic!("TCP to {name}: {e}"),
        }
    }

    step("the router's counters: received = delivered + punted + drops, in each direction");
    router.conservation();
    for command in ["status", "drops"] {
        println!("rtr# isatapctl {command}");
        print!("{}", String::from_utf8_lossy(&router.ctl(command).stdout));
    }
    for direction in Direction::ALL {
        println!("{}: {}", direction.label(), router.counters(direction));
    }
    println!("h1# isatapctl routers");
    print!("{}", String::from_utf8_lossy(&hosts[0].ctl("routers").stdout));

    step("the end: daemons, interfaces and namespaces go away");
    drop((hosts, radvd, router));
}

fn step(what: &str) {
    println!("\n== {what}");
}

/// Waits until a host has its address and a default route.
fn wait_configured(ns: &Netns, v4: Ipv4Addr) {
    let address = format!("{}/128", on_link(v4));
    wait::until(&format!("{address} on {}", ns.name()), PATIENCE, || {
        let state = ns.ip(&format!("-6 addr show dev {TUNNEL}")) + &ns.ip("-6 route show default");
        if state.contains(&address) && state.contains("default via") {
            Ok(())
        } else {
            Err(state)
        }
    });
}

/// Runs a command line and shows both.
fn shell(ns: &Netns, line: &str) {
    let name = ns.name().rsplit('-').next().unwrap_or("?");
    println!("{name}# {line}\n{}", ns.run(line).trim_end());
}
