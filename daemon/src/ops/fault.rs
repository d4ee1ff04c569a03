//! Things that go wrong on demand, asked for over the control socket by tests. No release build has this.

use serde::{Deserialize, Serialize};

/// What is to go wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fault {
    /// Worker 0 panics.
    WorkerPanic,
    /// Worker 0 makes no turn any more, and sleeps.
    WorkerWedge,
    /// Worker 0 makes no turn any more, and runs in circles.
    WorkerSpin,
    /// The control thread panics.
    ControlPanic,
    /// The control thread stands still.
    ControlWedge,
    /// Something else is said instead of signs of life: the monitor does not look around at them.
    OtherSigns,
    /// The process aborts.
    Abort,
    /// A program is started.
    Program,
    /// A ring is made.
    Ring,
    /// Files are opened through the directory of the configuration, beside it and elsewhere.
    Elsewhere,
    /// The monitor is asked for what it must refuse.
    Forbidden,
    /// The monitor is asked to attach a program to one device after the other.
    Devices,
    /// The monitor is left a configuration with other places for the pid file and the control socket: what is called `victim` beside
    /// the control socket.
    Places,
    /// The monitor is asked to listen for metrics at port 9440 by one who does not take the answer, and then by one who does.
    Listen,
    /// The monitor is asked for routes without end.
    Routes,
    /// The monitor is asked again and again, and no answer is taken.
    Flood,
    /// The monitor is told bytes that are no message.
    Nonsense,
}
