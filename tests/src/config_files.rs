//! Configuration files by the thousand, from a seed: right ones, nearly right ones, and bytes of no meaning (FAULTS 62, 63).
//!
//! The same seed makes the same files, so that a failure can be had again: `ISATAPD_TEST_SEED=<seed>`.

use std::fmt::Write as _;

/// Used unless `ISATAPD_TEST_SEED` names another.
const SEED: u64 = 0x5214_2008;
/// Bytes of the largest files.
const HUGE: usize = 10 << 20;
/// One of so many files is that large.
const HUGE_EVERY: u64 = 2000;

/// Names that both roles take, with values that are right at every bound, then values that are wrong.
const COMMON: &[(&str, &[&str], &[&str])] = &[
    (
        "InterfaceName",
        &["is0", "a", "isatap-12345678"],
        &["sixteen-letters-", "a/b", "%d", ".", "a b", ""],
    ),
    (
        "BindAddress",
        &["10.0.0.1", "auto", "AUTO"],
        &[
            "10.0.0",
            "0.0.0.0",
            "127.0.0.1",
            "224.0.0.1",
            "10.0.0.1 10.0.0.2",
            "-x",
        ],
    ),
    (
        "SyslogFacility",
        &["daemon", "local0", "LOCAL7", "ftp"],
        &["local8", "tea", ""],
    ),
    ("LogLevel", &["error", "warn", "info", "debug"], &["verbose", "0"]),
    (
        "Workers",
        &["1", "128"],
        &["0", "129", "-1", "1e3", "99999999999999999999", ""],
    ),
    (
        "Lane",
        &["auto", "uring", "syscall"],
        &["ebpf", "fast", "auto auto"],
    ),
    (
        "Mtu",
        &["1280", "1480", "65515"],
        &["1279", "65516", "0x500", "1280 bytes"],
    ),
    ("Ttl", &["1", "255", "inherit"], &["0", "256", "-1"]),
    ("Dscp", &["0", "63", "inherit"], &["64", "ef"]),
    (
        "PrlRefreshInterval",
        &["1", "4294967294", "infinite"],
        &["0", "4294967295", "1h"],
    ),
    (
        "MinRouterSolicitInterval",
        &["1", "4294967294", "infinite"],
        &["0", "4294967295", "-2"],
    ),
    ("NestedTunnels", &["yes", "no", "Yes"], &["maybe", "1", "yes no"]),
    ("StrictIngress", &["yes", "no"], &["off", ""]),
    ("LoopChecks", &["yes", "no"], &["ja"]),
    (
        "DefaultRoute",
        &["yes", "no", "yes metric 1", "yes metric 4294967295"],
        &["metric 1", "yes metric", "yes metric 0", "no metric 3"],
    ),
    (
        "MetricsListen",
        &["127.0.0.1:9441", "[::1]:65535", "off"],
        &["9441", "127.0.0.1", "127.0.0.1:0", "localhost:9441", "on"],
    ),
    (
        "ControlSocket",
        &["/run/x.sock", "/run/x,y netops", "/run/x netops 0600"],
        &["x.sock", "/run/x nogroup 0600", "/run/x netops 0999", ""],
    ),
    (
        "User",
        &["nobody", "isatap"],
        &["root", "toor", "unknown", "nobody isatap"],
    ),
    (
        "ChrootDir",
        &["/var/empty/isatapd", "/srv/a,b"],
        &["relative", ""],
    ),
    ("PidFile", &["/run/isatapd.pid", "/x"], &["pid", "/a /b"]),
];

/// Repeatable names that both roles take.
const COMMON_LISTS: &[(&str, &[&str], &[&str])] = &[
    (
        "SandboxWaive",
        &["landlock", "ring, seccomp", "Seccomp"],
        &["chroot", "none", "ring yes", ""],
    ),
    (
        "PathMtu",
        &["dynamic 10.1.0.0/16", "static 10.2.0.0/16"],
        &["dynamic 10.1.0.1/16", "fast", "dynamic 10.0.0.0/33"],
    ),
    (
        "Ecn",
        &["compat 10.3.0.0/16", "normal 10.4.0.0/32"],
        &["normal normal", "compat ::/0"],
    ),
    (
        "SiteNetwork",
        &[
            "private",
            "any",
            "192.0.2.0/24",
            "198.51.100.7",
            "10.0.0.0/8, 172.16.0.0/12",
        ],
        &["10.0.0.1/8", "2001:db8::/32", "10/8"],
    ),
];

