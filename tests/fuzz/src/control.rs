//! What control reads: its file, what an engine before it has left, its clients, its name servers (FAULTS 45, 46, 62-64, 72, 75).

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use arbitrary::Unstructured;
use isatap_engine::isatap::iid;
use isatapd::advertise::message::Tone;
use isatapd::advertise::{Advertiser, Heard, MAX_CLIENTS, MEMORY_LEN, Solicitation};
use isatapd::config::kept::Kept;
use isatapd::config::resolved::Advertise;
use isatapd::config::{Loader, Overrides, Settings, file};
use isatapd::ops::protocol::{self, FailureCode};
use isatapd::pmtu::{Book, MAX_PEERS, RAISE_AFTER};
use isatapd::prl::Jitter;
use isatapd::prl::names::{Answer, LookupError, NameBook};

/// A file is read, or refused with the places of what is wrong.
///
/// # Panics
/// A promise is broken.
pub fn configuration(data: &[u8]) {
    let name: Arc<str> = "isatapd.conf".into();
    let lines = data.split(|byte| *byte == b'\n').count();
    if let Err(diagnostics) = file::parse(&name, data) {
        assert!(!diagnostics.is_empty(), "refused without a word");
        for diagnostic in diagnostics {
            let text = diagnostic.to_string();
            assert!(text.starts_with("isatapd.conf:"), "{text}");
            let line: usize = text
                .split(':')
                .nth(1)
                .and_then(|number| number.parse().ok())
                .unwrap_or_else(|| panic!("no line in {text}"));
            assert!((1..=lines).contains(&line), "{text} of {lines} lines");
            assert!(!text.chars().any(|c| c.is_control() && c != '\n'), "{text:?}");
        }
    }
}

/// What an engine leaves to its successor, and a new program to try: it comes to settings or is refused, and what is left of
/// those comes to the same.
///
/// # Panics
/// A promise is broken.
pub fn kept_configuration(data: &[u8]) {
    let Ok(kept) = Kept::decode(data) else {
        return;
    };
    assert_eq!(
        Kept::decode(&kept.encode()).as_ref(),
        Ok(&kept),
        "read, written and read"
    );
    let Some(settings) = taken_over(&kept) else {
        return;
    };
    let loader = loader();
    left_behind(&kept);
    let again = Kept {
        memory: kept.memory,
        ..loader.keep(&settings)
    };
    assert_eq!(taken_over(&again).as_ref(), Some(&settings), "from {again:?}");
}

/// What is not settings: hosts are told to forget it in advertisements that fit, for a while, routers of that name are routers, and sizes
/// of paths are some, and hold as long as one that is heard now at most.
fn left_behind(kept: &Kept) {
    const US: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
    const HOST: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 9);
    let epoch = Instant::now();
    let now = epoch + Duration::from_secs(3600);
    let mut advertiser = Advertiser::new(epoch, Jitter::new(1));
    advertiser.set_locators(&[US], false);
    advertiser.recall_taken_back(now, kept.taken_back.clone());
    let again = advertiser.taken_back();
    assert!(again.len() <= kept.taken_back.len(), "nothing more is taken back");
    assert!(
        again.iter().all(|item| kept.taken_back.contains(item)),
        "{again:?}"
    );
    advertiser.set(now, Some((&Advertise::default(), 1280)), Tone::Normal);
    let heard = Solicitation {
        from: HOST,
        src: iid::link_local(HOST),
        locator: US,
    };
    assert_eq!(advertiser.solicited(now, &heard), Heard::Answered);
    for outgoing in advertiser.due(now + Duration::from_secs(1)) {
        assert!(outgoing.packet.len() <= 1280, "{} bytes", outgoing.packet.len());
        assert_eq!(outgoing.to, HOST);
    }

    let names: Vec<_> = kept.routers.keys().take(4).cloned().collect();
    let mut book = NameBook::new(NameBook::refresh_from_secs(3600), Jitter::new(1));
    book.set_servers(now, &[], &names);
    book.recall(now, &kept.routers);
    let addrs = book.addrs();
    assert!(addrs.len() <= 64, "{} members", addrs.len());
    for (index, addr) in addrs.iter().enumerate() {
        assert!(!matches!(addr.octets()[0], 0 | 127 | 224..), "{addr} in the PRL");
        assert!(!addrs[..index].contains(addr), "{addr} twice");
    }
    let left = book.answers();
    assert!(
        left.iter()
            .all(|(name, addrs)| addrs.iter().all(|addr| kept.routers[name].contains(addr)))
    );

    let mut paths = Book::default();
    paths.recall_all(now, epoch, &kept.paths);
    assert!(paths.len() <= kept.paths.len().min(MAX_PEERS));
    for (peer, entry) in paths.iter() {
        assert!(
            entry.mtu >= 68 && entry.heard_at <= now && entry.raise_at <= now + RAISE_AFTER,
            "{peer}: {entry:?}"
        );
    }
    assert_eq!(paths.next_deadline().is_some(), !paths.is_empty());
}

