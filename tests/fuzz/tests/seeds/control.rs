//! What control reads: files, requests, pages asked for, messages of name servers.

use std::net::Ipv4Addr;

use isatapd::config::kept::{Kept, Memory};

use super::write;

pub(super) fn write_seeds() {
    configurations();
    kept();
    known_hosts();
    requests();
    name_answers();
    dns_messages();
    resolv_confs();
    http();
}

fn configurations() {
    let example = include_str!("../../../../daemon/isatapd.conf");
    let uncommented: Vec<_> = example
        .lines()
        .filter_map(|line| line.strip_prefix('#'))
        .filter(|line| line.starts_with(|c: char| c.is_ascii_uppercase()))
        .collect();
    let mut files = vec![example.as_bytes().to_vec(), uncommented.join("\n").into_bytes()];
    files.extend(uncommented.iter().map(|line| line.as_bytes().to_vec()));
    files.extend(
        [
            &b"Mtu 1280\r\nMtu 1280\r\n"[..],
            b"\0",
            b"\xff\xfe",
            b"InterfaceName \xc3\xa4\n",
            b"Nope x",
        ]
        .map(<[u8]>::to_vec),
    );
    write("configuration", files);
}

/// IPv4 address, locator, first half of the identifier, tenths of a second, queue.
fn known_hosts() {
    const IDENTIFIER: u32 = 0x0000_5efe;
    let host = |v4: u32, heard_at: u32| [v4, 0x0a00_0001, IDENTIFIER, heard_at, heard_at % 2];
    let tables = [
        vec![],
        vec![host(0x0a00_0005, 89_000)],
        vec![host(0x0a00_0005, 89_000), host(0x0a00_0006, 90_000)],
        vec![host(0x0a00_0005, 89_000), host(0x0a00_0005, 88_000)],
        vec![host(0x0a00_0005, 88_000), [0; 5], host(0x0a00_0005, 89_000)],
        vec![host(0x0a00_0005, 90_001), host(0x0a00_0006, 0)],
        vec![
            host(0xe000_0001, 89_000),
            host(0xffff_ffff, 89_000),
            host(0, 89_000),
        ],
        vec![[0x0a00_0005, 0x0a00_0001, 0x0200_5efe, 89_000, 0]],
        vec![[0x0a00_0005, 0x0a00_0001, 0, 89_000, 1]],
        vec![[0x0a00_0005, 0x0a00_0001, 0x1234_5678, 89_000, 2]],
        vec![[0; 5], host(0x0a09_0909, 89_999), [u32::MAX; 5]],
        (0..20)
            .map(|number| host(0x0a01_0000 + number, 80_000 + number))
            .collect(),
    ];
    let bytes = |table: Vec<[u32; 5]>| table.concat().into_iter().flat_map(u32::to_be_bytes).collect();
    write("known_hosts", tables.map(bytes).to_vec());
}

