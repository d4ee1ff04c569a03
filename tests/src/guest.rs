//! A guest machine whose Linux kernel is an ISATAP peer (the `sit` driver): on a site like any other member, with
//! commands run in it over a serial port.
//!
//! ```text
//!   member        guest (QEMU, Debian's kernel, Debian's isatapd, radvd, iperf3, perl)
//!    eth0          eth0  10.0.0.x/24
//!      |             |
//!   ---+-- br0 ------+--- (a tap device)
//! ```
//!
//! `tests/kernel-peer/build` makes kernel and file system, once on a machine.

mod archive;

pub use archive::files_below;

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::Ipv4Addr;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::topology::Site;
use crate::wait;

/// From nothing to the first command: five seconds on two idle cores.
const BOOT_TIMEOUT: Duration = Duration::from_secs(90);
/// Of a command, unless told otherwise.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(30);
/// Exit status of the build script where there can be no guest.
const UNAVAILABLE: i32 = 69;
/// Set where a guest must not be missing.
const REQUIRED: &str = "ISATAP_GUEST_REQUIRED";
/// Which kernel, for `kernel-peer/build`: none for that of the Debian release, `backports` for a newer one.
const KERNEL: &str = "ISATAP_GUEST_KERNEL";
/// Exit status of a command that took too long, from timeout(1).
const TOOK_TOO_LONG: i32 = 124;

/// What a guest has besides what every one has.
#[derive(Clone, Debug)]
pub struct Equipment {
    /// Emulated processors.
    pub cpus: u32,
    /// Memory, in MiB.
    pub memory: u32,
    /// The guest switches itself off after this, whatever becomes of the test.
    pub lifetime: Duration,
    /// Files of this machine, which it has at the same place. Programs run there if they need no library but those of C.
    pub files: Vec<PathBuf>,
}

impl Default for Equipment {
    fn default() -> Self {
        Self {
            cpus: 1,
            memory: 256,
            lifetime: Duration::from_secs(300),
            files: Vec::new(),
        }
    }
}

/// A running guest, ended on drop.
#[derive(Debug)]
pub struct Guest {
    v4: Ipv4Addr,
    child: Child,
    folder: TempDir,
    line: Mutex<UnixStream>,
}

/// What a command came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Its exit status.
    pub status: i32,
    /// Its standard output.
    pub out: String,
    /// Its standard error.
    pub err: String,
}

impl Guest {
    /// Starts one with `v4`/24 on its `eth0`, without any tunnel. Nothing, with the reason on the standard error, on a
    /// machine that cannot have one.
    ///
    /// # Panics
    /// When it cannot be built or does not come up where it should.
    #[track_caller]
    pub fn start(site: &Site, v4: Ipv4Addr) -> Option<Self> {
        Self::equipped(site, v4, &Equipment::default())
    }

    /// Starts one with more than others have.
    ///
    /// # Panics
    /// As [`Guest::start`]; and when a file of its equipment cannot be read.
    #[track_caller]
    pub fn equipped(site: &Site, v4: Ipv4Addr, equipment: &Equipment) -> Option<Self> {
        let built = built()?;
        let (switch, tap) = site.attach_tap();
        let folder = tempfile::Builder::new().prefix("isatapd-guest-").tempdir();
        let folder = folder.expect("a temporary folder");
        let image = image(&built, folder.path(), &equipment.files);
        let mut command = qemu(&built, folder.path(), &tap, v4, equipment);
        command.arg("-initrd").arg(image);
        command.stdin(Stdio::null()).stdout(Stdio::null());
        command.stderr(fs::File::create(folder.path().join("qemu.log")).expect("a log"));
        let child = switch.spawn(&mut command);
        let (line, child) = open_line(folder.path(), child);
        let guest = Self {
            v4,
            child,
            folder,
            line: Mutex::new(line),
        };
        let ready = guest.run_within(BOOT_TIMEOUT, "uname -sr");
        assert_eq!(ready.status, 0, "the guest's first command: {ready:?}");
        Some(guest)
    }

    /// Its IPv4 address.
    pub fn v4(&self) -> Ipv4Addr {
        self.v4
    }

    /// The Ethernet address of its `eth0`.
    pub fn mac(&self) -> [u8; 6] {
        mac(self.v4)
    }

