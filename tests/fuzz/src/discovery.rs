//! Neighbour discovery: options of any shape, and what advertisements may do to a host (FAULTS 4, 5, 49; RFC 4861 6.1).

use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use arbitrary::Unstructured;
use isatap_engine::fib::Ipv6Prefix;
use isatap_engine::wire::ext;
use isatap_engine::wire::nd::{self, NdOption};
use isatapd::advertise::consistency::{self, Disagreement, Told};
use isatapd::config::advertise::{Advertise, AdvertisedList, AdvertisedPrefix};
use isatapd::slaac::{Advert, Slaac, SlaacConfig};

use crate::site::{ON_LINK, OWN};

/// An inner packet: an option that was read can be written, and says the same when it is read again.
///
/// # Panics
/// A promise is broken.
pub fn nd_messages(data: &[u8]) {
    let Ok(upper) = ext::walk(data) else {
        return;
    };
    let Some(Ok(message)) = nd::parse(data, &upper) else {
        return;
    };
    assert!(message.options().are_well_formed(), "the message was accepted");
    let _ = (message.target(), message.redirected(), message.min_lifetime());
    let _ = (message.neighbor_flags(), message.router_advertisement());
    for option in message.options() {
        if matches!(option, NdOption::Unknown { .. }) {
            continue;
        }
        let mut out = vec![0; option.emit_len()];
        assert_eq!(option.emit(&mut out), out.len());
        let again: Vec<_> = nd::NdOptions::new(&out).collect();
        assert_eq!(again, [option], "read, written and read");
    }
}

/// An inner packet as an advertisement: what is taken from it keeps its bounds.
///
/// # Panics
/// A promise is broken.
pub fn advertisement(data: &[u8]) {
    if let Some(advert) = Advert::parse(data) {
        check(&advert);
    }
    for says in [&Advertise::default(), &*SAYS] {
        let Some((router, found)) = consistency::compare(data, says, 1280) else {
            continue;
        };
        let mut told = Told::default();
        let now = Instant::now();
        let news: Vec<_> = found.iter().map(|what| told.is_news(now, router, what)).collect();
        assert!(news.iter().filter(|is_news| **is_news).count() <= MOST_TOLD);
        for what in &found {
            assert!(Disagreement::FIELDS.contains(&what.field()), "{what:?}");
            assert!(!what.to_string().is_empty());
            assert!(!told.is_news(now, router, what), "{what} is told once");
        }
    }
}

/// Disagreements that a router is told of at once.
const MOST_TOLD: usize = 32;

/// What a router beside says.
static SAYS: LazyLock<Advertise> = LazyLock::new(|| Advertise {
    on: true,
    prefixes: vec![AdvertisedPrefix {
        prefix: Ipv6Prefix::containing(ON_LINK, 64).expect("a length that can be"),
        on_link: true,
        valid: 7200,
        preferred: 3600,
        hosts: None,
    }],
    dns: vec![AdvertisedList {
        items: vec![Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x53)],
        lifetime: 900,
    }],
    search: vec![AdvertisedList {
        items: vec!["Site.Example".to_owned()],
        lifetime: 900,
    }],
    ..Advertise::default()
});

fn check(advert: &Advert) {
    assert!(advert.source.is_unicast_link_local());
    assert!(advert.mtu.is_none_or(|mtu| mtu >= 1280), "RFC 8200 5");
    for prefix in &advert.prefixes {
        assert!(prefix.preferred <= prefix.valid, "V5");
        assert!(!prefix.autonomous || prefix.prefix.len() == 64, "V5");
        assert!(!prefix.prefix.addr().is_multicast() && !prefix.prefix.addr().is_unicast_link_local());
    }
    for (server, _) in &advert.dns {
        assert!(!server.is_multicast() && !server.is_unspecified());
    }
    for (name, _) in &advert.search {
        assert!(
            name.len() <= 253 && name.is_ascii() && !name.is_empty(),
            "{name:?}"
        );
        assert!(name.bytes().all(|byte| byte.is_ascii_graphic()), "{name:?}");
    }
}

/// Advertisements of two routers with time between them: state stays bounded, and what is wanted has not ended.
///
/// # Panics
/// A promise is broken.
pub fn autoconfiguration(data: &[u8]) {
    let mut input = Unstructured::new(data);
    let start = Instant::now();
    let mut now = start;
    let mut slaac = Slaac::new(SlaacConfig {
        default_route: Some(1024),
        mtu_ceiling: 1480,
    });
    slaac.set_locators(&[OWN]);
    for _ in 0..64 {
        let (Ok(step), Ok(len)) = (input.arbitrary::<u16>(), input.arbitrary::<u16>()) else {
            break;
        };
        now += Duration::from_secs(u64::from(step));
        let take = usize::from(len).min(input.len());
        let Ok(packet) = input.bytes(take) else {
            break;
        };
        match Advert::parse(packet) {
            Some(advert) => {
                check(&advert);
                slaac.advertised(now, &advert);
            }
            None if step & 1 == 1 => {
                slaac.forget_router(now, Ipv4Addr::new(10, 0, 0, 8));
            }
            None => {
                slaac.expire(now);
            }
        }
        assert!(
            slaac.prefix_count() <= 64,
            "{} prefixes are kept",
            slaac.prefix_count()
        );
        let wanted = slaac.wanted(now);
        assert!(
            wanted.addresses.len() <= 64,
            "{} addresses",
            wanted.addresses.len()
        );
        assert!(wanted.routes.len() <= 512, "{} routes", wanted.routes.len());
    }
}
