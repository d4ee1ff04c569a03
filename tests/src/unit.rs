//! A unit of systemd, and what it takes away from its processes: user, capabilities, mounts, system calls.
//!
//! Every line of the unit is either done here or listed as one that changes nothing for the daemon; a line of neither kind
//! fails the test that uses it, so that a new line of the unit is not believed untried.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::process::Command;

use serde_json::{Value, json};

/// Lines whose effect is systemd's own, or of which the daemon can notice nothing.
const WITHOUT_EFFECT: [&str; 28] = [
    // The life of the service: tests do what systemd would do.
    "Type",
    "Restart",
    "RestartSec",
    "RestartPreventExitStatus",
    "TimeoutStopSec",
    "ExecStartPre",
    "ExecStart",
    "ExecReload",
    // Done together below, or by the system calls that are refused.
    "BindPaths",
    "DeviceAllow",
    "PrivateMounts",
    "SystemCallErrorNumber",
    "SystemCallArchitectures",
    "ProtectClock",
    "ProtectHostname",
    "ProtectKernelModules",
    "ProtectKernelLogs",
    // Refused by missing capabilities as well.
    "RestrictRealtime",
    "RestrictSUIDSGID",
    "LockPersonality",
    "ProtectControlGroups",
    // Only at the end, or for things that it has none of.
    "RemoveIPC",
    "KeyringMode",
    "LimitMEMLOCK",
    "LimitNOFILE",
    "ProtectHome",
    "UMask",
    "WatchdogSec",
];

/// The `[Service]` section of a unit.
#[derive(Clone, Debug)]
pub struct Unit {
    lines: Vec<(String, String)>,
}

impl Unit {
    /// Reads a unit file.
    ///
    /// # Panics
    /// When a line is none of `[section]`, `name=value` or a comment.
    pub fn parse(text: &str) -> Self {
        let mut section = "";
        let mut lines = Vec::new();
        for line in text.lines().map(str::trim) {
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            if line.starts_with('[') {
                section = line;
            } else {
                let (name, value) = line.split_once('=').expect("name=value");
                if section == "[Service]" {
                    lines.push((name.to_owned(), value.to_owned()));
                }
            }
        }
        Self { lines }
    }

    /// Every value of a name, in order.
    pub fn all(&self, name: &str) -> Vec<&str> {
        let of_name = self.lines.iter().filter(|(found, _)| found == name);
        of_name.map(|(_, value)| value.as_str()).collect()
    }

    /// The value of a name that is there once.
    ///
    /// # Panics
    /// When it is not.
    #[track_caller]
    pub fn one(&self, name: &str) -> &str {
        match self.all(name)[..] {
            [value] => value,
            ref values => panic!("{name}: {values:?}"),
        }
    }

    fn is_on(&self, name: &str) -> bool {
        self.all(name) == ["yes"]
    }

    /// The system calls it allows: groups are resolved by systemd itself.
    fn allowed_calls(&self) -> BTreeSet<String> {
        let mut allowed = BTreeSet::new();
        for line in self.all("SystemCallFilter") {
            let (taken, words) = match line.strip_prefix('~') {
                Some(words) => (true, words),
                None => (false, line),
            };
            for word in words.split_whitespace() {
                for call in calls(word) {
                    if taken {
                        allowed.remove(&call);
                    } else {
                        allowed.insert(call);
                    }
                }
            }
        }
        // What systemd itself needs between the filter and the program.
        allowed.extend(calls("@default"));
        allowed.insert("execve".to_owned());
        allowed
    }

    /// The filters that systemd would install, in the form of seccompiler: refused calls fail with EPERM; `clone3`, whose
    /// flags no filter can see, is not there.
    pub fn filters(&self) -> Value {
        let mut rules = Vec::new();
        for call in self.allowed_calls() {
            match call.as_str() {
                "socket" => rules.extend(self.families().map(|family| {
                    json!({ "syscall": "socket", "args": [compare(0, json!("eq"), family)] })
                })),
                // Never writable and executable, never executable later.
                "mmap" if self.is_on("MemoryDenyWriteExecute") => rules.extend([PROT_EXEC, PROT_WRITE].map(
                    |bit| json!({ "syscall": "mmap", "args": [compare(2, json!({ "masked_eq": bit }), 0)] }),
                )),
                "mprotect" if self.is_on("MemoryDenyWriteExecute") => rules.push(
                    json!({ "syscall": "mprotect", "args": [compare(2, json!({ "masked_eq": PROT_EXEC }), 0)] }),
                ),
                "clone" if self.is_on("RestrictNamespaces") => rules.push(
                    json!({ "syscall": "clone", "args": [compare(0, json!({ "masked_eq": NAMESPACES }), 0)] }),
                ),
                "unshare" | "setns" if self.is_on("RestrictNamespaces") => {}
                _ => rules.push(json!({ "syscall": call })),
            }
        }
        json!({
            "allowed": { "mismatch_action": { "errno": 1 }, "match_action": "allow", "filter": rules },
            "no_clone3": {
                "mismatch_action": "allow",
                "match_action": { "errno": 38 },
                "filter": [{ "syscall": "clone3" }]
            }
        })
    }

    fn families(&self) -> impl Iterator<Item = u64> {
        let words = self.one("RestrictAddressFamilies").split_whitespace();
        words.map(|word| match word {
            "AF_UNIX" => 1,
            "AF_INET" => 2,
            "AF_INET6" => 10,
            "AF_NETLINK" => 16,
            other => panic!("{other}: a family that this harness does not know"),
        })
    }