/// Names of a router alone.
const ROUTER: &[(&str, &[&str], &[&str])] = &[
    ("Advertise", &["yes", "no"], &["maybe"]),
    ("AdvertiseMtu", &["1280", "65515"], &["1279", "65516"]),
    ("RouterLifetime", &["0", "9000"], &["9001", "-1"]),
    ("RouterPreference", &["low", "medium", "high"], &["best"]),
];
const ROUTER_LISTS: &[(&str, &[&str], &[&str])] = &[
    (
        "PeerRouter",
        &["10.0.0.2", "isatap.example", "10.0.0.3 10.0.0.4"],
        &["10.0.0.256", "0.0.0.0", "nobody.example"],
    ),
    (
        "AdvertisePrefix",
        &[
            "2001:db8:1::/64",
            "2001:db8:2::/64 on-link",
            "2001:db8:3::/64 on-link valid 7200 preferred 3600 for 10.1.0.0/16",
            "2001:db8:4::/64 valid infinite preferred 0",
        ],
        &[
            "2001:db8::/48",
            "2001:db8:1::1/64",
            "fe80::/64",
            "2001:db8:1::/64 valid 1 preferred 2",
            "ff02::/64 on-link",
        ],
    ),
    (
        "AdvertiseRoute",
        &["2001:db8:f000::/36", "::/0 preference high lifetime 600"],
        &["2001:db8::", "::/0 preference best"],
    ),
    (
        "AdvertiseDns",
        &["2001:db8::53", "2001:db8::53 2001:db8::54 lifetime 900"],
        &["10.0.0.53", "lifetime 3", "::"],
    ),
    (
        "AdvertiseSearch",
        &["example.org", "a.example b.example lifetime 9"],
        &["-", "a..b", "lifetime"],
    ),
];
/// Names of a host alone; one of them at least.
const HOST_LISTS: &[(&str, &[&str], &[&str])] = &[(
    "ServerAddress",
    &[
        "192.0.2.1",
        "isatap.example",
        "192.0.2.2, 192.0.2.3 isatap.example",
    ],
    &["10.0.0.1.1", "224.0.0.1", "_", ""],
)];

/// Words to put somewhere.
const ODD: &[&str] = &[
    "\0",
    "\u{7f}",
    "\u{1b}[31m",
    "\u{202e}",
    "ß",
    "日本",
    "\u{feff}",
    "=",
    ":",
    ";",
    ",",
    ",,",
    "#",
    "\"",
    "'",
    "\\",
    "%s%n",
    "-1",
    "18446744073709551616",
    "1e309",
    "0x7f",
    "\t",
    "\u{b}",
    "\r",
    "NaN",
    "..",
    "/",
    "::",
    "::1",
    "0.0.0.0",
    "255.255.255.255",
    "::ffff:10.0.0.1",
    "yes",
    "no",
];

/// Names that nobody has, or nearly.
const NAMES: &[&str] = &[
    "TeaTime",
    "Mtuu",
    "interface",
    "server",
    "BindAddres",
    "Advertise_Prefix",
    "Mtu=1280",
    "İnterfaceName",
    "",
    "[global]",
    "include",
];

/// Numbers from a seed (splitmix64).
#[derive(Clone, Debug)]
pub struct Numbers(u64);

impl Numbers {
    /// From this seed on.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Less than `bound`.
    pub fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % u64::try_from(bound.max(1)).unwrap_or(1)).unwrap_or(0)
    }

    fn one_of<'a, T: ?Sized>(&mut self, list: &[&'a T]) -> &'a T {
        list[self.below(list.len())]
    }

    fn chance(&mut self, one_in: usize) -> bool {
        self.below(one_in) == 0
    }
}

/// What a file is, as far as its maker knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Every value is right, and none contradicts another.
    Right,
    /// Like one, with something done to it.
    Changed,
    /// Bytes.
    Bytes,
    /// Larger than any configuration.
    Huge,
}

/// The files of a seed, one after the other, without end.
#[derive(Clone, Debug)]
pub struct ConfigFiles {
    numbers: Numbers,
    made: u64,
    /// Names that no right file has.
    without: &'static [&'static str],
}

/// The seed of this run: that of the environment, or always the same.
///
/// # Panics
/// When the environment's is no number.
pub fn seed() -> u64 {
    match std::env::var("ISATAPD_TEST_SEED") {
        Ok(text) => text.parse().expect("ISATAPD_TEST_SEED is a number"),
        Err(_) => SEED,
    }
}

