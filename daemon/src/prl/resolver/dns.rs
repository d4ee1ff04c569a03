//! One name over DNS: which names are asked for, which servers are asked, and what counts as an answer.
//!
//! The protocol is hickory's: truncated answers go on over TCP, aliases are followed with a bound, ports and numbers of
//! queries are random. The order of servers and names is resolv.conf(5)'s, with one difference: a single label is never
//! asked for as it stands, only inside the `search` list, so that `isatap` does not leak to the root (FAULTS 47).

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{
    NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts, ServerOrderingStrategy,
};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::proto::op::ResponseCode;
use hickory_resolver::proto::rr::{Name, RData, Record};
use resolv_conf::ScopedIp;

use super::LOOKUP_LIMIT;
use crate::prl::names::{Answer, LookupError};

/// Servers used, as of resolv.conf(5).
const MAX_SERVERS: u32 = 3;
/// Search domains used.
const MAX_SEARCH: usize = 16;
/// Attempts with each server, at most (resolv.conf(5)).
const MAX_ATTEMPTS: u32 = 5;
/// Aliases followed inside one answer.
const MAX_ALIASES: usize = 16;
const DNS_PORT: u16 = 53;

/// What matters of `resolv.conf`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Settings {
    servers: Vec<SocketAddr>,
    search: Vec<String>,
    ndots: usize,
    attempts: u32,
    /// For one server, once.
    timeout: Duration,
}

impl Settings {
    /// Reads `resolv.conf`; lines that are wrong are ignored, as everywhere. Without a server it is this machine.
    pub(super) fn parse(bytes: &[u8]) -> Self {
        let (config, _) = resolv_conf::Config::parse_with_errors(bytes);
        // A scoped IPv6 server cannot be asked: the library knows no scopes.
        let usable = config.nameservers.iter().filter_map(|server| match server {
            ScopedIp::V4(addr) => Some(IpAddr::from(*addr)),
            ScopedIp::V6(addr, None) => Some(IpAddr::from(*addr)),
            ScopedIp::V6(_, Some(_)) => None,
        });
        let mut servers: Vec<_> = usable
            .take(MAX_SERVERS as usize)
            .map(|addr| SocketAddr::new(addr, DNS_PORT))
            .collect();
        if config.nameservers.is_empty() {
            servers.push(SocketAddr::from((Ipv4Addr::LOCALHOST, DNS_PORT)));
        }
        let search = config.get_last_search_or_domain();
        let timeout = Duration::from_secs(u64::from(config.timeout.max(1)));
        Self {
            search: search.take(MAX_SEARCH).cloned().collect(),
            ndots: config.ndots as usize,
            attempts: config.attempts.clamp(1, MAX_ATTEMPTS),
            // So that each server has its turn within the limit.
            timeout: timeout.min(LOOKUP_LIMIT / MAX_SERVERS),
            servers,
        }
    }

    /// The names to ask for, in order.
    fn candidates(&self, name: &str) -> Vec<Name> {
        let parse = |text: &str| {
            let mut name = Name::from_str_relaxed(text).ok()?;
            name.set_fqdn(true);
            Some(name)
        };
        if name.ends_with('.') {
            return parse(name).into_iter().collect();
        }
        let dots = name.matches('.').count();
        let domains = self.search.iter().map(|domain| domain.trim_matches('.'));
        let searched = domains.filter_map(|domain| parse(&format!("{name}.{domain}")));
        // The root is no domain to search in, nor is one that comes to nothing when it is read, as `\` does: the name would go
        // out as it stands.
        let searched = searched.filter(|longer| usize::from(longer.num_labels()) > dots + 1);
        match dots {
            0 => searched.collect(),
            dots if dots < self.ndots => searched.chain(parse(name)).collect(),
            _ => parse(name).into_iter().collect(),
        }
    }
}

/// What a lookup by a `resolv.conf` comes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Questions {
    /// The names that are asked for, in order.
    pub names: Vec<Name>,
    /// The servers that are asked, in order.
    pub servers: Vec<SocketAddr>,
    /// How often each of them, for each name.
    pub attempts: u32,
    /// For how long each time.
    pub timeout: Duration,
}

/// What would be asked for the sake of `name` by this `resolv.conf`.
pub fn questions(resolv_conf: &[u8], name: &str) -> Questions {
    let settings = Settings::parse(resolv_conf);
    Questions {
        names: settings.candidates(name),
        servers: settings.servers,
        attempts: settings.attempts,
        timeout: settings.timeout,
    }
}