    /// The script that takes away what the unit takes away of the file system, then becomes the user.
    ///
    /// # Panics
    /// When the unit has a line that is neither done here nor without effect.
    pub fn script(&self) -> String {
        let mut script = String::from("set -e\n");
        let mut line = |text: &str| {
            let _ = writeln!(script, "{text}");
        };
        let mut known: Vec<&str> = WITHOUT_EFFECT.to_vec();
        let mut done = |name: &'static str| {
            known.push(name);
            self.is_on(name)
        };
        line(&format!(
            "mount -t proc -o hidepid={} proc /proc",
            self.one("ProtectProc")
        ));
        if done("PrivateDevices") {
            assert_eq!(self.all("BindPaths"), ["-/dev/net/tun"]);
            line("mkdir -p /tmp/tun && mount --bind /dev/net /tmp/tun");
            line("mount -t tmpfs -o mode=755,nosuid,noexec dev /dev");
            for (name, number) in [
                ("null", 3),
                ("zero", 5),
                ("full", 7),
                ("random", 8),
                ("urandom", 9),
            ] {
                line(&format!("mknod -m 666 /dev/{name} c 1 {number}"));
            }
            line("mkdir /dev/net /dev/shm && : >/dev/net/tun && mount --bind /tmp/tun/tun /dev/net/tun");
            line("mount -o remount,bind,ro /dev");
        }
        if done("PrivateTmp") {
            line("mount -t tmpfs -o mode=1777 tmp /tmp");
        }
        if done("ProtectKernelTunables") {
            line("mount --bind /proc/sys /proc/sys");
            for path in self.all("ReadWritePaths") {
                line(&format!("mount --bind {path} {path}"));
            }
            line("mount -o remount,bind,ro /proc/sys");
        }
        known.extend(["ReadWritePaths", "ProtectProc"]);
        known.push("RuntimeDirectory");
        let runtime = format!("/run/{}", self.one("RuntimeDirectory"));
        let user = self.one("User");
        line(&format!(
            "install -d -o {user} -g {user} {runtime} && mount --bind {runtime} {runtime}"
        ));
        known.push("ProtectSystem");
        if self.one("ProtectSystem") == "strict" {
            line("mount -o remount,bind,ro / && mount -o remount,bind,ro /run");
        }
        known.push("User");
        known.extend(["CapabilityBoundingSet", "AmbientCapabilities", "NoNewPrivileges"]);
        let capabilities = |name| {
            let words = self.one(name).split_whitespace();
            let names = words.map(|word| word.trim_start_matches("CAP_").to_ascii_lowercase());
            names.map(|name| format!(",+{name}")).collect::<String>()
        };
        known.extend([
            "RestrictAddressFamilies",
            "RestrictNamespaces",
            "MemoryDenyWriteExecute",
            "SystemCallFilter",
        ]);
        for (name, _) in &self.lines {
            assert!(
                known.contains(&name.as_str()),
                "{name}: a line of the unit that nobody tries"
            );
        }
        line(&format!(
            "exec setpriv --reuid {user} --regid {user} --init-groups --no-new-privs --bounding-set=-all{} \
             --inh-caps=-all{} --ambient-caps=-all{} \"$@\"",
            capabilities("CapabilityBoundingSet"),
            capabilities("AmbientCapabilities"),
            capabilities("AmbientCapabilities"),
        ));
        script
    }
}

const PROT_WRITE: u64 = 2;
const PROT_EXEC: u64 = 4;
/// CLONE_NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET.
const NAMESPACES: u64 = 0x7e02_0000;

fn compare(index: u8, operator: Value, value: u64) -> Value {
    json!({ "index": index, "type": "dword", "op": operator, "val": value })
}

/// The calls of a group, with those of the groups in it; or the call itself.
fn calls(word: &str) -> BTreeSet<String> {
    if !word.starts_with('@') {
        return BTreeSet::from([word.to_owned()]);
    }
    let output = Command::new("systemd-analyze")
        .args(["--no-pager", "syscall-filter", word])
        .output()
        .expect("systemd is installed");
    assert!(output.status.success(), "{word}: {output:?}");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let words = text.lines().skip(1).map(str::trim);
    let words = words.filter(|word| !word.is_empty() && !word.starts_with('#'));
    words.flat_map(calls).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_a_unit() {
        let unit = Unit::parse("[Unit]\nA=1\n# B=2\n[Service]\nC=x y\nC=z\nD=yes\n[Install]\nE=3\n");
        assert_eq!(unit.all("C"), ["x y", "z"]);
        assert_eq!(unit.one("D"), "yes");
        assert!(unit.all("A").is_empty() && unit.all("E").is_empty());
    }

    #[test]
    fn groups_of_calls_are_taken_as_systemd_has_them() {
        let unit = Unit::parse(
            "[Service]\nSystemCallFilter=@system-service\nSystemCallFilter=~@privileged @resources\nSystemCallFilter=chroot\n",
        );
        let allowed = unit.allowed_calls();
        for call in ["read", "io_uring_enter", "sendmsg", "chroot", "execve"] {
            assert!(allowed.contains(call), "{call}");
        }
        for call in ["setuid", "capset", "mount", "sched_setaffinity", "ptrace", "bpf"] {
            assert!(!allowed.contains(call), "{call}");
        }
    }
}
