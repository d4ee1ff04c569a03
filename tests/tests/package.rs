//! The Debian package from its installation to its purge, and `make install`, in roots of their own (U14).
//!
//! ```text
//!   rtr 10.0.0.1 (isatapd of the package, as its unit starts it) ----- h 10.0.0.2 (isatapd)
//! ```

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Command, Stdio};

use isatap_tests::daemon::Daemon;
use isatap_tests::netns::Netns;
use isatap_tests::package::{Package, documents, install_script, top};
use isatap_tests::ping::ping_until;
use isatap_tests::scene::{SOON, on_link};
use isatap_tests::scratch_root::ScratchRoot;
use isatap_tests::service::Service;
use isatap_tests::topology::Site;
use isatap_tests::unit::Unit;
use isatap_tests::wait;

/// Every file and folder of a part of the root, with its mode and size.
fn listing(root: &ScratchRoot) -> BTreeMap<String, String> {
    let text = root.run("find /etc /usr /var /run /tmp -xdev -printf '%p %m %y %s\\n'");
    let lines = text.lines().filter_map(|line| line.split_once(' '));
    // The cache of man pages, and what dpkg knows, change with anything; what others write to /var/tmp of this machine shows through.
    let kept = lines.filter(|(path, _)| {
        ![
            "/var/lib/dpkg",
            "/var/log",
            "/var/cache",
            "/var/tmp",
            "/dev",
            "/var/lib/systemd/deb-systemd-helper",
        ]
        .iter()
        .any(|part| path.starts_with(part))
    });
    // Sizes of folders mean nothing.
    kept.map(|(path, rest)| {
        let what = match rest.split(' ').nth(1) {
            Some("d") => rest.rsplit_once(' ').map_or(rest, |(head, _)| head),
            _ => rest,
        };
        (path.to_owned(), what.to_owned())
    })
    .collect()
}

fn mode(root: &ScratchRoot, path: &str) -> u32 {
    let metadata =
        std::fs::symlink_metadata(root.path(path)).unwrap_or_else(|error| panic!("{path}: {error}"));
    metadata.permissions().mode() & 0o7777
}

/// Runs dpkg inside, which asks nothing and keeps a file of the configuration that was changed.
fn dpkg(root: &ScratchRoot, arguments: &str) -> String {
    // Images of containers leave manuals out.
    root.run(&format!(
        "DEBIAN_FRONTEND=noninteractive dpkg --force-confold --path-include='/usr/share/*' {arguments} </dev/null"
    ))
}

fn bring_in(root: &ScratchRoot, file: &std::path::Path) -> String {
    let name = file.file_name().expect("a name").to_string_lossy().into_owned();
    std::fs::copy(file, root.path(&format!("tmp/{name}"))).expect("copy");
    format!("/tmp/{name}")
}

/// Programs that note down how they were called, where a systemd would be.
fn pretend_systemd(root: &ScratchRoot) {
    root.run("mkdir -p /run/systemd/system");
    for name in ["systemctl", "deb-systemd-invoke"] {
        let path = root
            .run(&format!("readlink -f $(command -v {name})"))
            .trim()
            .to_owned();
        root.write(&path, &format!("#!/bin/sh\necho {name} \"$@\" >>/tmp/asked\n"));
    }
    allow_restarts(root, true);
}

/// What images of containers and cautious operators answer maintainer scripts.
fn allow_restarts(root: &ScratchRoot, allowed: bool) {
    let status = if allowed { 0 } else { 101 };
    root.write("usr/sbin/policy-rc.d", &format!("#!/bin/sh\nexit {status}\n"));
    root.run("chmod 755 /usr/sbin/policy-rc.d");
}

fn asked(root: &ScratchRoot) -> String {
    let text = std::fs::read_to_string(root.path("tmp/asked")).unwrap_or_default();
    let _ = std::fs::remove_file(root.path("tmp/asked"));
    text
}