/// Looks `name` up. The first name that exists with addresses counts; one nobody can tell about ends the search, since
/// it might be the right one.
pub(super) async fn look_up(settings: &Settings, name: &str) -> Result<Answer, LookupError> {
    let candidates = settings.candidates(name);
    if candidates.is_empty() {
        let why = "a name without dots is looked up only inside the search list of /etc/resolv.conf, which is empty";
        return Err(LookupError::Temporary(why.into()));
    }
    let mut denial = LookupError::NoSuchName;
    let mut servers = settings.servers.clone();
    for candidate in candidates {
        match ask_servers(settings, &mut servers, &candidate).await {
            Ok(answer) => return Ok(answer),
            Err(LookupError::NoSuchName) => {}
            Err(LookupError::NoAddress) => denial = LookupError::NoAddress,
            Err(temporary) => return Err(temporary),
        }
    }
    Err(denial)
}

/// Asks one after the other. Whoever answers comes first for the names that follow: those that are silent would take the time
/// of the whole lookup.
async fn ask_servers(
    settings: &Settings,
    servers: &mut [SocketAddr],
    name: &Name,
) -> Result<Answer, LookupError> {
    let mut last = "no name server in /etc/resolv.conf can be asked".to_owned();
    for _ in 0..settings.attempts {
        for at in 0..servers.len() {
            match ask(servers[at], name, settings.timeout).await {
                Err(LookupError::Temporary(why)) => last = format!("{why} ({})", servers[at].ip()),
                // Yes and no are both answers.
                result => {
                    servers[..=at].rotate_right(1);
                    return result;
                }
            }
        }
    }
    Err(LookupError::Temporary(last))
}

async fn ask(server: SocketAddr, name: &Name, timeout: Duration) -> Result<Answer, LookupError> {
    let mut config = NameServerConfig::udp_and_tcp(server.ip());
    for connection in &mut config.connections {
        connection.port = server.port();
    }
    let mut options = ResolverOpts::default();
    options.timeout = timeout;
    options.attempts = 0;
    options.cache_size = 0;
    options.use_hosts_file = ResolveHosts::Never;
    options.server_ordering_strategy = ServerOrderingStrategy::UserProvidedOrder;
    options.preserve_intermediates = true;
    // As a stub that asks a resolver nearby: short questions pass old middleboxes.
    options.edns0 = false;
    let config = ResolverConfig::from_name_servers(vec![config]);
    let resolver = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default())
        .with_options(options)
        .build()
        .map_err(|error| failure(&error))?;
    match tokio::time::timeout(timeout, resolver.ipv4_lookup(name.clone())).await {
        Ok(Ok(lookup)) => answer(name, lookup.answers()),
        Ok(Err(error)) => Err(failure(&error)),
        Err(_) => Err(LookupError::Temporary("no answer".into())),
    }
}

/// The addresses of `name` itself among the records of an answer, through its aliases there; others are nobody's business.
///
/// # Errors
/// There are none, or the aliases lead nowhere.
pub fn answer(name: &Name, records: &[Record]) -> Result<Answer, LookupError> {
    let mut names = vec![name];
    let mut ttl = u32::MAX;
    while names.len() <= MAX_ALIASES {
        let alias = records.iter().find_map(|record| match &record.data {
            RData::CNAME(target) if Some(&&record.name) == names.last() => Some((&target.0, record.ttl)),
            _ => None,
        });
        match alias {
            Some((target, of_alias)) if !names.contains(&target) => {
                names.push(target);
                ttl = ttl.min(of_alias);
            }
            _ => break,
        }
    }
    let mut addrs = Vec::new();
    for record in records.iter().filter(|record| names.contains(&&record.name)) {
        if let RData::A(addr) = &record.data {
            addrs.push(addr.0);
            ttl = ttl.min(record.ttl);
        }
    }
    if addrs.is_empty() && names.len() > 1 {
        // The end of a chain that ends is asked for, and then says itself that it is not there.
        return Err(LookupError::Temporary(
            "its aliases lead in a circle, or too far".into(),
        ));
    }
    if addrs.is_empty() {
        return Err(LookupError::NoAddress);
    }
    Ok(Answer {
        addrs,
        // RFC 2181 8: a TTL with the top bit set is 0.
        ttl: Duration::from_secs(u64::from(if ttl > u32::MAX / 2 { 0 } else { ttl })),
        from_hosts_file: false,
    })
}

