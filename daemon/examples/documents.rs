//! Writes what a package installs beside the programs: man pages and shell completions, from the definitions themselves.
//!
//! `documents DIR` makes `DIR/man/isatapd.8`, `isatapctl.8`, `isatapd.conf.5`, and `DIR/completions/`.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use clap::{Arg, Command, CommandFactory as _};
use clap_complete::Shell;
use clap_mangen::Man;
use clap_mangen::roff::{Roff, bold, italic, roman};
use isatap_engine::ebpf::Cause;
use isatap_engine::reason::DropReason;
use isatap_engine::stats::WorkerSnapshot;
use isatapd::config::names::{Key, Reload, Repeat};
use isatapd::ops::metrics::{self, Scrape};
use isatapd::ops::share::KernelShare;

const EXAMPLE: &str = include_str!("../isatapd.conf");
/// Of the last change that somebody who reads the pages would notice.
const DATE: &str = "2026-11-30";

const PROCESSES: &str = "The daemon is two processes. The monitor, whose process id is in the pid file and which signals go \
    to, keeps CAP_NET_ADMIN, CAP_NET_RAW, CAP_SYS_CHROOT, CAP_SETUID, CAP_SETGID, CAP_KILL, CAP_SETPCAP and, unless Lane says \
    uring or syscall, CAP_BPF and CAP_PERFMON, and reads nothing that came from the network. A filter of system calls (seccomp) \
    keeps it, and all that it starts or becomes, from those that no version of it has a reason for. The engine (isatapd-engine) has no capability, an empty root \
    directory, rules for what it reads and connects to (Landlock), a filter of system calls in each thread (seccomp), and rings \
    that take what packets need. Where the machine refuses rules or filters, the daemon does not start, unless SandboxWaive \
    names them; where rings cannot be restricted, the other lane carries, or Lane uring does not start. An engine is followed by another one when it dies or \
    stands still, with the same interface, addresses and routes. The monitor may be started as root, or, with those \
    capabilities as ambient ones, as the User of the configuration; then CAP_SETUID, CAP_SETGID and CAP_KILL are not \
    needed. isatapctl upgrade exchanges the program of both. When the daemon ends, its interface goes with it.";

fn main() -> Result<()> {
    let folder = std::env::args_os()
        .nth(1)
        .map(PathBuf::from)
        .context("usage: documents DIR")?;
    let (man, completions) = (folder.join("man"), folder.join("completions"));
    for folder in [&man, &completions] {
        fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
    }
    let programs = [isatapd::cli::command(), isatapd::ctl::cli::Cli::command()];
    for mut program in programs {
        program.build();
        let name = program.get_name().to_owned();
        write(&man.join(format!("{name}.8")), &page(&program)?)?;
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
            clap_complete::generate_to(shell, &mut program.clone(), &name, &completions)?;
        }
    }
    write(&man.join("isatapd.conf.5"), &configuration()?)
}

fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    let mut file = fs::File::create(path).with_context(|| path.display().to_string())?;
    Ok(file.write_all(bytes)?)
}