#[test]
fn the_package_is_installed_runs_is_upgraded_removed_and_purged() {
    let (package, root) = (Package::build(), ScratchRoot::new());
    let first = bring_in(&root, package.file());
    let before = listing(&root);
    let said = dpkg(&root, &format!("-i {first}"));
    assert!(!said.contains("rror"), "{said}");

    // Files, their modes, and what the maintainer scripts made.
    for (path, expected) in [
        ("usr/sbin/isatapd", 0o755),
        ("usr/bin/isatapctl", 0o755),
        ("etc/isatapd.conf", 0o644),
        ("usr/lib/sysusers.d/isatapd.conf", 0o644),
        ("usr/lib/tmpfiles.d/isatapd.conf", 0o644),
        ("usr/share/polkit-1/rules.d/isatapd.rules", 0o644),
        ("usr/share/isatapd/dashboards/grafana.json", 0o644),
        ("usr/share/isatapd/dashboards/rules.yml", 0o644),
        ("usr/share/doc/isatapd-rs/copyright", 0o644),
        ("usr/share/doc/isatapd-rs/changelog.gz", 0o644),
        ("usr/share/doc/isatapd-rs/examples/radvd.conf.snippet", 0o644),
        ("usr/share/zsh/vendor-completions/_isatapctl", 0o644),
        ("usr/share/fish/vendor_completions.d/isatapctl.fish", 0o644),
        ("var/empty/isatapd", 0o555),
    ] {
        assert_eq!(mode(&root, path), expected, "{path}");
    }
    assert!(root.run("getent passwd isatapd").contains(":/usr/sbin/nologin"));
    let unit_path = root
        .run("dpkg -L isatapd-rs | grep isatapd.service")
        .trim()
        .to_owned();
    assert!(
        root.path("etc/systemd/system/multi-user.target.wants/isatapd.service")
            .symlink_metadata()
            .is_ok()
    );
    let status = root.run("dpkg -s isatapd-rs");
    for line in ["Provides: isatapd", "Conflicts: isatapd", "Replaces: isatapd"] {
        assert!(status.contains(line), "{line}: {status}");
    }
    assert_eq!(root.run("dpkg --verify isatapd-rs"), "");
    documentation_is_readable(&root);
    completions_load(&root);
    the_packages_own_test_passes(&root);

    // The daemon of the package carries packets with a file of the package: one address, so that nothing need be said.
    let site = Site::new();
    let (rtr, h) = (site.member("rtr", 1), site.member("h", 2));
    rtr.sysctl("ipv6/conf/all/forwarding", "1");
    let unit = Unit::parse(&root.read(&unit_path));
    let service = Service::start(&root, &rtr, &unit);
    let host = Daemon::host(
        &h,
        "10.0.0.2".parse().expect("v4"),
        &["10.0.0.1".parse().expect("v4")],
    )
    .start();
    ping_until(&h, "fe80::5efe:10.0.0.1%is0", SOON);
    let shown = rtr.enter(|| {
        root.command("isatapctl")
            .arg("status")
            .output()
            .expect("isatapctl")
    });
    assert!(shown.status.success(), "{shown:?}");
    root.write(
        "etc/isatapd.conf",
        "# ours\nBindAddress 10.0.0.1\nAdvertise yes\nAdvertisePrefix 2001:db8:1::/64 on-link\n",
    );
    assert_eq!(service.reload(), Ok(()));
    ping_until(&h, &on_link("10.0.0.1".parse().expect("v4")).to_string(), SOON);
    host.conservation();
    drop(host);
    assert_eq!(service.stop(), Some(0));

    // The next version: a file of the configuration that was changed stays, the new one is put beside it.
    let second = bring_in(&root, &package.next_version("9.0.0", "# new in 9.0.0"));
    dpkg(&root, &format!("-i {second}"));
    assert!(root.read("etc/isatapd.conf").starts_with("# ours\n"));
    assert!(
        root.read("etc/isatapd.conf.dpkg-dist")
            .ends_with("# new in 9.0.0\n")
    );
    assert!(root.run("dpkg -s isatapd-rs").contains("Version: 9.0.0"));
    root.run("rm /etc/isatapd.conf.dpkg-dist");

    // Removed: the configuration stays. Purged: nothing does, but for the user, as is usual.
    dpkg(&root, "-r isatapd-rs");
    assert!(root.read("etc/isatapd.conf").starts_with("# ours\n"));
    assert!(!root.path("usr/sbin/isatapd").exists() && !root.path("var/empty/isatapd").exists());
    dpkg(&root, "-P isatapd-rs");
    let mut after = listing(&root);
    let mut expected = before;
    for users in ["/etc/passwd", "/etc/group", "/etc/shadow", "/etc/gshadow"] {
        for name in [users.to_owned(), format!("{users}-")] {
            expected.remove(&name);
            after.remove(&name);
        }
    }
    for path in ["/tmp", "/run", "/var/lib/systemd"] {
        expected.retain(|name, _| !name.starts_with(path));
        after.retain(|name, _| !name.starts_with(path));
    }
    let left: Vec<_> = after
        .iter()
        .filter(|(path, what)| expected.get(*path) != Some(what))
        .collect();
    assert!(left.is_empty(), "left behind: {left:#?}");
    let gone: Vec<_> = expected
        .keys()
        .filter(|path| !after.contains_key(*path))
        .collect();
    assert!(gone.is_empty(), "taken along: {gone:#?}");
}

