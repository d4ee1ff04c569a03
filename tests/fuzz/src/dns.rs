//! Messages of name servers, as far as they are ours to judge: the library reads them, and we take addresses from what it has
//! read; and the file that says whom to ask for what (FAULTS 45-47).

use std::collections::BTreeSet;
use std::time::Duration;

use hickory_resolver::proto::op::Message;
use hickory_resolver::proto::rr::{Name, RData};
use isatapd::config::values::{self, Host};
use isatapd::prl::resolver;

/// The name that was asked for.
const ASKED: &str = "isatap.example.net.";
/// RFC 2181 8.
const MAX_TTL: u64 = (1 << 31) - 1;

/// However long the file is: what one lookup may take, servers and search domains of resolv.conf(5).
const MOST_TIME: Duration = Duration::from_secs(10);
const MOST_SERVERS: usize = 3;
const MOST_DOMAINS: usize = 16;
const MOST_ATTEMPTS: u32 = 5;

/// A line with a name, then a `resolv.conf`: few servers are asked for few names, each within its time, and a name of one label
/// never goes out as it stands, unless whoever wrote it wants just that.
///
/// # Panics
/// A promise is broken.
pub fn resolv_conf(data: &[u8]) {
    let mut parts = data.splitn(2, |byte| *byte == b'\n');
    let name = parts.next().and_then(|line| std::str::from_utf8(line).ok());
    let Some(Ok(Host::Name(name))) = name.map(values::host) else {
        return;
    };
    let asked = resolver::questions(parts.next().unwrap_or_default(), &name);
    assert!(asked.servers.len() <= MOST_SERVERS && asked.servers.iter().all(|server| server.port() == 53));
    assert!((1..=MOST_ATTEMPTS).contains(&asked.attempts));
    let turn = asked.timeout * u32::try_from(MOST_SERVERS).expect("three");
    assert!(!asked.timeout.is_zero() && turn <= MOST_TIME, "{turn:?}");
    assert!(
        asked.names.len() <= MOST_DOMAINS + 1,
        "{} names",
        asked.names.len()
    );
    let insists = name.ends_with('.');
    for one in &asked.names {
        assert!(one.is_fqdn(), "{one}");
        assert!(insists || one.num_labels() > 1, "{one} would go to the root");
        let begin = one.to_ascii().to_ascii_lowercase();
        let wanted = name.trim_end_matches('.').to_ascii_lowercase();
        assert!(begin.starts_with(&wanted), "{one} was not asked for");
    }
}

/// A message of DNS: addresses of the name that was asked for alone, or of what it is an alias of there.
///
/// # Panics
/// A promise is broken.
pub fn dns_message(data: &[u8]) {
    let Ok(message) = Message::from_vec(data) else {
        return;
    };
    let asked = Name::from_ascii(ASKED).expect("a name");
    let Ok(answer) = resolver::answer(&asked, &message.answers) else {
        return;
    };
    assert!(!answer.addrs.is_empty(), "an answer that says nothing is none");
    assert!(answer.addrs.len() <= message.answers.len());
    assert!(!answer.from_hosts_file);
    // Whatever any chain of aliases leads to, in whatever order; ours is one of them.
    let mut meant = BTreeSet::from([asked]);
    loop {
        let before = meant.len();
        for record in &message.answers {
            if let RData::CNAME(target) = &record.data
                && meant.contains(&record.name)
            {
                meant.insert(target.0.clone());
            }
        }
        if meant.len() == before {
            break;
        }
    }
    let mut least = u64::MAX;
    for addr in &answer.addrs {
        let of_it = message.answers.iter().filter(|record| {
            matches!(&record.data, RData::A(a) if a.0 == *addr) && meant.contains(&record.name)
        });
        // The chain of aliases that counts may be one of several.
        let ttl = of_it.map(|record| u64::from(record.ttl)).max();
        least = least.min(ttl.unwrap_or_else(|| panic!("{addr} is an address of somebody else")));
    }
    let ttl = answer.ttl.as_secs();
    assert!(
        ttl <= MAX_TTL && ttl <= least,
        "kept for {ttl} s, said for {least} s"
    );
}