/// A program on one page, its commands included.
fn page(program: &Command) -> Result<Vec<u8>> {
    let man = Man::new(program.clone().mut_args(with_aliases))
        .section("8")
        .manual("isatapd")
        .date(DATE);
    let mut out = Vec::new();
    man.render_title(&mut out)?;
    man.render_name_section(&mut out)?;
    let mut synopsis = Roff::default();
    synopsis.control("SH", ["SYNOPSIS"]);
    synopsis.text([bold(usage(program))]);
    synopsis.to_writer(&mut out)?;
    man.render_description_section(&mut out)?;
    man.render_options_section(&mut out)?;
    let commands: Vec<_> = program
        .get_subcommands()
        .filter(|command| command.get_name() != "help")
        .collect();
    if !commands.is_empty() {
        Roff::default().control("SH", ["COMMANDS"]).to_writer(&mut out)?;
    }
    for command in commands {
        let mut roff = Roff::default();
        roff.control("SS", [usage(command).as_str()]);
        roff.text([roman(
            command.get_about().map(ToString::to_string).unwrap_or_default(),
        )]);
        for argument in command
            .get_arguments()
            .filter(|argument| !argument.is_global_set() && argument.get_id() != "help")
        {
            let Some(help) = argument.get_help() else { continue };
            roff.control("TP", []);
            roff.text([bold(option(argument))]);
            roff.text([roman(format!("{help}{}", values(argument)))]);
        }
        if let Some(text) = command.get_after_help() {
            for paragraph in text.to_string().split("\n\n") {
                roff.control("PP", []);
                roff.text([roman(paragraph.trim())]);
            }
        }
        roff.to_writer(&mut out)?;
    }
    let mut roff = Roff::default();
    let is_daemon = program.get_name() == "isatapd";
    if let Some(text) = program.get_after_help() {
        let title = match is_daemon {
            true => "EXIT STATUS AND SIGNALS",
            false => "EXIT STATUS",
        };
        roff.control("SH", [title]);
        roff.text([roman(text.to_string())]);
    }
    if is_daemon {
        lanes(&mut roff);
        service(&mut roff);
        roff.control("SH", ["PROCESSES"]);
        roff.text([roman(PROCESSES)]);
        figures(&mut roff);
    } else {
        reasons(&mut roff);
    }
    roff.control("SH", ["FILES"]);
    for (file, what) in [
        ("/etc/isatapd.conf", "the configuration"),
        ("/run/isatapd/control.sock", "the control socket"),
        ("/var/run/isatapd.pid", "the process id, locked"),
    ] {
        roff.control("TP", []);
        roff.text([italic(file)]);
        roff.text([roman(what)]);
    }
    see_also(&mut roff, program.get_name());
    roff.to_writer(&mut out)?;
    Ok(out)
}

/// The other pages than `page`.
fn see_also(roff: &mut Roff, page: &str) {
    roff.control("SH", ["SEE ALSO"]);
    let pages = [
        ("isatapd", 8),
        ("isatapctl", 8),
        ("isatapd.conf", 5),
        ("radvd.conf", 5),
    ];
    let mut line = Vec::new();
    for (name, section) in pages.into_iter().filter(|(name, _)| *name != page) {
        line.extend([bold(name), roman(format!("({section}), "))]);
    }
    line.push(roman("RFC 5214"));
    roff.text(line);
}

/// How a program or command is called.
fn usage(command: &Command) -> String {
    let text = command.clone().render_usage().to_string();
    text.trim_start_matches("Usage: ").to_owned()
}

/// The help of an option says its other names, too.
fn with_aliases(argument: Arg) -> Arg {
    let Some(aliases) = argument.get_visible_aliases().filter(|all| !all.is_empty()) else {
        return argument;
    };
    let names: Vec<_> = aliases.iter().map(|name| format!("--{name}")).collect();
    let help = argument.get_help().map(ToString::to_string).unwrap_or_default();
    argument.help(format!("{help} [alias: {}]", names.join(", ")))
}

/// All that may be written for an option: `-w, --write <FILE>`.
fn option(argument: &Arg) -> String {
    match argument.get_short() {
        Some(letter) => format!("-{letter}, {argument}"),
        None => argument.to_string(),
    }
}

/// What an option takes, and what it is without.
fn values(argument: &Arg) -> String {
    let mut text = String::new();
    let possible: Vec<_> = match argument.is_hide_possible_values_set() {
        true => Vec::new(),
        false => argument.get_possible_values(),
    };
    let possible: Vec<_> = possible.iter().map(|value| value.get_name()).collect();
    if argument.get_action().takes_values() && !possible.is_empty() {
        text.push_str(&format!(" [possible values: {}]", possible.join(", ")));
    }
    let defaults: Vec<_> = argument.get_default_values().iter().collect();
    if argument.get_action().takes_values() && !defaults.is_empty() {
        let defaults: Vec<_> = defaults.iter().map(|value| value.to_string_lossy()).collect();
        text.push_str(&format!(" [default: {}]", defaults.join(" ")));
    }
    text
}