fn kept() {
    let lines = [
        "",
        "BindAddress 10.0.0.1\nServerAddress 10.0.0.8\n",
        "BindAddress 10.0.0.1\nServerAddress isatap.example.net\nLane syscall\nDefaultRoute no\n",
        "BindAddress 10.0.0.1\nAdvertise yes\nAdvertisePrefix 2001:db8:1::/64 on-link\nAdvertiseRoute 2001:db8:2::/48\n",
        "BindAddress 10.0.0.1\nMtu 1400\nPathMtu dynamic\nPathMtu static 10.2.0.0/16\nTtl inherit\n",
        "BindAddress 10.0.0.1\nUser isatap\nControlSocket /run/x netops 0640\nMetricsListen off\n",
        "BindAddress 10.0.0.2\nWorkers 99999\n",
        "TeaTime 17\n",
    ];
    let memory = Memory {
        names: [("isatap.example.net".to_owned(), vec![Ipv4Addr::new(10, 0, 0, 8)])].into(),
        users: [
            ("isatap".to_owned(), (100, 100)),
            ("nobody".to_owned(), (65534, 65534)),
        ]
        .into(),
        groups: [("netops".to_owned(), 7)].into(),
    };
    let kept = lines.iter().enumerate().map(|(number, lines)| {
        Kept {
            locator: Ipv4Addr::new(10, 0, 0, 1),
            lines: (*lines).to_owned(),
            memory: if number % 4 == 3 {
                Memory::default()
            } else {
                memory.clone()
            },
            drained: number % 2 == 1,
            drained_at: (number % 4 == 1).then_some(u64::MAX >> number),
            taken_back: Vec::new(),
            routers: [(
                "isatap.example.net".to_owned(),
                vec![Ipv4Addr::new(10, 0, 0, 8); number % 3],
            )]
            .into(),
            heard: Vec::new(),
            paths: Vec::new(),
        }
        .encode()
    });
    let taken_back = [
        r#"{"item":{"prefix":{"prefix":"2001:db8:1::/64","was_on_link":true,"hosts":"10.0.1.0/24"}},"until":7200}"#,
        r#"{"item":{"prefix":{"prefix":"2001:db8:1::/64","was_on_link":false,"hosts":null}},"until":0}"#,
        r#"{"item":{"route":"2001:db8::/32"},"until":18446744073709551615},{"item":{"server":"2001:db8::53"},"until":1}"#,
        r#"{"item":{"domain":"corp.example"},"until":1},{"item":{"domain":"a..b"},"until":1}"#,
    ]
    .map(|taken| {
        let memory = r#"{"names":{},"users":{},"groups":{}}"#;
        let text = format!(r#"{{"locator":"10.0.0.1","lines":"","memory":{memory},"taken_back":[{taken}]}}"#);
        text.into_bytes()
    });
    let routers = [
        r#"{"isatap.example.net":["10.0.0.8","127.0.0.1","224.0.0.1","10.0.0.8","0.0.0.0","10.0.0.9"]}"#
            .to_owned(),
        format!(
            r#"{{"a":[],"b":[{}]}}"#,
            (0..99)
                .map(|n| format!(r#""10.1.0.{n}""#))
                .collect::<Vec<_>>()
                .join(",")
        ),
    ]
    .map(|routers| {
        let memory = r#"{"names":{},"users":{},"groups":{}}"#;
        format!(r#"{{"locator":"10.0.0.1","lines":"","memory":{memory},"routers":{routers}}}"#).into_bytes()
    });
    let paths = [
        r#"{"peer":"10.0.0.2","mtu":1400,"heard_at":3599000,"raise_at":4199000},{"peer":"10.0.0.2","mtu":600,"heard_at":1,"raise_at":1}"#,
        r#"{"peer":"10.0.0.3","mtu":0,"heard_at":18446744073709551615,"raise_at":18446744073709551615}"#,
    ]
    .map(|paths| {
        let memory = r#"{"names":{},"users":{},"groups":{}}"#;
        format!(r#"{{"locator":"10.0.0.1","lines":"","memory":{memory},"paths":[{paths}]}}"#).into_bytes()
    });
    let odd = [&b"{}"[..], b"[", b"null"].map(<[u8]>::to_vec);
    write(
        "kept_configuration",
        kept.chain(taken_back).chain(routers).chain(odd).chain(paths),
    );
}

fn requests() {
    let requests = [
        "status",
        "routes",
        "hosts",
        "histogram",
        "reload",
        "solicit",
        "tea",
    ]
    .map(|command| format!(r#"{{"version":1,"command":"{command}"}}"#));
    let odd = [
        r#"{"version":1,"command":{"hosts":{"within":"10.1.0.0/16"}}}"#,
        r#"{"version":1,"command":{"hosts":{"within":"10.1.0.0/33"}}}"#,
        r#"{"version":1,"command":{"drain":{"undo":true}}}"#,
        r#"{"version":2,"order":"tea"}"#,
        r#"{"version":1,"command":{"explain":{"src4":null,"src6":"fe80::1","dst6":"::1"}}}"#,
        "GET / HTTP/1.1",
        "[",
        "{}",
        r#"{"version":1,"command":"status","version":1}"#,
    ];
    write(
        "control_request",
        requests
            .iter()
            .map(String::as_str)
            .chain(odd)
            .map(|line| line.as_bytes().to_vec()),
    );
}

fn name_answers() {
    let answer = |what: u8, addrs: &[u32]| {
        let mut input = Vec::new();
        for _ in 0..3 {
            input.extend_from_slice(&600u16.to_le_bytes());
            input.push(what);
            input.extend_from_slice(&60u32.to_le_bytes());
            input.push(u8::try_from(addrs.len()).expect("few"));
            addrs
                .iter()
                .for_each(|addr| input.extend_from_slice(&addr.to_le_bytes()));
        }
        input
    };
    let lists: [&[u32]; 6] = [
        &[0x0a00_0009],
        &[0, 0x7f00_0001, 0xe000_0001, 0xffff_ffff],
        &[0x0a00_0001, 0x0a00_0008, 0x0a00_0009, 0x0a00_0009],
        &[0x0a00_0100; 70],
        &(0x0a00_0100..0x0a00_0180).collect::<Vec<_>>(),
        &[],
    ];
    write(
        "name_answers",
        lists
            .iter()
            .flat_map(|list| [0, 1, 2, 3, 11].map(|what| answer(what, list)))
            .step_by(2),
    );
}

fn resolv_confs() {
    let files = [
        "",
        "nameserver 192.0.2.1\nsearch a.example b.example.\noptions ndots:2 timeout:1 attempts:99\n",
        "nameserver fe80::1%eth0\nnameserver 2001:db8::1\nnameserver 192.0.2.2\nnameserver 192.0.2.3\nnameserver 192.0.2.4\n",
        "domain a.example\noptions timeout:0 attempts:0\n",
        "search .\n",
        "search a.example\nsearch ..b.example.. x\noptions ndots:15 timeout:30\n",
        "nonsense\nnameserver 300.1.1.1\n; a comment\n",
    ];
    let long = format!("search{}\n", " a.example".repeat(40));
    let names = ["isatap", "isatap.", "x.example", "x_y.example.", "a.b.c"];
    let files = files.iter().copied().chain([&long[..]]);
    write(
        "resolv_conf",
        files.flat_map(|file| names.map(|name| format!("{name}\n{file}").into_bytes())),
    );
}

/// A name as it goes over the wire.
fn wire_name(name: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    for label in name.split('.').filter(|label| !label.is_empty()) {
        bytes.push(u8::try_from(label.len()).expect("a label"));
        bytes.extend_from_slice(label.as_bytes());
    }
    bytes.push(0);
    bytes
}

/// An answer with these records: owner, type, TTL, data (RFC 1035 4.1).
fn dns_message(records: &[(&str, u16, u32, Vec<u8>)]) -> Vec<u8> {
    let count = u16::try_from(records.len()).expect("few").to_be_bytes();
    let mut message = vec![0x12, 0x34, 0x81, 0x80, 0, 1, count[0], count[1], 0, 0, 0, 0];
    message.extend(wire_name("isatap.example.net"));
    message.extend([0, 1, 0, 1]);
    for (owner, kind, ttl, data) in records {
        message.extend(wire_name(owner));
        message.extend(kind.to_be_bytes());
        message.extend([0, 1]);
        message.extend(ttl.to_be_bytes());
        message.extend(u16::try_from(data.len()).expect("short").to_be_bytes());
        message.extend(data);
    }
    message
}

fn dns_messages() {
    const ASKED: &str = "isatap.example.net";
    let a = |owner: &'static str, ttl, last| (owner, 1, ttl, vec![10, 0, 0, last]);
    let alias = |owner: &'static str, ttl, target| (owner, 5, ttl, wire_name(target));
    let mut compressed = dns_message(&[]);
    compressed[7] = 1;
    compressed.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 10, 0, 0, 9]);
    let mut endless = dns_message(&[]);
    endless[7] = 1;
    let at = u8::try_from(endless.len()).expect("a short message");
    endless.extend([0xc0, at, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 10, 0, 0, 9]);
    let mut failed = dns_message(&[]);
    failed[3] = 0x83;
    let mut truncated = dns_message(&[a(ASKED, 60, 8)]);
    truncated[2] |= 2;
    write(
        "dns_message",
        [
            dns_message(&[a(ASKED, 60, 8)]),
            dns_message(&[a(ASKED, 60, 8), a(ASKED, 30, 9), a("other.example.net", 5, 10)]),
            dns_message(&[alias(ASKED, 50, "r.example.net"), a("r.example.net", 40, 8)]),
            dns_message(&[
                a("s.example.net", 40, 8),
                alias("r.example.net", 30, "s.example.net"),
                alias(ASKED, 50, "r.example.net"),
            ]),
            dns_message(&[
                alias(ASKED, 50, "r.example.net"),
                alias("r.example.net", 50, ASKED),
            ]),
            dns_message(&[a(ASKED, u32::MAX, 8)]),
            dns_message(&[(ASKED, 28, 60, vec![0; 16]), (ASKED, 16, 60, b"\x03txt".to_vec())]),
            dns_message(&[(ASKED, 1, 60, vec![10, 0, 0])]),
            dns_message(&[]),
            compressed,
            endless,
            failed,
            truncated,
            b"\0\0".to_vec(),
        ],
    );
}

/// Requests behind the byte that says how they are cut.
fn http() {
    let get = |path: &str| format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n");
    let pages = [
        "/",
        "/metrics",
        "/healthz",
        "/ready",
        "/api/v1/status",
        "/nowhere",
    ]
    .map(get);
    let mut all: Vec<String> = pages.to_vec();
    all.extend(
        [
            "GET / HTTP/1.0\r\n\r\n",
            "GET /healthz HTTP/1.0\r\nConnection: keep-alive\r\n\r\nGET /ready HTTP/1.0\r\n\r\n",
            "HEAD /metrics HTTP/1.1\r\nHost: x\r\n\r\nHEAD /nowhere HTTP/1.1\r\n\r\n",
            "POST /metrics HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello",
            "POST /ready HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
            "GET /healthz HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n",
            "GET /healthz HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            "OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n",
            "CONNECT x:80 HTTP/1.1\r\nHost: x:80\r\n\r\n",
            "GET http://x/healthz HTTP/1.1\r\n\r\n",
            "GET /healthz HTTP/1.1\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n\r\n",
            "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
            "GET /%00%ff%2e%2e/../etc HTTP/1.1\r\n\r\n",
            "GET /api/v1/live HTTP/1.1\r\nLast-Event-ID: 7\r\n\r\n",
            "GET /healthz HTTP/1.1\r\nX: a\r\n b\r\n\r\n",
            "GET /healthz HTTP/9.9\r\n\r\n",
            "\r\n\r\nGET /healthz HTTP/1.1\n\n",
            "GET /metrics HTTP/1.1\r\nX-Slow: ",
            "\u{16}\u{3}\u{1}",
        ]
        .map(str::to_owned),
    );
    all.push(pages.concat());
    all.push(get("/healthz").repeat(100));
    all.push(format!("GET /{} HTTP/1.1\r\n\r\n", "a".repeat(2000)));
    all.push(format!("GET / HTTP/1.1\r\n{}\r\n", "A: b\r\n".repeat(120)));
    let cut = |(number, text): (usize, String)| {
        let cut = u8::try_from(number % 3).expect("a small number");
        [&[cut], text.as_bytes()].concat()
    };
    write("http", all.into_iter().enumerate().map(cut));
}