fn documentation_is_readable(root: &ScratchRoot) {
    for (page, says) in [
        ("8 isatapd", "RFC 5214"),
        ("8 isatapctl", "doctor"),
        ("5 isatapd.conf", "BindAddress"),
    ] {
        let file = root.run(&format!("man -w {page}")).trim().to_owned();
        let text = root.run(&format!("MANWIDTH=80 man -P cat {page} | col -b"));
        assert!(text.contains(says), "{page}: {text}");
        // Style is for those who write manuals by hand; warnings and errors are for all.
        let lint = root.try_run(&format!("mandoc -T lint -W warning {file}"));
        let lint = String::from_utf8_lossy(&lint.stdout).into_owned();
        assert!(lint.is_empty(), "{lint}");
    }
    let changelog = root.run("zcat /usr/share/doc/isatapd-rs/changelog.gz");
    assert!(changelog.starts_with("# Changelog"));
}

/// What stands for systemd in the package's own test: a daemon as its unit starts it, and the commands of the unit.
const SYSTEMCTL: &str = "#!/bin/sh
set -e
caps=-all,+net_admin,+net_raw,+sys_chroot,+bpf
case \"$1\" in
restart)
    install -d -o isatapd -g isatapd /run/isatapd
    setpriv --reuid isatapd --regid isatapd --init-groups --inh-caps=$caps --ambient-caps=$caps \\
        isatapd --user isatapd --pidfile /run/isatapd/isatapd.pid ;;
is-active) isatapctl status >/dev/null ;;
reload) isatapctl check --no-lookup && isatapctl reload ;;
stop) kill \"$(cat /run/isatapd/isatapd.pid)\" ;;
esac
";

/// debian/tests is for machines of its own, with a systemd; here it is kept from rotting.
fn the_packages_own_test_passes(root: &ScratchRoot) {
    let ns = Netns::new("auto");
    let script = std::fs::read_to_string(top().join("debian/tests/carries")).expect("the test");
    root.write("tmp/carries", &script);
    root.write("tmp/bin/systemctl", SYSTEMCTL);
    root.run("chmod 755 /tmp/bin/systemctl; cp -p /etc/isatapd.conf /tmp/kept");
    let mut command = root.command("sh");
    command
        .args(["-c", "PATH=/tmp/bin:$PATH sh /tmp/carries"])
        .stdin(Stdio::null());
    let output = ns.enter(|| command.output().expect("run the test"));
    let text =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && text.contains("\ncarried\n"), "{text}");
    root.run("mv /tmp/kept /etc/isatapd.conf");
    wait::holds("the daemons to end", SOON, || ns.pids().is_empty());
}