/// Whether a failure is an answer, and in which words it is told.
fn failure(error: &NetError) -> LookupError {
    match error {
        NetError::Dns(DnsError::NoRecordsFound(none)) => match none.response_code {
            ResponseCode::NXDomain => LookupError::NoSuchName,
            ResponseCode::NoError => LookupError::NoAddress,
            code => LookupError::Temporary(format!("the name server says: {code}")),
        },
        NetError::Dns(DnsError::ResponseCode(code)) => {
            LookupError::Temporary(format!("the name server says: {code}"))
        }
        NetError::Timeout => LookupError::Temporary("no answer".into()),
        error => LookupError::Temporary(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hickory_resolver::proto::rr::rdata::{A, CNAME};

    fn settings(text: &str) -> Settings {
        Settings::parse(text.as_bytes())
    }

    #[test]
    fn settings_are_those_of_the_manual() {
        let plain = settings("");
        assert_eq!(plain.servers, ["127.0.0.1:53".parse().unwrap()]);
        assert_eq!((plain.attempts, plain.ndots), (2, 1));
        let full = settings(
            "nameserver 192.0.2.1\nnonsense\nnameserver fe80::1%eth0\nnameserver 2001:db8::1\nnameserver 192.0.2.2\n\
             nameserver 192.0.2.3\nsearch a.example b.example\noptions ndots:2 timeout:1 attempts:99\n",
        );
        let servers: Vec<_> = full.servers.iter().map(SocketAddr::to_string).collect();
        assert_eq!(servers, ["192.0.2.1:53", "[2001:db8::1]:53", "192.0.2.2:53"]);
        assert_eq!((full.attempts, full.timeout), (5, Duration::from_secs(1)));
        assert!(settings("nameserver fe80::1%eth0").servers.is_empty());
        assert!(settings("options timeout:30").timeout * 3 <= LOOKUP_LIMIT);
        settings(&"\u{1}\0search".repeat(1000));
    }

    /// FAULTS 47, L8.
    #[test]
    fn a_single_label_stays_inside_the_search_list() {
        let asked = |text: &str, name: &str| -> Vec<String> {
            settings(text)
                .candidates(name)
                .iter()
                .map(Name::to_string)
                .collect()
        };
        let search = "search a.example b.example.\n";
        let inside = ["isatap.a.example.", "isatap.b.example."];
        assert_eq!(asked(search, "isatap"), inside);
        assert_eq!(asked("domain a.example\n", "isatap"), ["isatap.a.example."]);
        assert_eq!(asked("", "isatap"), Vec::<String>::new());
        // As systemd-resolved writes it on a machine that has no search domain.
        assert_eq!(asked("search .\n", "isatap"), Vec::<String>::new());
        assert_eq!(asked("search . a.example\n", "isatap"), ["isatap.a.example."]);
        assert_eq!(asked("search \\ .. a.example\n", "isatap"), ["isatap.a.example."]);
        assert_eq!(asked(search, "isatap."), ["isatap."], "an operator insists");
        assert_eq!(asked(search, "x.example"), ["x.example."]);
        assert_eq!(asked(search, "x_y.example"), ["x_y.example."]);
        let ndots = format!("{search}options ndots:2\n");
        assert_eq!(
            asked(&ndots, "isatap.x"),
            ["isatap.x.a.example.", "isatap.x.b.example.", "isatap.x."]
        );
        assert_eq!(asked(&ndots, "a.b.c"), ["a.b.c."]);
    }

    fn name(text: &str) -> Name {
        Name::from_ascii(text).unwrap()
    }

    fn a(owner: &str, ttl: u32, last: u8) -> Record {
        Record::from_rdata(name(owner), ttl, RData::A(A(Ipv4Addr::new(10, 0, 0, last))))
    }

    fn alias(owner: &str, ttl: u32, target: &str) -> Record {
        Record::from_rdata(name(owner), ttl, RData::CNAME(CNAME(name(target))))
    }

    #[test]
    fn addresses_of_other_names_do_not_count() {
        let found = |records: &[Record]| {
            answer(&name("x."), records).map(|answer| {
                let last: Vec<_> = answer.addrs.iter().map(|addr| addr.octets()[3]).collect();
                (last, answer.ttl.as_secs())
            })
        };
        assert_eq!(found(&[a("x.", 60, 1), a("X.", 30, 2)]), Ok((vec![1, 2], 30)));
        assert_eq!(found(&[a("y.", 60, 1), a("x.", 70, 2)]), Ok((vec![2], 70)));
        assert_eq!(found(&[a("y.", 60, 1)]), Err(LookupError::NoAddress));
        // The least TTL on the way, whatever the order of the records.
        let chain = [a("z.", 60, 1), alias("y.", 40, "z."), alias("x.", 50, "y.")];
        assert_eq!(found(&chain), Ok((vec![1], 40)));
        let circle = [alias("x.", 50, "y."), alias("y.", 50, "x.")];
        let endless = Err(LookupError::Temporary(
            "its aliases lead in a circle, or too far".into(),
        ));
        assert_eq!(found(&circle), endless);
        assert_eq!(found(&[a("x.", u32::MAX, 1)]), Ok((vec![1], 0)));
        let long: Vec<_> = (0..100)
            .map(|i| alias(&format!("x{i}."), 5, &format!("x{}.", i + 1)))
            .chain([alias("x.", 5, "x0."), a("x100.", 5, 1)])
            .collect();
        assert_eq!(found(&long), endless);
    }
}
