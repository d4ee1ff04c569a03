//! ICMPv4 error in, ICMPv6 error out: quotes of every length, of packets that were ours and that were not.

#![allow(clippy::unwrap_used, reason = "a test that cannot set itself up fails")]

mod common;

use std::net::Ipv4Addr;

use common::{GATEWAY, HOST, Inner, OWN, ROUTER, host, outer, router, site, v6};
use isatap_engine::fib::{Role, Rulebook};
use isatap_engine::isatap::iid;
use isatap_engine::path::quoted::{self, MAX_QUOTE_LEN, Untold};
use isatap_engine::path::reply::MAX_REPLY_LEN;
use isatap_engine::wire::icmpv6::{self, ADDRESS_UNREACHABLE, DEST_UNREACHABLE};
use isatap_engine::wire::ipv6::Ipv6View;
use isatap_engine::wire::{ext, nd};

const US: &str = "2001:db8:1::5efe:10.0.0.1";
const PEER: &str = "2001:db8:1::5efe:10.0.0.2";

fn translate(rules: &Rulebook, peer: Ipv4Addr, quote: &[u8]) -> Result<Vec<u8>, Untold> {
    let mut out = [0xaa; MAX_REPLY_LEN];
    let len = quoted::translate(rules, peer, quote, &mut out)?;
    Ok(out[..len].to_vec())
}

/// A long packet of ours to the peer.
fn sent() -> Vec<u8> {
    let mut inner = Inner::udp(US, PEER);
    inner.payload.resize(600, 7);
    outer(OWN, HOST, 0, &inner.bytes())
}

/// N6: whatever is quoted, as long as the inner header and eight bytes are there; never more than is quoted.
#[test]
fn n6_quotes_of_every_length() {
    let sent = sent();
    for quoted in 0..sent.len() {
        let told = translate(&router(), HOST, &sent[..quoted]);
        if quoted < 20 {
            assert_eq!(told, Err(Untold::Foreign), "{quoted} bytes");
            continue;
        }
        if quoted < 20 + 48 {
            assert_eq!(told, Err(Untold::Short), "{quoted} bytes");
            continue;
        }
        let error = told.unwrap();
        let view = Ipv6View::new(&error).unwrap();
        assert_eq!((view.src(), view.dst()), (v6(US), v6(US)));
        assert!(icmpv6::verify(view.packet(), 40));
        assert_eq!(error[40..42], [DEST_UNREACHABLE, ADDRESS_UNREACHABLE]);
        assert_eq!(error[48..], sent[20..quoted.min(MAX_QUOTE_LEN)], "{quoted} bytes");
    }
    let mut later = sent.clone();
    later[7] = 1;
    assert_eq!(
        translate(&router(), HOST, &later),
        Err(Untold::Short),
        "a later fragment"
    );
    // A short packet is quoted whole, and nothing behind it.
    let mut tiny = Inner::udp(US, PEER);
    tiny.payload.truncate(5);
    tiny.next_header = 253;
    let tiny = outer(OWN, HOST, 0, &tiny.bytes());
    let error = translate(&router(), HOST, &[&tiny[..], &[0xee; 60]].concat()).unwrap();
    assert_eq!(error[48..], tiny[20..]);
}

/// N8: what we did not send, or would not send there.
#[test]
fn n8_the_quote_must_be_ours() {
    let foreign = Err(Untold::Foreign);
    let sent = sent();
    assert!(translate(&router(), HOST, &sent).is_ok());
    assert_eq!(translate(&router(), GATEWAY, &sent), foreign, "another peer");
    let change = |at: usize, value: u8| {
        let mut quote = sent.clone();
        quote[at] = value;
        translate(&router(), HOST, &quote)
    };
    assert_eq!(change(0, 0x46), foreign, "options, which we never write");
    assert_eq!(change(9, 17), foreign, "UDP");
    assert_eq!(change(15, 99), foreign, "from somebody else");
    // The inner destination leads elsewhere: on the link, by a route, to the router.
    let to = |rules: &Rulebook, peer, dst: &str| {
        let quote = outer(OWN, peer, 0, &Inner::udp(US, dst).bytes());
        translate(rules, peer, &quote).map(|_| ())
    };
    assert_eq!(
        to(&router(), HOST, "2001:db8:1::5efe:10.0.0.3"),
        Err(Untold::Foreign)
    );
    assert_eq!(to(&router(), HOST, "2001:db8:7::1"), Err(Untold::Foreign));
    assert_eq!(to(&router(), GATEWAY, "2001:db8:7::1"), Ok(()));
    assert_eq!(to(&host(), ROUTER, "2001:db8:99::1"), Ok(()));
    assert_eq!(to(&host(), HOST, "2001:db8:99::1"), Err(Untold::Foreign));
    assert_eq!(to(&router(), ROUTER, "2001:db8:99::1"), Err(Untold::Foreign));
}

/// N7: no error about errors, redirects, groups or to nobody; the quote's own end hides nothing.
#[test]
fn n7_what_is_never_told() {
    let silent = Err(Untold::Unanswerable);
    let told = |inner: &[u8]| translate(&router(), HOST, &outer(OWN, HOST, 0, inner)).map(|_| ());
    let icmp = |kind: u8| {
        let mut inner = Inner::udp(US, PEER);
        inner.next_header = ext::ICMPV6;
        inner.payload[0] = kind;
        inner
    };
    for kind in [1, 2, 3, 4, 100, 127, icmpv6::REDIRECT] {
        assert_eq!(told(&icmp(kind).bytes()), silent, "type {kind}");
    }
    for kind in [icmpv6::ECHO_REQUEST, icmpv6::ECHO_REPLY] {
        assert_eq!(told(&icmp(kind).bytes()), Ok(()), "type {kind}");
    }
    let mut out = [0; 100];
    let len = nd::emit_router_solicitation(&mut out, iid::link_local(OWN), v6("ff02::2"));
    assert_eq!(told(&out[..len]), silent, "our own solicitation");
    assert_eq!(told(&Inner::udp("::", PEER).bytes()), silent);
    // An error whose type lies beyond the quote, behind a header as long as the quote.
    let mut hidden = icmp(1);
    hidden.next_header = ext::DEST_OPTS;
    hidden.payload = [&[ext::ICMPV6, 14][..], &[0; 118], &[1, 0, 0, 0, 0, 0, 0, 0]].concat();
    assert_eq!(told(&hidden.bytes()), silent);

    let mut nobody = site(Role::Router);
    nobody.locators.clear();
    let sent = outer(OWN, HOST, 0, &Inner::udp(US, PEER).bytes());
    assert_eq!(
        translate(&nobody.build().unwrap(), HOST, &sent),
        Err(Untold::Foreign)
    );
}
