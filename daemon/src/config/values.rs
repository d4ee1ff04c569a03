//! Reads single values of the configuration: text in, a valid value or the reason against it out.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;

use super::diagnostic::did_you_mean;
use super::engine_types::{
    DscpPolicy, EcnMode, Ipv4Prefix, Ipv6Prefix, MAX_WORKERS, PathMtuMode, PrefixError, TtlPolicy,
};
use super::resolved::{Facility, INTERVAL_INFINITE, Layer, LogLevel};

/// Longest name of an interface: `IFNAMSIZ` without the NUL.
const MAX_INTERFACE_NAME_LEN: usize = 15;
/// Longest path of a unix socket: `sun_path` without the NUL.
const MAX_SOCKET_PATH_LEN: usize = 107;

/// Why a text is no value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// It is not what the name takes; a suggestion if something comes near.
    Expected(Option<&'static str>),
    /// Something particular.
    Because(String),
}

const EXPECTED: Refusal = Refusal::Expected(None);

fn because<T>(text: impl Into<String>) -> Result<T, Refusal> {
    Err(Refusal::Because(text.into()))
}

/// A router, or ourselves: an address, or a name that is still to be resolved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Host {
    /// An address.
    Addr(Ipv4Addr),
    /// A syntactically valid host name.
    Name(String),
}

impl std::fmt::Display for Host {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Addr(addr) => addr.fmt(f),
            Self::Name(name) => name.fmt(f),
        }
    }
}

/// One of several words, in any case.
///
/// # Errors
/// [`Refusal::Expected`], with a suggestion.
pub fn one_of<T: Copy>(text: &str, words: &[(&'static str, T)]) -> Result<T, Refusal> {
    match words.iter().find(|(word, _)| word.eq_ignore_ascii_case(text)) {
        Some((_, value)) => Ok(*value),
        None => Err(Refusal::Expected(did_you_mean(
            text,
            words.iter().map(|(word, _)| *word),
        ))),
    }
}

/// `yes` or `no`, and what people write instead.
///
/// # Errors
/// [`Refusal::Expected`].
pub fn yes_no(text: &str) -> Result<bool, Refusal> {
    one_of(
        text,
        &[
            ("yes", true),
            ("no", false),
            ("on", true),
            ("off", false),
            ("true", true),
            ("false", false),
        ],
    )
}

/// A decimal number in a range.
///
/// # Errors
/// [`Refusal::Expected`].
pub fn number(text: &str, range: std::ops::RangeInclusive<u32>) -> Result<u32, Refusal> {
    // `parse` takes a leading plus sign, which nobody means.
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    match text.parse::<u32>() {
        Ok(number) if digits && range.contains(&number) => Ok(number),
        _ => Err(EXPECTED),
    }
}

/// A tunnel MTU.
///
/// # Errors
/// [`Refusal::Expected`].
pub fn mtu(text: &str) -> Result<u16, Refusal> {
    number(text, 1280..=65515).and_then(|mtu| u16::try_from(mtu).map_err(|_| EXPECTED))
}

/// Seconds, or `infinite`.
///
/// # Errors
/// [`Refusal::Expected`].
pub fn interval(text: &str) -> Result<u32, Refusal> {
    if ["infinite", "infinity", "never"]
        .iter()
        .any(|word| word.eq_ignore_ascii_case(text))
    {
        return Ok(INTERVAL_INFINITE);
    }
    number(text, 1..=INTERVAL_INFINITE - 1)
}

/// A number of workers.
///
/// # Errors
/// [`Refusal::Expected`].
pub fn workers(text: &str) -> Result<usize, Refusal> {
    let workers =
        number(text, 1..=u32::MAX).and_then(|count| usize::try_from(count).map_err(|_| EXPECTED))?;
    if workers > MAX_WORKERS {
        Err(EXPECTED)
    } else {
        Ok(workers)
    }
}

/// `Ttl`.
///
/// # Errors
/// [`Refusal::Expected`].
pub fn ttl(text: &str) -> Result<TtlPolicy, Refusal> {
    if text.eq_ignore_ascii_case("inherit") {
        return Ok(TtlPolicy::Inherit);
    }
    let ttl = number(text, 1..=255)?;
    Ok(TtlPolicy::Fixed(u8::try_from(ttl).map_err(|_| EXPECTED)?))
}

/// `Dscp`.
///
/// # Errors
/// [`Refusal::Expected`].
pub fn dscp(text: &str) -> Result<DscpPolicy, Refusal> {
    if text.eq_ignore_ascii_case("inherit") {
        return Ok(DscpPolicy::Inherit);
    }
    let dscp = number(text, 0..=63)?;
    Ok(DscpPolicy::Fixed(u8::try_from(dscp).map_err(|_| EXPECTED)?))
}

/// `Ecn`.
///
/// # Errors
/// [`Refusal::Expected`].
pub fn ecn(text: &str) -> Result<EcnMode, Refusal> {
    one_of(text, &[("normal", EcnMode::Normal), ("compat", EcnMode::Compat)])
}

/// `PathMtu`.
///
/// # Errors
/// [`Refusal::Expected`], with a suggestion.
pub fn path_mtu(text: &str) -> Result<PathMtuMode, Refusal> {
    one_of(
        text,
        &[("static", PathMtuMode::Static), ("dynamic", PathMtuMode::Dynamic)],
    )
}

/// `LogLevel`.
///
/// # Errors
/// [`Refusal::Expected`].
pub fn log_level(text: &str) -> Result<LogLevel, Refusal> {
    let levels = [
        ("error", LogLevel::Error),
        ("warn", LogLevel::Warn),
        ("warning", LogLevel::Warn),
        ("info", LogLevel::Info),
        ("debug", LogLevel::Debug),
    ];
    one_of(text, &levels)
}

/// One layer of `SandboxWaive`.
///
/// # Errors
/// [`Refusal::Expected`], with a suggestion.
pub fn layer(text: &str) -> Result<Layer, Refusal> {
    one_of(text, &Layer::ALL.map(|layer| (layer.name(), layer)))
}

/// `SyslogFacility`; the spelling of syslog(3), `LOG_DAEMON`, is understood too.
///
/// # Errors
/// [`Refusal::Expected`].
pub fn facility(text: &str) -> Result<Facility, Refusal> {
    let name = match text.get(..4) {
        Some(prefix) if prefix.eq_ignore_ascii_case("LOG_") => text.get(4..).unwrap_or_default(),
        _ => text,
    };
    Facility::from_name(name).ok_or_else(|| {
        Refusal::Expected(did_you_mean(
            name,
            Facility::NAMES.iter().map(|(known, _)| *known),
        ))
    })
}

/// The name of an interface: what the kernel takes, without what it or sysctl would read as something else.
///
/// # Errors
/// [`Refusal::Because`].
pub fn interface_name(text: &str) -> Result<String, Refusal> {
    if text.len() > MAX_INTERFACE_NAME_LEN {
        return because(format!(
            "an interface name has at most {MAX_INTERFACE_NAME_LEN} characters"
        ));
    }
    let bad = |character: char| !character.is_ascii_graphic() || matches!(character, '/' | ':' | '%');
    if text.is_empty() || text.contains(bad) {
        return because("an interface name has only letters, digits and signs but \"/\", \":\" and \"%\"");
    }
    if matches!(text, "." | ".." | "all" | "default" | "lo") {
        return because("the kernel uses this name for something else");
    }
    Ok(text.to_owned())
}

/// An IPv4 address or a host name (RFC 1123 2.1, underscores tolerated).
///
/// # Errors
/// [`Refusal::Expected`] or [`Refusal::Because`].
pub fn host(text: &str) -> Result<Host, Refusal> {
    if let Ok(addr) = text.parse::<Ipv4Addr>() {
        return Ok(Host::Addr(addr));
    }
    if text.parse::<Ipv6Addr>().is_ok() {
        return because(
            "an IPv6 address; the tunnel runs over IPv4, an IPv4 address or a host name is needed here",
        );
    }
    // What has only digits and dots was meant as an address; a resolver might even take it for one (10.1 = 10.0.0.1).
    if text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.') || !is_domain(text) {
        return Err(EXPECTED);
    }
    Ok(Host::Name(text.to_owned()))
}

/// Whether `text` can be a domain name; a final dot is fine.
pub fn is_domain(text: &str) -> bool {
    let name = text.strip_suffix('.').unwrap_or(text);
    let label_ok = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
    };
    name.len() <= 253 && name.split('.').all(label_ok)
}

