//! `isatapctl capture` as a process, and its file read by a library that we did not write.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use isatap_tests::daemon::{Daemon, program};
use isatap_tests::metrics::Direction;
use isatap_tests::scene::SOON;
use isatap_tests::wait;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use pcap_file::pcapng::blocks::enhanced_packet::EnhancedPacketOption;
use pcap_file::pcapng::blocks::interface_statistics::InterfaceStatisticsOption;
use pcap_file::pcapng::{Block, PcapNgReader};

/// One packet of the file.
#[derive(Clone, Debug)]
pub(crate) struct Taken {
    /// Which way, as the flags say it.
    pub(crate) direction: Direction,
    /// The bytes of it.
    pub(crate) bytes: Vec<u8>,
    /// How many it had.
    pub(crate) len: u32,
    /// What became of it.
    pub(crate) comment: String,
    /// Since 1970.
    pub(crate) at: Duration,
}

/// The statistics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counted {
    pub(crate) seen: u64,
    pub(crate) wanted: u64,
    pub(crate) missed: u64,
    pub(crate) captured: u64,
}

/// A whole file.
#[derive(Debug, Default)]
pub(crate) struct Contents {
    pub(crate) packets: Vec<Taken>,
    /// Nothing if the capture did not come to its end.
    pub(crate) statistics: Option<Counted>,
}

impl Contents {
    /// Reads a file to its end.
    #[track_caller]
    pub(crate) fn read(path: &Path) -> Self {
        let file = File::open(path).expect("the file");
        let mut reader = PcapNgReader::new(file).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let mut contents = Self::default();
        while let Some(block) = reader.next_block() {
            match block.unwrap_or_else(|e| panic!("{}: {e}", path.display())) {
                Block::EnhancedPacket(packet) => {
                    let comment = packet.options.iter().find_map(|option| match option {
                        EnhancedPacketOption::Comment(text) => Some(text.clone().into_owned()),
                        _ => None,
                    });
                    let flags = packet.options.iter().find_map(|option| match option {
                        EnhancedPacketOption::Flags(flags) => Some(flags & 3),
                        _ => None,
                    });
                    contents.packets.push(Taken {
                        direction: match flags {
                            Some(1) => Direction::Decap,
                            Some(2) => Direction::Encap,
                            other => panic!("neither inbound nor outbound: {other:?}"),
                        },
                        bytes: packet.data.into_owned(),
                        len: packet.original_len,
                        comment: comment.expect("every packet has a comment"),
                        at: packet.timestamp,
                    });
                }
                Block::InterfaceStatistics(block) => {
                    let mut counted = Counted::default();
                    for option in &block.options {
                        match option {
                            InterfaceStatisticsOption::IsbIfRecv(count) => counted.seen = *count,
                            InterfaceStatisticsOption::IsbFilterAccept(count) => counted.wanted = *count,
                            InterfaceStatisticsOption::IsbIfDrop(count) => counted.missed = *count,
                            InterfaceStatisticsOption::IsbUsrDeliv(count) => counted.captured = *count,
                            _ => {}
                        }
                    }
                    assert_eq!(contents.statistics.replace(counted), None);
                }
                _ => {}
            }
        }
        contents
    }

    /// Packets whose comment begins like this.
    pub(crate) fn with(&self, comment: &str) -> Vec<&Taken> {
        let begins = |packet: &&Taken| packet.comment.starts_with(comment);
        self.packets.iter().filter(begins).collect()
    }
}

/// A capture into a file, as long as it runs.
#[derive(Debug)]
pub(crate) struct Capturing {
    child: Child,
    file: PathBuf,
}

/// How a capture ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) status: ExitStatus,
    /// What it told.
    pub(crate) told: String,
}

impl Capturing {
    /// Starts one, and returns when the daemon captures.
    #[track_caller]
    pub(crate) fn start(daemon: &Daemon<'_>, name: &str, arguments: &str) -> Self {
        let capturing = Self::launch(daemon, daemon.folder().join(name), arguments);
        wait::holds("the capture to begin", SOON, || {
            fs::metadata(&capturing.file).is_ok_and(|file| file.len() > 0)
        });
        capturing
    }

    /// Starts one into any file, and waits for nothing.
    pub(crate) fn launch(daemon: &Daemon<'_>, file: PathBuf, arguments: &str) -> Self {
        let mut command = Command::new(program("isatapctl"));
        command
            .arg("--socket")
            .arg(daemon.folder().join("control.sock"))
            .arg("capture")
            .arg("-w")
            .arg(&file)
            .args(arguments.split_whitespace())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        Self {
            child: daemon.ns().spawn(&mut command),
            file,
        }
    }

    /// Sends it a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.child.id()).expect("a pid");
        kill(Pid::from_raw(pid), signal).expect("signal a capture");
    }

    /// Waits for its end.
    #[track_caller]
    pub(crate) fn wait(mut self) -> Ended {
        let status = wait::until("the capture to end", 2 * SOON, || match self.child.try_wait() {
            Ok(Some(status)) => Ok(status),
            Ok(None) => Err("it runs".to_owned()),
            Err(error) => Err(error.to_string()),
        });
        let mut told = String::new();
        let mut stderr = self.child.stderr.take().expect("a pipe");
        std::io::Read::read_to_string(&mut stderr, &mut told).expect("what it told");
        Ended { status, told }
    }

    /// Interrupts it and reads its file.
    #[track_caller]
    pub(crate) fn finish(self) -> Contents {
        self.signal(Signal::SIGINT);
        let file = self.file.clone();
        let ended = self.wait();
        assert!(ended.status.success(), "{ended:?}");
        Contents::read(&file)
    }
}

impl Drop for Capturing {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
