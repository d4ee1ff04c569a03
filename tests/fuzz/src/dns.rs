//! Messages of name servers, as far as they are ours to judge: the library reads them, and we take addresses from what it has
//! read (FAULTS 45-47).

use std::collections::BTreeSet;

use hickory_resolver::proto::op::Message;
use hickory_resolver::proto::rr::{Name, RData};
use isatapd::prl::resolver;

/// The name that was asked for.
const ASKED: &str = "isatap.example.net.";
/// RFC 2181 8.
const MAX_TTL: u64 = (1 << 31) - 1;

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