const HOST_BITS: &str = "bits after the prefix length are set; make them 0, or the length longer";

/// An IPv4 network; a bare address is a network of one.
///
/// # Errors
/// [`Refusal::Expected`] or [`Refusal::Because`] when bits after the prefix are set.
pub fn ipv4_network(text: &str) -> Result<Ipv4Prefix, Refusal> {
    text.parse::<Ipv4Prefix>().map_err(|error| match error {
        PrefixError::HostBits => Refusal::Because(HOST_BITS.into()),
        PrefixError::Length(_) => Refusal::Because("an IPv4 prefix length is a number from 0 to 32".into()),
        PrefixError::Address => EXPECTED,
    })
}

/// An IPv6 prefix with its length.
///
/// # Errors
/// [`Refusal::Expected`] or [`Refusal::Because`].
pub fn ipv6_prefix(text: &str) -> Result<Ipv6Prefix, Refusal> {
    if !text.contains('/') {
        return Err(EXPECTED);
    }
    let prefix = text.parse::<Ipv6Prefix>().map_err(|error| match error {
        PrefixError::HostBits => Refusal::Because(HOST_BITS.into()),
        PrefixError::Length(_) => Refusal::Because("an IPv6 prefix length is a number from 0 to 128".into()),
        PrefixError::Address => EXPECTED,
    })?;
    if prefix.addr().is_multicast() || prefix.addr().is_unicast_link_local() {
        return because("a link-local or multicast prefix cannot be advertised");
    }
    Ok(prefix)
}