    /// Runs a shell script to its end, whatever its result. What it leaves in the background must write elsewhere.
    ///
    /// # Panics
    /// When it takes too long, or the guest is gone.
    #[track_caller]
    pub fn try_run(&self, script: &str) -> Answer {
        self.run_within(COMMAND_TIMEOUT, script)
    }

    /// Runs a shell script, which stops at the first failure, and returns what it printed.
    ///
    /// # Panics
    /// When it fails, with its messages.
    #[track_caller]
    pub fn run(&self, script: &str) -> String {
        let answer = self.try_run(&format!("set -e\n{script}"));
        assert_eq!(
            answer.status, 0,
            "in the guest: `{script}` failed: {}{}",
            answer.out, answer.err
        );
        answer.out
    }

    /// Runs a shell script for at most `timeout`.
    ///
    /// # Panics
    /// When it takes longer, or the guest is gone.
    #[track_caller]
    pub fn run_within(&self, timeout: Duration, script: &str) -> Answer {
        let mut line = self.line.lock().unwrap_or_else(PoisonError::into_inner);
        let request = format!("{} {}\n{script}", timeout.as_secs().max(1), script.len());
        // The guest ends the command itself; the rest is for a busy machine.
        let deadline = Instant::now() + timeout + Duration::from_secs(10);
        let answer = line
            .write_all(request.as_bytes())
            .and_then(|()| read_answer(&mut line, deadline));
        let answer = answer.unwrap_or_else(|e| panic!("in the guest: `{script}`: {e}\n{}", self.console()));
        assert_ne!(
            answer.status, TOOK_TOO_LONG,
            "in the guest: `{script}` took longer than {timeout:?}"
        );
        answer
    }

    /// Waits until a shell script succeeds in the guest.
    ///
    /// # Panics
    /// When it does not in time.
    #[track_caller]
    pub fn wait_for(&self, what: &str, timeout: Duration, script: &str) -> String {
        wait::until(what, timeout, || match self.try_run(script) {
            Answer { status: 0, out, .. } => Ok(out),
            Answer { status, out, err } => Err(format!("status {status}: {out}{err}")),
        })
    }