/// Hosts that an engine leaves to the next, whatever it has written there: each is a host, and is told once; what is remembered of them
/// is what they are remembered by again; and a new host finds its place among them.
///
/// # Panics
/// A promise is broken.
pub fn known_hosts(data: &[u8]) {
    const US: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
    const NEW: Ipv4Addr = Ipv4Addr::new(10, 9, 9, 9);
    let epoch = Instant::now();
    let now = epoch + Duration::from_secs(9000);
    let remember = |bytes: &[u8]| {
        let mut advertiser = Advertiser::new(epoch, Jitter::new(1));
        advertiser.set_locators(&[US], false);
        advertiser.set(now, Some((&Advertise::default(), 1280)), Tone::Normal);
        advertiser.recall(now, bytes);
        advertiser
    };
    let told = |advertiser: &Advertiser| {
        let words = advertiser.last_words().map(|outgoing| {
            let dst: [u8; 16] = outgoing.packet[24..40].try_into().expect("an IPv6 header");
            let dst = Ipv6Addr::from(dst);
            assert!(
                dst.is_multicast() || iid::link_local_locator(&dst) == Some(outgoing.to),
                "{dst} of {}",
                outgoing.to
            );
            (outgoing.to, dst)
        });
        let told: BTreeMap<_, _> = words.collect();
        assert_eq!(told.len(), advertiser.clients(), "each once");
        told
    };
    let mut advertiser = remember(data);
    let hosts = told(&advertiser);
    assert!(hosts.len() <= MAX_CLIENTS && hosts.len() <= data.len() / 20);
    assert!(hosts.keys().all(|v4| !v4.is_multicast() && !v4.is_unspecified()));
    assert!(advertiser.due(now).is_empty(), "nothing is news for them");

    let mut written = vec![0; MEMORY_LEN.min(data.len() + 20)];
    let heard = Solicitation {
        from: NEW,
        src: iid::link_local(NEW),
        locator: US,
    };
    assert_eq!(advertiser.solicited(now, &heard), Heard::Answered);
    let places: Vec<_> = hosts
        .keys()
        .chain([&NEW])
        .filter_map(|v4| advertiser.kept(*v4))
        .collect();
    for (offset, bytes) in &places {
        written[*offset..offset + 20].copy_from_slice(bytes.as_ref());
    }
    let mut expected = hosts;
    expected.insert(NEW, iid::link_local(NEW));
    if expected.len() <= MAX_CLIENTS {
        assert_eq!(told(&remember(&written)), expected, "read, written and read");
    }
}

/// One that has read no file and asked no machine.
fn loader() -> Loader {
    Loader::open(Some("/dev/null".into()), Overrides::default()).expect("a file that is always there")
}

fn taken_over(kept: &Kept) -> Option<Settings> {
    loader().load_kept(kept).ok()
}

/// A request is understood, or answered with why not.
///
/// # Panics
/// A promise is broken.
pub fn control_request(data: &[u8]) {
    if let Err(response) = protocol::parse_request(data) {
        let failure = response.error.as_ref().expect("a refusal has a reason");
        assert!(matches!(
            failure.code,
            FailureCode::BadRequest | FailureCode::Version
        ));
        let line = response.to_line();
        assert_eq!(line.iter().filter(|byte| **byte == b'\n').count(), 1, "one line");
    }
}

/// Answers of name servers over time: the list stays bounded and has no impossible member.
///
/// # Panics
/// A promise is broken.
pub fn name_answers(data: &[u8]) {
    const NAMES: [&str; 2] = ["isatap.example.net", "routers.example.net"];
    let own = Ipv4Addr::new(10, 0, 0, 1);
    let mut input = Unstructured::new(data);
    let mut now = Instant::now();
    let mut book = NameBook::new(NameBook::refresh_from_secs(3600), Jitter::new(1));
    book.set_servers(now, &[Ipv4Addr::new(10, 0, 0, 8)], &NAMES.map(str::to_owned));
    book.set_own(now, &[own]);
    for _ in 0..64 {
        let Ok((step, what, ttl, count)) = input.arbitrary::<(u16, u8, u32, u8)>() else {
            break;
        };
        now += Duration::from_secs(u64::from(step));
        let due = book.due(now);
        let result = match what & 7 {
            0 => Err(LookupError::NoSuchName),
            1 => Err(LookupError::NoAddress),
            2 => Err(LookupError::Temporary("slow".into())),
            _ => Ok(Answer {
                addrs: (0..count)
                    .map_while(|_| input.arbitrary().ok())
                    .map(Ipv4Addr::from_bits)
                    .collect(),
                ttl: Duration::from_secs(ttl.into()),
                from_hosts_file: what & 8 != 0,
            }),
        };
        for name in due {
            book.answered(now, &name, result.clone());
        }
        let addrs = book.addrs();
        assert!(addrs.len() <= 64, "{} members", addrs.len());
        for (index, addr) in addrs.iter().enumerate() {
            let first = addr.octets()[0];
            assert!(
                first != 0 && first != 127 && first < 224 && *addr != own,
                "{addr} in the PRL"
            );
            assert!(!addrs[..index].contains(addr), "{addr} twice");
        }
        let _ = (book.ask_before_solicitation(now), book.take_notes());
        assert!(
            book.next_deadline()
                .is_none_or(|at| at >= now || !book.due(now).is_empty())
        );
    }
}