/// `MetricsListen`: address with port, or `off`.
///
/// # Errors
/// [`Refusal::Expected`].
pub fn listen_address(text: &str) -> Result<Option<SocketAddr>, Refusal> {
    if ["off", "none", "no"]
        .iter()
        .any(|word| word.eq_ignore_ascii_case(text))
    {
        return Ok(None);
    }
    text.parse().map(Some).map_err(|_| EXPECTED)
}

/// An absolute path.
///
/// # Errors
/// [`Refusal::Because`].
pub fn absolute_path(text: &str) -> Result<PathBuf, Refusal> {
    if text.chars().any(char::is_control) {
        return because("a path without control characters is needed");
    }
    if !text.starts_with('/') {
        return because("the path must be absolute: begin with \"/\"");
    }
    Ok(PathBuf::from(text))
}

/// An absolute path that fits into a socket address.
///
/// # Errors
/// [`Refusal::Because`].
pub fn socket_path(text: &str) -> Result<PathBuf, Refusal> {
    if text.len() > MAX_SOCKET_PATH_LEN {
        return because(format!(
            "the path of a socket has at most {MAX_SOCKET_PATH_LEN} bytes"
        ));
    }
    absolute_path(text)
}

/// Permission bits in octal.
///
/// # Errors
/// [`Refusal::Because`].
pub fn mode(text: &str) -> Result<u32, Refusal> {
    let octal = (3..=4).contains(&text.len()) && text.bytes().all(|byte| (b'0'..=b'7').contains(&byte));
    match u32::from_str_radix(text, 8) {
        Ok(mode) if octal && mode <= 0o777 => Ok(mode),
        _ => because("permissions are three octal digits such as 660"),
    }
}

/// A user or group name as useradd(8) makes them, or wider: no blanks, colons, slashes or control characters.
///
/// # Errors
/// [`Refusal::Because`].
pub fn account_name(text: &str) -> Result<String, Refusal> {
    let bad = |character: char| {
        character.is_whitespace() || character.is_control() || matches!(character, ':' | '/')
    };
    if text.is_empty() || text.len() > 255 || text.starts_with('-') || text.contains(bad) {
        return because("this cannot be the name of an account");
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_decimal_and_in_range() {
        assert_eq!(number("7", 1..=9), Ok(7));
        for text in [
            "0",
            "10",
            "+7",
            "-7",
            "7 ",
            "0x7",
            "",
            "99999999999999999999",
            "seven",
        ] {
            assert_eq!(number(text, 1..=9), Err(EXPECTED), "{text}");
        }
        assert_eq!(mtu("1280"), Ok(1280));
        assert_eq!(mtu("65515"), Ok(65515));
        assert!(mtu("1279").is_err() && mtu("65516").is_err());
        assert_eq!(workers("128"), Ok(128));
        assert!(workers("0").is_err() && workers("129").is_err());
        assert_eq!(interval("Infinite"), Ok(u32::MAX));
        assert_eq!(interval("4294967294"), Ok(u32::MAX - 1));
        assert!(interval("4294967295").is_err() && interval("0").is_err());
    }

    #[test]
    fn interface_names() {
        for good in ["is0", "a", "isatap-0.1", "fifteen-letters"] {
            assert_eq!(interface_name(good), Ok(good.to_owned()));
        }
        for bad in [
            "",
            "sixteen-letters!",
            "a/b",
            "a:b",
            "is%d",
            "ä",
            "..",
            "all",
            "lo",
            "a\u{7}",
        ] {
            assert!(matches!(interface_name(bad), Err(Refusal::Because(_))), "{bad:?}");
        }
    }

    #[test]
    fn hosts() {
        assert_eq!(host("10.0.0.1"), Ok(Host::Addr(Ipv4Addr::new(10, 0, 0, 1))));
        for good in ["isatap", "isatap.example.org.", "a_b.c-d", "1and1.example"] {
            assert_eq!(host(good), Ok(Host::Name(good.to_owned())));
        }
        for bad in [
            "10.0.0.256",
            "10.1",
            "1",
            "a..b",
            "-a",
            "a-",
            "a b",
            "ü",
            "a/b",
            &"a".repeat(64),
        ] {
            assert_eq!(host(bad), Err(EXPECTED), "{bad}");
        }
        assert!(matches!(host("fe80::1"), Err(Refusal::Because(_))));
    }

    #[test]
    fn paths_and_modes() {
        assert!(
            absolute_path("run/x").is_err()
                && absolute_path("").is_err()
                && absolute_path("/a\u{1}").is_err()
        );
        assert!(socket_path(&format!("/{}", "a".repeat(106))).is_ok());
        assert!(socket_path(&format!("/{}", "a".repeat(107))).is_err());
        assert_eq!(mode("0660"), Ok(0o660));
        assert_eq!(mode("600"), Ok(0o600));
        for bad in ["", "66", "0o660", "888", "1777", "+60", "00660"] {
            assert!(mode(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn facilities_in_both_spellings() {
        assert_eq!(facility("LOG_DAEMON"), Ok(Facility::DAEMON));
        assert_eq!(facility("Local7").map(Facility::number), Ok(23));
        assert_eq!(facility("deamon"), Err(Refusal::Expected(Some("daemon"))));
        assert_eq!(facility("ß-x"), Err(EXPECTED));
    }
}