/// Each reason to drop, and each cause for which the programs leave a packet to a worker.
fn reasons(roff: &mut Roff) {
    roff.control("SH", ["REASONS"]);
    roff.text([roman(
        "Each packet that is dropped has one of these reasons: in isatapctl drops and capture, and as the label reason of \
         isatapd_drops_total.",
    )]);
    for reason in DropReason::ALL {
        roff.control("TP", []);
        roff.text([bold(reason.name())]);
        roff.text([roman(reason.help())]);
    }
    roff.control("PP", []);
    roff.text([roman(
        "What the programs of the ebpf lane leave to workers has one of these causes: in isatapctl workers, and as the label cause of \
         isatapd_left_packets_total.",
    )]);
    for cause in Cause::ALL {
        roff.control("TP", []);
        roff.text([bold(cause.name())]);
        roff.text([roman(cause.help())]);
    }
}

/// What is served over HTTP: the pages, and each metric as its own page describes it.
fn figures(roff: &mut Roff) {
    roff.control("SH", ["HTTP AND METRICS"]);
    roff.text([roman(
        "MetricsListen (127.0.0.1:9441 unless configured otherwise) serves:",
    )]);
    for (path, what) in [
        ("/", "a dashboard, without anything from elsewhere"),
        ("/metrics", "the metrics below, for Prometheus"),
        ("/healthz", "status 200 while the daemon lives"),
        (
            "/ready",
            "status 200 while packets can be carried, else 503 with the reasons",
        ),
        ("/api/v1/status", "what isatapctl status --json prints"),
        ("/api/v1/live", "the same once a second (text/event-stream)"),
    ] {
        roff.control("TP", []);
        roff.text([bold(path)]);
        roff.text([roman(what)]);
    }
    roff.control("PP", []);
    roff.text([roman(
        "A packet is one read from or written to the kernel, a superpacket too. In each direction received = packets + punted + drops. \
         Bytes are those of inner packets. worker=\"kernel\" is what the programs of the ebpf lane carry.",
    )]);
    let page = metrics::encode(Scrape {
        workers: vec![WorkerSnapshot::default()],
        share: Some(KernelShare::default()),
        ..Scrape::default()
    });
    for line in page.lines() {
        let Some((name, help)) = line.strip_prefix("# HELP ").and_then(|line| line.split_once(' ')) else {
            continue;
        };
        roff.control("TP", []);
        roff.text([bold(name)]);
        roff.text([roman(help)]);
    }
}

/// What the daemon is to a service manager and a log.
fn service(roff: &mut Roff) {
    roff.control("SH", ["SERVICE AND LOG"]);
    roff.text([roman(
        "isatapd.service runs the daemon in the foreground as user isatapd, with its files in /run/isatapd. The service manager hears \
         when it serves, reloads and stops, one line of status whenever that changes, and signs of life. A reload by the service manager checks the file first.",
    )]);
    roff.control("PP", []);
    roff.text([roman(
        "A detached daemon logs to the system log (SyslogFacility, LogLevel), one in the foreground to standard error, or, where that \
         leads to the journal of systemd, there with the values of each event as fields: ISATAPD_ROUTER, ISATAPD_PEER, \
         ISATAPD_REASON, ISATAPD_INTERFACE, ISATAPD_NAME, ISATAPD_FILE, ISATAPD_LINE and others. One event is one line; of each kind ten \
         lines are written in a second, and how many were not is said with the next.",
    )]);
    roff.control("PP", []);
    roff.text([roman(
        "What a start needs: CAP_NET_ADMIN, CAP_NET_RAW and CAP_SYS_CHROOT; CAP_SETUID and CAP_SETGID unless it runs as the user \
         it is to become (--user) already, in no other group. CAP_BPF, if held, keeps each flow on its queue, and with CAP_PERFMON loads the programs of the ebpf lane.",
    )]);
}