/// A shell that loads the completion offers what the program has.
fn completions_load(root: &ScratchRoot) {
    for (program, typed, offers) in [
        ("isatapctl", "do", "doctor"),
        ("isatapd", "--che", "--check-config"),
    ] {
        let script = format!(
            "source /usr/share/bash-completion/completions/{program}; COMP_WORDS=({program} {typed}); COMP_CWORD=1; \
             _{program} {program} {typed} {program}; echo \"${{COMPREPLY[@]}}\""
        );
        let output = root
            .command("bash")
            .args(["--norc", "-c", &script])
            .output()
            .expect("bash");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert_eq!(text.trim(), offers, "{output:?}");

        let offered = root.run(&format!("fish -c \"complete -C '{program} {typed}'\""));
        assert!(offered.starts_with(&format!("{offers}\t")), "{offered}");

        // Completion of zsh exists in a shell with a terminal only.
        root.write("tmp/complete.zsh", COMPLETE_IN_ZSH);
        let completed = root.run(&format!(
            "timeout 60 zsh -f /tmp/complete.zsh '{program} {typed}' {offers}"
        ));
        assert!(completed.contains(&format!("{program} {offers}")), "{completed}");
    }
}

/// Types `$1` and a tab, and prints the line once `$2` is in it.
const COMPLETE_IN_ZSH: &str = r#"
zmodload zsh/zpty
zpty shell "zsh -f -i"
zpty -w shell 'PS1=; fpath=(/usr/share/zsh/vendor-completions $fpath); autoload -Uz compinit; compinit -u -D; print -r -- rea""dy'
zpty -r shell line '*ready*'
zpty -w -n shell "$1"$'\t'
zpty -r shell line "*$2*"
print -r -- "$line"
"#;

#[test]
fn maintainer_scripts_restart_what_the_new_version_can_run() {
    let (package, root) = (Package::build(), ScratchRoot::new());
    let (first, second) = (
        bring_in(&root, package.file()),
        package.next_version("9.0.0", "# new"),
    );
    let second = bring_in(&root, &second);
    pretend_systemd(&root);
    root.write("etc/isatapd.conf", "BindAddress 10.0.0.1\n");
    dpkg(&root, &format!("-i {first}"));
    let asked_first = asked(&root);
    assert!(
        asked_first.contains("systemctl --system daemon-reload\n"),
        "{asked_first}"
    );
    assert!(
        asked_first.ends_with("deb-systemd-invoke start isatapd.service\n"),
        "{asked_first}"
    );

    let said = dpkg(&root, &format!("-i {second}"));
    assert!(
        said.contains("could not take over") && said.contains("isatapctl: no daemon"),
        "a restart takes the interface away, so that it says why: {said}"
    );
    let upgrade = asked(&root);
    assert!(
        upgrade.ends_with("deb-systemd-invoke restart isatapd.service\n"),
        "{upgrade}"
    );
    assert!(
        !upgrade.contains("invoke stop"),
        "it runs until the new version is there: {upgrade}"
    );

    // A configuration that cannot be used: what runs goes on, and somebody is told.
    root.write("etc/isatapd.conf", "BindAddress 10.0.0.1\nTtl 999\n");
    let said = dpkg(&root, &format!("-i {second}"));
    assert!(
        said.contains("isatapd.conf:2:5") && said.contains("is left as it is"),
        "{said}"
    );
    assert!(!asked(&root).contains("invoke"), "neither stopped nor started");

    dpkg(&root, "-r isatapd-rs");
    let removal = asked(&root);
    assert!(
        removal.starts_with("deb-systemd-invoke stop isatapd.service\n"),
        "{removal}"
    );

    // A machine with several addresses and a file that says nothing: nothing is started, and somebody is told what to say.
    dpkg(&root, "-P isatapd-rs");
    asked(&root);
    let several = Netns::new("several");
    several.ip_batch(
        "link add eth0 type bridge\naddr add 10.0.0.1/24 dev eth0\naddr add 10.1.0.1/24 dev eth0\nlink set eth0 up\n",
    );
    let said = several.enter(|| dpkg(&root, &format!("-i {first}")));
    for part in ["10.0.0.1", "10.1.0.1", "BindAddress", "systemctl restart isatapd"] {
        assert!(said.contains(part), "{part:?} is not in: {said}");
    }
    assert!(!asked(&root).contains("invoke start"));
}

