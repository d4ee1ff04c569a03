//! Names of the configuration whose function this version does not have.
//!
//! They are checked in full, so that a file written for a later version gets the same errors. What equals the default
//! is accepted; what asks for more is refused with what to do instead, never ignored.

use super::file::Words;
use super::names::Key;
use super::values::{self, Refusal};

const RADVD: &str = "let radvd advertise on the interface, with \"UnicastOnly on;\" (radvd.conf(5))";

/// Reads the values of `key`; says what is wrong or not available.
pub(super) fn check(key: Key, words: &mut Words) {
    let at = words.name_at.clone();
    let asked = match key {
        Key::PathMtu => path_mtu(words),
        Key::Advertise => words.only(values::yes_no).map(|yes| yes.value),
        Key::AdvertisePrefix => advertise_prefix(words),
        Key::AdvertiseRoute => advertise_route(words),
        Key::AdvertiseDns => list_with_lifetime(words, |text| match text.parse::<std::net::Ipv6Addr>() {
            Ok(_) => Ok(()),
            Err(_) => Err(Refusal::Expected(None)),
        }),
        Key::AdvertiseSearch => list_with_lifetime(words, |text| {
            if values::is_domain(text) {
                Ok(())
            } else {
                Err(Refusal::Expected(None))
            }
        }),
        Key::AdvertiseMtu => words.only(values::mtu).map(|_| true),
        Key::RouterLifetime => words
            .only(|text| values::number(text, 0..=9000))
            .map(|life| life.value != 1800),
        Key::RouterPreference => words
            .only(preference)
            .map(|preference| preference.value != Preference::Medium),
        _ => None,
    };
    if asked == Some(true) {
        let instead = match key {
            Key::PathMtu => "\"PathMtu static\" with the right Mtu carries everything",
            _ => RADVD,
        };
        words.refuse(
            at,
            format!("this {key} is not available in this version; {instead}"),
        );
    }
}

/// `None` when the values are wrong, else whether they ask for what we do not do.
type Asked = Option<bool>;

fn path_mtu(words: &mut Words) -> Asked {
    let dynamic = words
        .next(|text| values::one_of(text, &[("static", false), ("dynamic", true)]))?
        .value;
    if words.len() > 0 {
        words.next(values::ipv4_network)?;
    }
    words.end();
    Some(dynamic)
}

fn advertise_prefix(words: &mut Words) -> Asked {
    words.next(|text| match values::ipv6_prefix(text)?.len() {
        64 => Ok(()),
        _ => Err(Refusal::Because(
            "an interface identifier has 64 bits, so the prefix must have 64 (RFC 5214 6.1)".into(),
        )),
    })?;
    let (mut valid, mut preferred) = (None, None);
    while words.len() > 0 {
        let at = words.name_at.clone();
        let keywords = [("on-link", 0u8), ("valid", 1), ("preferred", 2), ("for", 3)];
        match words.next(|text| values::one_of(text, &keywords))?.value {
            0 => {}
            1 => valid = Some(words.next(lifetime)?.value),
            2 => preferred = Some(words.next(lifetime)?.value),
            _ => drop(words.next(values::ipv4_network)?),
        }
        if let (Some(valid), Some(preferred)) = (valid, preferred)
            && preferred > valid
        {
            words.refuse(
                at,
                "AdvertisePrefix: the preferred lifetime is longer than the valid one".into(),
            );
            return None;
        }
    }
    Some(true)
}

fn advertise_route(words: &mut Words) -> Asked {
    words.next(values::ipv6_prefix)?;
    while words.len() > 0 {
        match words
            .next(|text| values::one_of(text, &[("preference", true), ("lifetime", false)]))?
            .value
        {
            true => drop(words.next(preference)?),
            false => drop(words.next(lifetime)?),
        }
    }
    Some(true)
}

fn list_with_lifetime(words: &mut Words, read: impl Fn(&str) -> Result<(), Refusal>) -> Asked {
    words.next(&read)?;
    while words.len() > 0 {
        if words
            .peek()
            .is_some_and(|text| text.eq_ignore_ascii_case("lifetime"))
        {
            words.skip();
            words.next(lifetime)?;
            words.end();
            break;
        }
        words.next(&read)?;
    }
    Some(true)
}

fn lifetime(text: &str) -> Result<u32, Refusal> {
    if ["infinity", "infinite"]
        .iter()
        .any(|word| word.eq_ignore_ascii_case(text))
    {
        return Ok(u32::MAX);
    }
    values::number(text, 0..=u32::MAX)
        .map_err(|_| Refusal::Because("a lifetime is a number of seconds, or infinity".into()))
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Preference {
    Low,
    Medium,
    High,
}

fn preference(text: &str) -> Result<Preference, Refusal> {
    values::one_of(
        text,
        &[
            ("low", Preference::Low),
            ("medium", Preference::Medium),
            ("high", Preference::High),
        ],
    )
}