    /// The end of what it wrote to its console.
    fn console(&self) -> String {
        let read = |name: &str| fs::read_to_string(self.folder.path().join(name)).unwrap_or_default();
        let text = read("qemu.log") + &read("console");
        let lines: Vec<_> = text.lines().collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- console of the guest\n{}\n---", self.console());
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Where kernel and file system are.
#[track_caller]
fn built() -> Option<PathBuf> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("kernel-peer/build");
    let output = Command::new(&script).stdin(Stdio::null()).output();
    let output = output.unwrap_or_else(|e| panic!("{}: {e}", script.display()));
    let reason = String::from_utf8_lossy(&output.stderr);
    if output.status.code() == Some(UNAVAILABLE) && std::env::var_os(REQUIRED).is_none() {
        eprintln!("skipped: {reason}");
        return None;
    }
    assert!(output.status.success(), "{}: {reason}", script.display());
    Some(PathBuf::from(String::from_utf8_lossy(&output.stdout).trim()))
}

fn mac(v4: Ipv4Addr) -> [u8; 6] {
    let [a, b, c, d] = v4.octets();
    [0x52, 0x54, a, b, c, d]
}

/// The file system, with further files if there are any.
#[track_caller]
fn image(built: &Path, folder: &Path, files: &[PathBuf]) -> PathBuf {
    let image = built.join("image.cpio");
    if files.is_empty() {
        return image;
    }
    let longer = folder.join("image.cpio");
    let append = || -> std::io::Result<()> {
        fs::copy(&image, &longer)?;
        archive::write(&mut fs::File::options().append(true).open(&longer)?, files)
    };
    append().unwrap_or_else(|e| panic!("{}: {e}", longer.display()));
    longer
}

fn qemu(built: &Path, folder: &Path, tap: &str, v4: Ipv4Addr, equipment: &Equipment) -> Command {
    let root = built.join("root");
    let libraries = [
        "lib/x86_64-linux-gnu",
        "usr/lib/x86_64-linux-gnu",
        "usr/lib/x86_64-linux-gnu/pulseaudio",
    ];
    let libraries = libraries
        .map(|part| root.join(part).display().to_string())
        .join(":");
    let mut command = Command::new(root.join("lib/x86_64-linux-gnu/ld-linux-x86-64.so.2"));
    command.env("QEMU_MODULE_DIR", root.join("usr/lib/x86_64-linux-gnu/qemu"));
    command
        .args(["--library-path", &libraries])
        .arg(root.join("usr/bin/qemu-system-x86_64"));
    for data in ["usr/share/qemu", "usr/share/seabios"] {
        command.arg("-L").arg(root.join(data));
    }
    command.args("-nodefaults -no-user-config -no-reboot -display none -machine q35,usb=off".split(' '));
    command.args(["-m", &equipment.memory.to_string()]);
    command.args(["-smp", &equipment.cpus.to_string()]);
    // Emulation works everywhere, also in a machine that is a guest itself.
    command.args("-accel tcg,thread=multi -device virtio-rng-pci".split(' '));
    // QEMU 7.2 gets flags wrong after an instruction that newer kernels allocate memory with, where the processor has it.
    let newer = std::env::var_os(KERNEL).is_some_and(|kernel| !kernel.is_empty());
    command.args(["-cpu", if newer { "qemu64,-cx16" } else { "qemu64" }]);
    command.arg("-kernel").arg(built.join("kernel"));
    let seconds = equipment.lifetime.as_secs();
    command.args(["-append", &format!(
        "console=ttyS0 quiet loglevel=4 panic=-1 random.trust_cpu=on nokaslr mitigations=off cryptomgr.notests audit=0 \
         net.ifnames=0 guest.address={v4}/24 guest.seconds={seconds}"
    )]);
    command
        .arg("-serial")
        .arg(format!("file:{}", folder.join("console").display()));
    // Without any offload: packets are on the tap as they would be on a wire, which a raw socket needs.
    let mac = mac(v4).map(|byte| format!("{byte:02x}")).join(":");
    let offloads =
        "csum gso guest_csum guest_tso4 guest_tso6 guest_ecn guest_ufo host_tso4 host_tso6 host_ecn host_ufo";
    let offloads: String = offloads.split(' ').map(|name| format!(",{name}=off")).collect();
    command.args([
        "-netdev",
        &format!("tap,id=net,ifname={tap},script=no,downscript=no"),
    ]);
    command.args([
        "-device",
        &format!("virtio-net-pci,netdev=net,mac={mac},romfile={offloads}"),
    ]);
    let line = folder.join("line").display().to_string();
    command.args(["-device", "virtio-serial-pci"]);
    command.args([
        "-chardev",
        &format!("socket,id=line,path={line},server=on,wait=off"),
    ]);
    command.args(["-device", "virtserialport,chardev=line"]);
    command
}

/// Connects to the serial port of a guest that has just been started.
#[track_caller]
fn open_line(folder: &Path, mut child: Child) -> (UnixStream, Child) {
    let line = wait::until("QEMU to start", BOOT_TIMEOUT, || {
        if let Ok(Some(status)) = child.try_wait() {
            let log = fs::read_to_string(folder.join("qemu.log")).unwrap_or_default();
            panic!("QEMU ended at once ({status}): {log}");
        }
        UnixStream::connect(folder.join("line"))
    });
    (line, child)
}

fn read_answer(line: &mut UnixStream, deadline: Instant) -> std::io::Result<Answer> {
    let mut head = Vec::new();
    while head.last() != Some(&b'\n') {
        head.extend(take(line, 1, deadline)?);
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    let numbers: Option<Vec<usize>> = head.split_whitespace().map(|word| word.parse().ok()).collect();
    let Some([status, out, err]) = numbers.as_deref() else {
        return Err(std::io::Error::other(format!("not an answer: {head:?}")));
    };
    let mut text = |len| take(line, len, deadline).map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    Ok(Answer {
        status: i32::try_from(*status).map_err(std::io::Error::other)?,
        out: text(*out)?,
        err: text(*err)?,
    })
}

fn take(line: &mut UnixStream, len: usize, deadline: Instant) -> std::io::Result<Vec<u8>> {
    let mut bytes = vec![0; len];
    let mut at = 0;
    while at < len {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(ErrorKind::TimedOut.into());
        }
        line.set_read_timeout(Some(left))?;
        match line.read(&mut bytes[at..]) {
            Ok(0) => return Err(std::io::Error::other("the guest is gone")),
            Ok(count) => at += count,
            Err(e) if [ErrorKind::Interrupted, ErrorKind::WouldBlock].contains(&e.kind()) => {}
            Err(e) => return Err(e),
        }
    }
    Ok(bytes)
}