/// A new version of the package takes over the daemon that runs, as its unit confines it: nobody is asked for a restart.
#[test]
fn a_new_version_takes_over_what_runs() {
    let (package, root) = (Package::build(), ScratchRoot::new());
    let first = bring_in(&root, package.file());
    let second = bring_in(&root, &package.next_version("9.0.0", "# new"));
    pretend_systemd(&root);
    root.write("etc/isatapd.conf", "BindAddress 10.0.0.1\n");
    dpkg(&root, &format!("-i {first}"));
    let unit_path = root.run("dpkg -L isatapd-rs | grep isatapd.service");
    let site = Site::new();
    let rtr = site.member("rtr", 1);
    let service = Service::start(&root, &rtr, &Unit::parse(&root.read(unit_path.trim())));
    let interface = rtr.ip("-o link show is0");
    asked(&root);

    allow_restarts(&root, false);
    let said = dpkg(&root, &format!("-i {second}"));
    assert!(said.contains("policy-rc.d forbids a restart"), "{said}");
    let status = root.run("isatapctl status --json");
    assert!(status.contains("\"upgrades\": 0"), "{status}{}", service.log());

    allow_restarts(&root, true);
    dpkg(&root, &format!("-i {second}"));
    assert!(!asked(&root).contains("invoke"), "{}", service.log());
    let status = root.run("isatapctl status --json");
    assert!(status.contains("\"upgrades\": 1"), "{status}{}", service.log());
    assert_eq!(rtr.ip("-o link show is0"), interface, "the interface stays");
    assert_eq!(service.reload(), Ok(()));
    assert_eq!(service.stop(), Some(0));
}

#[test]
fn make_install_and_uninstall() {
    let (root, docs) = (ScratchRoot::new(), documents());
    let before = listing(&root);
    root.run("echo '# mine' > /etc/isatapd.conf");
    install_script(&root, docs.path(), "install");
    assert_eq!(
        root.read("etc/isatapd.conf"),
        "# mine\n",
        "an operator's file is not written over"
    );
    let unit = Unit::parse(&root.read("usr/local/lib/systemd/system/isatapd.service"));
    assert!(
        unit.one("ExecStart")
            .starts_with("/usr/local/sbin/isatapd --foreground")
    );
    let holds = root.read("usr/local/share/doc/isatapd/anycast/isatap-up.service");
    assert!(holds.contains("\nExecStart=/usr/local/bin/isatapctl ready --hold"));
    assert!(
        root.run("isatapd --help").contains("--check-config"),
        "it is in the path"
    );
    install_script(&root, docs.path(), "uninstall");
    root.run("rm /etc/isatapd.conf");
    let (left, folders): (Vec<_>, Vec<_>) = listing(&root)
        .into_iter()
        .filter(|(path, what)| before.get(path) != Some(what))
        .partition(|(_, what)| !what.ends_with('d'));
    assert!(left.is_empty(), "{left:?}");
    let ours: Vec<_> = folders
        .iter()
        .filter(|(path, _)| path.contains("isatap"))
        .collect();
    assert!(ours.is_empty(), "{ours:?}");
}

#[test]
fn versions_are_the_same_everywhere() {
    let changelog = std::fs::read_to_string(top().join("debian/changelog")).expect("the changelog");
    let version = format!("isatapd-rs ({}) ", env!("CARGO_PKG_VERSION"));
    assert!(
        changelog.starts_with(&version),
        "{version} is not the first of debian/changelog"
    );
    let parsed = Command::new("dpkg-parsechangelog")
        .arg("-l")
        .arg(top().join("debian/changelog"))
        .output();
    assert!(parsed.is_ok_and(|output| output.status.success() && output.stderr.is_empty()));
}