/// What carries packets, and what that means for other tools.
fn lanes(roff: &mut Roff) {
    roff.control("SH", ["LANES"]);
    roff.text([roman(
        "Lane ebpf, and auto where it works: two programs in the kernel, at the egress of the ISATAP interface and at the ingress of the Ethernet \
         devices with its addresses, carry packets by the rules of the workers. What they cannot decide they leave as it is, and a worker \
         carries it: fragments, IPv4 options, extension headers, neighbour discovery, multicast, packets that are too big or refused, \
         and next hops whose device cannot be named. isatapd_left_packets_total counts it by cause; isatapctl workers explains each. \
         isatapctl explain says who would carry a packet.",
    )]);
    roff.control("PP", []);
    roff.text([roman(
        "A packet that the kernel carries passes no hook of netfilter for its outer header, no IPsec policy, no rp_filter and no other socket for \
         protocol 41. tcpdump on the ISATAP interface sees what comes in and not what goes out, and the counters of that interface stand still; \
         those of the daemon do not (worker=\"kernel\"). Therefore auto leaves everything to the workers while netfilter has rules for IPv4 or there \
         are IPsec policies, and what goes out while the ISATAP interface has a queueing discipline or filters for that; and each lane does \
         while isatapctl capture runs. What the programs refuse they drop themselves only where nobody else listens to protocol 41.",
    )]);
    roff.control("PP", []);
    roff.text([roman(
        "Packets go on by the last rules while an engine is exchanged. With Lane uring or syscall there are workers alone. The workers beside the \
         programs use io_uring, or epoll where that cannot be used.",
    )]);
}

/// isatapd.conf(5): each name with what it takes, what the example file says of it, and what a reload does.
fn configuration() -> Result<Vec<u8>> {
    let mut roff = Roff::default();
    roff.control("TH", ["isatapd.conf", "5", DATE, "isatapd", "isatapd"]);
    roff.control("SH", ["NAME"]);
    roff.text([roman("isatapd.conf - configuration of isatapd")]);
    roff.control("SH", ["DESCRIPTION"]);
    roff.text([roman(
        "One name with its values per line. Names are read in any case; # starts a comment; values of a list are separated by \
         blanks or commas. A file of the program of 2006 works unchanged. Without any line the daemon is a router at the only \
         IPv4 address of the machine.",
    )]);
    roff.text([
        bold("isatapd --check-config"),
        roman(" says what would run, or which line is wrong and what was expected. The file belongs to root or to the user who starts \
               the daemon, and nobody else may write it."),
    ]);
    roff.control("SH", ["NAMES"]);
    for key in Key::ALL.iter().copied() {
        let (text, example) = described(key).with_context(|| format!("{key} is not in the example file"))?;
        roff.control("TP", []);
        roff.text([bold(key.name()), roman(" "), italic(key.takes())]);
        let reload = match key.reload() {
            Reload::Live => "A reload puts a change in force.",
            Reload::Restart => "A change waits for a restart.",
        };
        let repeat = match key.repeat() {
            Repeat::Once => "",
            Repeat::Many => " May be repeated.",
            Repeat::OncePlusNetworks => " May be repeated with networks.",
        };
        let line = match key.has_default() {
            true => "Default:",
            false => "Example:",
        };
        roff.text([roman(format!("{text} {reload}{repeat} {line}"))]);
        roff.control("RS", []);
        roff.control("EX", []);
        roff.text([roman(example)]);
        roff.control("EE", []);
        roff.control("RE", []);
    }
    roff.control("SH", ["FILES"]);
    roff.control("TP", []);
    roff.text([italic("/etc/isatapd.conf")]);
    roff.text([roman(
        "read unless isatapd --config names another; it need not exist",
    )]);
    see_also(&mut roff, "isatapd.conf");
    let mut out = Vec::new();
    roff.to_writer(&mut out)?;
    Ok(out)
}

/// The comment above a name in the example file, and its line there.
fn described(key: Key) -> Option<(String, String)> {
    let (mut comment, mut found): (Vec<&str>, Option<(String, String)>) = (Vec::new(), None);
    for line in EXAMPLE.lines() {
        let Some(text) = line.strip_prefix('#') else {
            comment.clear();
            continue;
        };
        match text.strip_prefix(' ') {
            Some(prose) => comment.push(prose),
            None if text.split_whitespace().next() == Some(key.name()) => {
                let prose = comment
                    .join(" ")
                    .replace(" May be repeated.", "")
                    .replace(" [live]", "")
                    .replace(" [restart]", "");
                found = Some((prose, text.to_owned()));
            }
            None => {}
        }
    }
    found
}