impl ConfigFiles {
    /// Those of `seed`; right files do without the names in `without`.
    pub fn new(seed: u64, without: &'static [&'static str]) -> Self {
        Self {
            numbers: Numbers::new(seed),
            made: 0,
            without,
        }
    }

    /// The next file.
    pub fn make(&mut self) -> (Kind, Vec<u8>) {
        self.made += 1;
        if self.made % HUGE_EVERY == HUGE_EVERY / 2 {
            return (Kind::Huge, self.huge());
        }
        match self.numbers.below(10) {
            0..3 => (Kind::Right, self.right().into_bytes()),
            3..9 => (Kind::Changed, self.changed()),
            _ => (Kind::Bytes, self.bytes()),
        }
    }

    /// A file that is right; a host's or a router's.
    pub fn right(&mut self) -> String {
        let mut lines = Vec::new();
        for (name, right, _) in COMMON {
            if self.numbers.chance(3) {
                let value = self.numbers.one_of(right);
                lines.push(self.line(name, value));
            }
        }
        self.lists(COMMON_LISTS, &mut lines);
        if self.numbers.chance(2) {
            self.lists(HOST_LISTS, &mut lines);
            lines.push(self.line("ServerAddress", "192.0.2.9"));
        } else {
            for (name, right, _) in ROUTER {
                if self.numbers.chance(2) {
                    let value = self.numbers.one_of(right);
                    lines.push(self.line(name, value));
                }
            }
            self.lists(ROUTER_LISTS, &mut lines);
        }
        let without = self.without;
        lines.retain(|line| {
            let name = line.split_whitespace().next().unwrap_or_default();
            !without.iter().any(|other| other.eq_ignore_ascii_case(name))
        });
        // Any order.
        for at in (1..lines.len()).rev() {
            let other = self.numbers.below(at + 1);
            lines.swap(at, other);
        }
        self.joined(&lines)
    }

    /// Each value of a list once at most: networks may not repeat.
    fn lists(&mut self, lists: &[(&str, &[&str], &[&str])], lines: &mut Vec<String>) {
        for (name, right, _) in lists {
            for value in *right {
                if self.numbers.chance(3) {
                    lines.push(self.line(name, value));
                }
            }
        }
    }

    fn line(&mut self, name: &str, value: &str) -> String {
        let name = match self.numbers.below(4) {
            0 => name.to_uppercase(),
            1 => name.to_lowercase(),
            _ => name.to_owned(),
        };
        let before = self.numbers.one_of(&["", "", " ", "\t"]);
        let blank = self.numbers.one_of(&[" ", " ", "\t", "   ", " \t "]);
        let after = self
            .numbers
            .one_of(&["", "", " ", " # why", "#", " # größer", "\t#\t#"]);
        format!("{before}{name}{blank}{value}{after}")
    }

    fn joined(&mut self, lines: &[String]) -> String {
        let end = self.numbers.one_of(&["\n", "\n", "\r\n"]);
        let mut text = String::new();
        if self.numbers.chance(8) {
            text.push('\u{feff}');
        }
        for line in lines {
            if self.numbers.chance(6) {
                let _ = write!(text, "# {line}{end}{end}");
            }
            let _ = write!(text, "{line}{end}");
        }
        if self.numbers.chance(3) {
            text.truncate(text.trim_end().len());
        }
        text
    }

    /// A right file after one to four changes, most of which make it wrong.
    fn changed(&mut self) -> Vec<u8> {
        let mut lines: Vec<String> = self.right().lines().map(str::to_owned).collect();
        for _ in 0..=self.numbers.below(4) {
            self.change(&mut lines);
        }
        let mut bytes = lines.join("\n").into_bytes();
        if self.numbers.chance(4) && !bytes.is_empty() {
            for _ in 0..=self.numbers.below(3) {
                let at = self.numbers.below(bytes.len());
                bytes[at] = self.numbers.next().to_le_bytes()[0];
            }
        }
        if self.numbers.chance(20) {
            let at = self.numbers.below(bytes.len() + 1);
            bytes.truncate(at);
        }
        bytes
    }

    fn change(&mut self, lines: &mut Vec<String>) {
        let at = self.numbers.below(lines.len() + 1);
        let all = [COMMON, COMMON_LISTS, ROUTER, ROUTER_LISTS, HOST_LISTS];
        let table = self.numbers.one_of(&all);
        let (name, right, wrong) = table[self.numbers.below(table.len())];
        match self.numbers.below(11) {
            0 => lines.insert(at, format!("{name} {}", self.numbers.one_of(wrong))),
            1 => lines.insert(at, format!("{name} {}", self.numbers.one_of(right))),
            2 => lines.insert(
                at,
                format!("{} {}", self.numbers.one_of(NAMES), self.numbers.one_of(right)),
            ),
            3 => lines.insert(at, format!("{name} {}", self.numbers.one_of(ODD))),
            4 => lines.insert(at, name.to_owned()),
            5 => {
                // The old program's longest line, and around ours.
                let len = [1055, 1056, 1057, 4095, 4096, 4097, 70_000][self.numbers.below(7)];
                let filler = self.numbers.one_of(&["x", "# ", " ", "10.0.0.1 ", "ß", ","]);
                let mut long = format!("{name} ");
                while long.len() < len {
                    long.push_str(filler);
                }
                while long.len() > len {
                    long.pop();
                }
                lines.insert(at, long);
            }
            6 => {
                if let Some(line) = lines.get(at).cloned() {
                    lines.insert(at, line);
                }
            }
            7 => drop((at < lines.len()).then(|| lines.remove(at))),
            8 => {
                let odd = self.numbers.one_of(ODD);
                if let Some(line) = lines.get_mut(at) {
                    let places: Vec<_> = line.char_indices().map(|(place, _)| place).collect();
                    let place = places.get(self.numbers.below(places.len())).copied().unwrap_or(0);
                    line.insert_str(place, odd);
                }
            }
            9 => {
                // Many of one kind: more than there may be.
                let count = self.numbers.below(80);
                for number in 0..count {
                    let value = match name {
                        "AdvertisePrefix" => format!("2001:db8:{number:x}::/64"),
                        "AdvertiseRoute" => format!("2001:db8:{number:x}::/48"),
                        "AdvertiseDns" => format!("2001:db8::{number:x}"),
                        "AdvertiseSearch" => format!("domain-number-{number}.example"),
                        _ => format!("10.0.{number}.0/24"),
                    };
                    lines.insert(at, format!("{name} {value}"));
                }
            }
            _ => {
                if let Some(line) = lines.get_mut(at) {
                    *line = line.split_whitespace().rev().collect::<Vec<_>>().join(" ");
                }
            }
        }
    }

    fn bytes(&mut self) -> Vec<u8> {
        let len = self.numbers.below(2000);
        let text = self.numbers.chance(2);
        (0..len)
            .map(|_| {
                let byte = self.numbers.next().to_le_bytes()[0];
                if text {
                    b" \n\t#,:/.-abcMtuTl0123456789"[usize::from(byte) % 27]
                } else {
                    byte
                }
            })
            .collect()
    }

    fn huge(&mut self) -> Vec<u8> {
        let (name, after) = match self.numbers.below(6) {
            0 => ("# nothing but comments, and much of it", ""),
            1 => ("x", ""),
            // Right, line by line, and no two alike.
            2 => ("SiteNetwork ", "/32"),
            3 => ("ServerAddress ", ""),
            4 => ("PathMtu dynamic ", "/32"),
            _ => (self.numbers.one_of(NAMES), ""),
        };
        let mut text = String::with_capacity(HUGE + 64);
        for number in 0x0a00_0001_u32.. {
            if text.len() >= HUGE {
                break;
            }
            let end = if name == "x" { "" } else { "\n" };
            let value = std::net::Ipv4Addr::from_bits(number);
            if name.ends_with(' ') {
                let _ = write!(text, "{name}{value}{after}{end}");
            } else {
                let _ = write!(text, "{name}{end}");
            }
        }
        text.into_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_makes_the_same_files_again() {
        let some = |seed| -> Vec<_> {
            let mut files = ConfigFiles::new(seed, &[]);
            (0..200).map(|_| files.make()).collect()
        };
        assert_eq!(some(7), some(7));
        assert_ne!(some(7), some(8));
        let of = |kind| some(7).iter().filter(|(made, _)| *made == kind).count();
        assert!(of(Kind::Right) > 20 && of(Kind::Changed) > 60 && of(Kind::Bytes) > 5);
    }

    #[test]
    fn names_can_be_left_out() {
        let mut files = ConfigFiles::new(7, &["Mtu", "User"]);
        for _ in 0..100 {
            let text = files.right();
            let names = text.lines().filter_map(|line| line.split_whitespace().next());
            assert!(
                !names
                    .map(str::to_lowercase)
                    .any(|name| name == "mtu" || name == "user"),
                "{text}"
            );
        }
    }
}
