//! Who else has a say about outer packets: what the monitor makes of what `nft`, `ip xfrm` and other programs do.
//!
//! ```text
//!   namespace [ eth0 ]
//! ```

use std::os::fd::AsFd;

use caps::{CapSet, Capability};
use isatap_engine::ebpf::Segmenters;
use isatap_engine::io::raw::{RawReceiver, RawSender};
use isatap_tests::netns::Netns;
use isatapd::monitor::others::{Lookout, Others};

const NOBODY: Others = only([false; 3]);
const FIREWALL: Others = only([true, false, false]);
const IPSEC: Others = only([false, true, false]);
const LISTENERS: Others = only([false, false, true]);

const fn only([firewall, ipsec, listeners]: [bool; 3]) -> Others {
    Others {
        firewall,
        ipsec,
        listeners,
        shaping: false,
        segmenters: Segmenters::Known(Vec::new()),
    }
}

/// Runs `test` in a new namespace, on a thread of its own, with a lookout that knows of no socket.
fn in_namespace(test: impl FnOnce(&Netns, &Lookout) + Send) {
    let ns = Netns::new("others");
    ns.ip("link add eth0 type veth peer name far-eth0");
    ns.enter(|| test(&ns, &Lookout::open([].into_iter()).expect("a lookout")));
}

#[test]
fn rules_for_outer_packets_are_a_firewall() {
    in_namespace(|ns, lookout| {
        assert_eq!(lookout.look(), NOBODY);
        // What Debian's nftables.conf makes, and more that does nothing.
        ns.run("nft add table inet filter");
        for hook in ["input", "forward", "output"] {
            ns.run(&format!(
                "nft add chain inet filter {hook} {{ type filter hook {hook} priority filter ; }}"
            ));
        }
        ns.run("nft add chain inet filter mine");
        ns.run("nft add rule inet filter mine counter");
        ns.run("nft add table ip6 filter");
        ns.run("nft add chain ip6 filter input { type filter hook input priority filter ; policy drop ; }");
        assert_eq!(lookout.look(), NOBODY);

        for (family, hook) in [
            ("inet", "input hook input priority 1"),
            ("inet", "output hook output priority 1"),
            ("ip", "prerouting hook prerouting priority raw"),
            ("ip", "postrouting hook postrouting priority 0"),
            ("netdev", "ingress hook ingress device eth0 priority 0"),
        ] {
            let (name, hook) = hook.split_once(' ').expect("a name and a hook");
            ns.run(&format!("nft add table {family} extra"));
            ns.run(&format!(
                "nft add chain {family} extra {name} {{ type filter {hook} ; }}"
            ));
            assert_eq!(lookout.look(), NOBODY, "{family} {hook}, no rule");
            ns.run(&format!("nft add rule {family} extra {name} counter"));
            assert_eq!(lookout.look(), FIREWALL, "{family} {hook}, a rule");
            ns.run(&format!("nft flush table {family} extra"));
            assert_eq!(lookout.look(), NOBODY, "{family} {hook}, no rule any more");
            ns.run(&format!(
                "nft add chain {family} extra {name} {{ type filter {hook} ; policy drop ; }}"
            ));
            assert_eq!(lookout.look(), FIREWALL, "{family} {hook}, a policy");
            ns.run(&format!("nft delete table {family} extra"));
            assert_eq!(lookout.look(), NOBODY, "{family} {hook}, gone");
        }

        // For what is forwarded.
        ns.run("nft add rule inet filter forward ct state established accept");
        ns.run("nft add chain inet filter forward { policy drop ; }");
        assert_eq!(lookout.look(), NOBODY);
    });
}

/// The answer takes several datagrams, and the chain that matters is in none of the first.
#[test]
fn a_rule_is_found_behind_many_chains() {
    in_namespace(|ns, lookout| {
        let mut ruleset = String::from("table ip many {\n");
        for number in 0..2000 {
            ruleset.push_str(&format!("chain chain-{number} {{ counter\n }}\n"));
        }
        ruleset.push_str("}\n");
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("ruleset");
        std::fs::write(&path, ruleset).expect("a ruleset");
        ns.run(&format!("nft -f {}", path.display()));
        assert_eq!(lookout.look(), NOBODY);
        ns.run("nft add chain ip many last { type filter hook input priority 0 ; }");
        assert_eq!(lookout.look(), NOBODY);
        ns.run("nft add rule ip many last counter");
        assert_eq!(lookout.look(), FIREWALL);
        ns.run("nft flush ruleset");
        assert_eq!(lookout.look(), NOBODY);
    });
}

#[test]
fn policies_are_ipsec() {
    in_namespace(|ns, lookout| {
        for direction in ["in", "out"] {
            let selector = format!("src 10.0.0.0/8 dst 10.0.0.0/8 dir {direction}");
            ns.ip(&format!(
                "xfrm policy add {selector} tmpl proto esp mode transport"
            ));
            assert_eq!(lookout.look(), IPSEC, "{direction}");
            ns.ip(&format!("xfrm policy delete {selector}"));
            assert_eq!(lookout.look(), NOBODY, "{direction}");
        }
        for (default, found) in [
            ("in block", IPSEC),
            ("in accept", NOBODY),
            ("out block", IPSEC),
            ("out accept", NOBODY),
            ("fwd block", NOBODY),
        ] {
            ns.ip(&format!("xfrm policy setdefault {default}"));
            assert_eq!(lookout.look(), found, "{default}");
        }
    });
}

#[test]
fn sockets_of_others_are_listeners() {
    in_namespace(|_, stranger| {
        let receiver = RawReceiver::open().expect("a raw socket");
        let sender = RawSender::open().expect("a raw socket");
        let own = [receiver.as_fd(), sender.as_fd()];
        let lookout = Lookout::open(own.into_iter()).expect("a lookout");
        assert_eq!(lookout.look(), NOBODY);
        assert_eq!(stranger.look(), LISTENERS);
        let foreign = RawReceiver::open().expect("a raw socket");
        assert_eq!(lookout.look(), LISTENERS);
        drop(foreign);
        assert_eq!(lookout.look(), NOBODY);
        // One's own remain one's own while anybody holds them.
        let held = receiver.as_fd().try_clone_to_owned().expect("a descriptor");
        drop(receiver);
        assert_eq!(lookout.look(), NOBODY);
        drop((held, sender));
        assert_eq!(stranger.look(), NOBODY);
    });
}

#[test]
fn what_cannot_be_read_is_present() {
    in_namespace(|_, lookout| {
        caps::drop(None, CapSet::Effective, Capability::CAP_NET_ADMIN).expect("a thread's own capabilities");
        let unread = Others {
            ipsec: true,
            ..FIREWALL
        };
        assert_eq!(lookout.look(), unread);
        caps::raise(None, CapSet::Effective, Capability::CAP_NET_ADMIN).expect("a permitted capability");
        assert_eq!(lookout.look(), NOBODY);
    });
}
