//! Every name of the configuration file: how it is spelled, how often it may appear, what a reload does with it.
//!
//! One list; parser, error messages, reload plan, example file and manual are checked against it.

use std::fmt;

/// What a reload does with a changed value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reload {
    /// Takes effect at once.
    Live,
    /// Takes effect at the next start.
    Restart,
}

/// How often a name may appear in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Repeat {
    /// Once.
    Once,
    /// Any number of times; the values add up.
    Many,
    /// Once without a network, and any number of times with one.
    OncePlusNetworks,
}

macro_rules! names {
    ($($name:ident $repeat:ident $reload:ident $takes:literal)*) => {
        /// A name of the configuration file.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Key {
            $(
                #[doc = concat!("`", stringify!($name), "`: ", $takes, ".")]
                $name,
            )*
        }

        impl Key {
            /// All of them, in the order of the manual.
            pub const ALL: &[Self] = &[$(Self::$name),*];

            /// The spelling of the manual.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$name => stringify!($name)),* }
            }

            /// What stands after the name, for messages.
            pub const fn takes(self) -> &'static str {
                match self { $(Self::$name => $takes),* }
            }

            /// How often the name may appear.
            pub const fn repeat(self) -> Repeat {
                match self { $(Self::$name => Repeat::$repeat),* }
            }

            /// What a reload does with a changed value.
            pub const fn reload(self) -> Reload {
                match self { $(Self::$name => Reload::$reload),* }
            }
        }
    };
}

names! {
    InterfaceName Once Restart "an interface name of at most 15 characters"
    BindAddress Once Live "\"auto\", an IPv4 address or a host name"
    ServerAddress Many Live "IPv4 addresses or host names"
    SyslogFacility Once Live "a syslog facility such as daemon or local0"
    LogLevel Once Live "error, warn, info or debug"
    Workers Once Restart "a number from 1 to 128"
    Lane Once Restart "auto, ebpf, uring or syscall"
    Mtu Once Live "a number from 1280 to 65515"
    PathMtu OncePlusNetworks Live "static or dynamic, and an IPv4 network if it is for that only"
    Ttl Once Live "inherit or a number from 1 to 255"
    Dscp Once Live "inherit or a number from 0 to 63"
    Ecn OncePlusNetworks Live "normal or compat, and an IPv4 network if it is for that only"
    PrlRefreshInterval Once Live "a number of seconds from 1 to 4294967294, or infinite"
    MinRouterSolicitInterval Once Live "a number of seconds from 1 to 4294967294, or infinite"
    SiteNetwork Many Live "IPv4 networks such as 10.0.0.0/8, \"private\" or \"any\""
    PeerRouter Many Live "IPv4 addresses or host names"
    NestedTunnels Once Live "yes or no"
    StrictIngress Once Live "yes or no"
    LoopChecks Once Live "yes or no"
    Advertise Once Live "yes or no"
    AdvertisePrefix Many Live "an IPv6 prefix of 64 bits, then [on-link] [valid S] [preferred S] [for IPv4-network]"
    AdvertiseRoute Many Live "an IPv6 prefix, then [preference low|medium|high] [lifetime S]"
    AdvertiseDns Many Live "IPv6 addresses of name servers, then [lifetime S]"
    AdvertiseSearch Many Live "domain names, then [lifetime S]"
    AdvertiseMtu Once Live "a number from 1280 to 65515"
    RouterLifetime Once Live "a number of seconds from 0 to 9000"
    RouterPreference Once Live "low, medium or high"
    DefaultRoute Once Live "yes or no, then [metric N]"
    MetricsListen Once Live "an address with a port such as 127.0.0.1:9441, or off"
    ControlSocket Once Restart "an absolute path, then [GROUP [MODE]]"
    User Once Restart "a user name"
    ChrootDir Once Restart "an absolute path"
    PidFile Once Restart "an absolute path"
    SandboxWaive Many Restart "seccomp, landlock or ring"
}

impl Key {
    /// The key spelled `text`, in any case.
    pub fn from_text(text: &str) -> Option<Self> {
        Self::ALL
            .iter()
            .copied()
            .find(|key| key.name().eq_ignore_ascii_case(text))
    }

    /// Whether the example file shows its default; the line of any other is an example.
    pub const fn has_default(self) -> bool {
        !matches!(
            self,
            Self::ServerAddress
                | Self::PeerRouter
                | Self::Workers
                | Self::AdvertisePrefix
                | Self::AdvertiseRoute
                | Self::AdvertiseDns
                | Self::AdvertiseSearch
                | Self::AdvertiseMtu
                | Self::SandboxWaive
        )
    }

    /// Whether the value is a path, in which a comma separates nothing.
    pub const fn takes_path(self) -> bool {
        matches!(self, Self::ControlSocket | Self::ChrootDir | Self::PidFile)
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found_in_any_case() {
        for key in Key::ALL {
            assert_eq!(Key::from_text(&key.name().to_lowercase()), Some(*key));
            assert_eq!(Key::from_text(&key.name().to_uppercase()), Some(*key));
        }
        assert_eq!(Key::from_text("Interface"), None);
    }

    #[test]
    fn the_text_about_workers_has_the_engines_limit() {
        let limit = crate::config::engine_types::MAX_WORKERS;
        assert_eq!(Key::Workers.takes(), format!("a number from 1 to {limit}"));
    }

    #[test]
    fn what_needs_a_restart() {
        let restart: Vec<_> = Key::ALL
            .iter()
            .filter(|key| key.reload() == Reload::Restart)
            .collect();
        let expected = [
            Key::InterfaceName,
            Key::Workers,
            Key::Lane,
            Key::ControlSocket,
            Key::User,
            Key::ChrootDir,
            Key::PidFile,
            Key::SandboxWaive,
        ];
        assert_eq!(restart, expected.iter().collect::<Vec<_>>());
    }
}
