//! What can run as it is written, and hardly does what was meant. Pure.

use super::advertise::AdvertiseText;
use super::diagnostic::{Origin, Sourced};
use super::file::FileConfig;
use super::resolve::DEFAULT_MTU;

/// One line each, with the place.
pub(super) fn doubtful(file: &FileConfig) -> Vec<String> {
    [unheard(&file.advertise), beyond_our_mtu(file)]
        .into_iter()
        .flatten()
        .collect()
}

/// What to advertise, and nothing about whether: by default nobody is told. Whoever writes `Advertise no` means it.
fn unheard(text: &AdvertiseText) -> Option<String> {
    if text.on.is_some() {
        return None;
    }
    fn place<T>(line: &Sourced<T>) -> &Origin {
        &line.origin
    }
    let first = text.prefixes.first().map(place);
    let first = first.or_else(|| text.routes.first().map(place));
    let first = first.or_else(|| text.dns.first().map(place));
    let first = first.or_else(|| text.search.first().map(place));
    let first = first.or_else(|| text.mtu.as_ref().map(place));
    let first = first.or_else(|| text.router_lifetime.as_ref().map(place));
    let first = first.or_else(|| text.preference.as_ref().map(place))?;
    Some(format!(
        "{first}no host is told this, for by default nothing is advertised; write \"Advertise yes\", or \"Advertise no\" to silence this"
    ))
}

/// Hosts that send more at once than this router sends to them.
fn beyond_our_mtu(file: &FileConfig) -> Option<String> {
    let ours = file.mtu.as_ref().map_or(DEFAULT_MTU, |mtu| mtu.value);
    let told = file.advertise.mtu.as_ref().filter(|told| told.value > ours)?;
    Some(format!(
        "{}AdvertiseMtu {} is more than this router's own Mtu, {ours}: it sends hosts less at once than they send it; raise Mtu, or leave \
         AdvertiseMtu out, and hosts are told {ours}",
        told.origin, told.value
    ))
}

#[cfg(test)]
mod tests {
    use super::super::file;
    use super::*;

    fn of(content: &str) -> Vec<String> {
        doubtful(&file::parse(&"isatapd.conf".into(), content.as_bytes()).expect("a configuration"))
    }

    #[test]
    fn what_no_host_is_told_is_said_once() {
        for line in [
            "AdvertisePrefix 2001:db8:1::/64",
            "AdvertiseRoute 2001:db8:2::/48",
            "AdvertiseDns 2001:db8:1::53",
            "AdvertiseSearch example.net",
            "AdvertiseMtu 1280",
            "RouterLifetime 900",
            "RouterPreference high",
        ] {
            let [warning] = &of(&format!("Workers 2\n{line}\n"))[..] else {
                panic!("{line}");
            };
            assert!(warning.starts_with("isatapd.conf:2:"), "{warning}");
            assert!(warning.contains("\"Advertise yes\""), "{warning}");
            assert_eq!(of(&format!("Advertise yes\n{line}\n")), [""; 0], "{line}");
            assert_eq!(of(&format!("{line}\nAdvertise no\n")), [""; 0], "{line}");
        }
        assert_eq!(
            of("AdvertiseDns 2001:db8:1::53\nAdvertisePrefix 2001:db8:1::/64\n").len(),
            1
        );
        assert_eq!(of("Mtu 1400\n"), [""; 0]);
    }

    #[test]
    fn hosts_are_told_no_more_than_the_router_sends() {
        for (content, at) in [
            ("Advertise yes\nAdvertiseMtu 1281\n", "isatapd.conf:2:"),
            ("Mtu 1400\nAdvertise yes\nAdvertiseMtu 1480\n", "isatapd.conf:3:"),
        ] {
            let [warning] = &of(content)[..] else {
                panic!("{content}");
            };
            assert!(warning.starts_with(at), "{warning}");
        }
        assert_eq!(of("Mtu 1480\nAdvertise yes\nAdvertiseMtu 1480\n"), [""; 0]);
        assert_eq!(of("Mtu 1480\nAdvertise yes\nAdvertiseMtu 1400\n"), [""; 0]);
    }
}
