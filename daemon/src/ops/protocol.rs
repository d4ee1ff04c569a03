//! The language of the control socket: one JSON object per line in each direction, with a version.
//!
//! ```text
//!   -> {"version":1,"command":"status"}
//!   <- {"version":1,"ok":{...}}            or  {"version":1,"error":{"code":"refused","message":"..."}}
//! ```

use std::net::{Ipv4Addr, Ipv6Addr};

use serde::{Deserialize, Serialize};

use super::capture::CaptureRequest;

/// The version spoken here. A client of another version gets an error that says so.
pub const VERSION: u32 = 1;

/// Longest request line in bytes.
pub const MAX_REQUEST_LEN: usize = 64 * 1024;

/// What a client wants.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "snake_case")]
pub enum Command {
    /// The status document.
    Status,
    /// The routes of the interface.
    Routes,
    /// The hosts that a router knows.
    Hosts {
        /// Only those of this IPv4 network.
        #[serde(default)]
        within: Option<String>,
    },
    /// The latency histograms of every worker.
    Histogram,
    /// Load the configuration again.
    Reload,
    /// Let the program that is installed now take over.
    Upgrade,
    /// Solicit every router now.
    Solicit,
    /// What stands in the way of packets; nothing when ready.
    Ready,
    /// Take this router out of service, or back.
    Drain {
        /// Back into service.
        #[serde(default)]
        undo: bool,
    },
    /// Something is to go wrong, for a test.
    #[cfg(debug_assertions)]
    Fault {
        /// What.
        fault: super::fault::Fault,
    },
    /// What would happen to this packet.
    Explain {
        /// Outer source, of a received packet.
        src4: Option<Ipv4Addr>,
        /// Inner source.
        src6: Ipv6Addr,
        /// Inner destination.
        dst6: Ipv6Addr,
    },
    /// Copies of packets; what follows the answer is described in [`super::capture`].
    Capture(CaptureRequest),
}

/// A request line.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Request {
    /// [`VERSION`] of the client.
    pub version: u32,
    /// What it wants.
    #[serde(flatten)]
    pub command: Command,
}

/// A response line.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Response {
    /// [`VERSION`] of the daemon.
    pub version: u32,
    /// The result, its shape depends on the command.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ok: Option<serde_json::Value>,
    /// Why there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<Failure>,
}

/// Why a request failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// For programs.
    pub code: FailureCode,
    /// For people.
    pub message: String,
}

/// The kinds of failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureCode {
    /// The request is no request of this version.
    BadRequest,
    /// The daemon speaks another version.
    Version,
    /// The request was understood and refused: nothing was changed.
    Refused,
    /// The daemon cannot answer now.
    Busy,
    /// A code this client does not know.
    #[serde(other)]
    Other,
}

impl Response {
    /// A result.
    pub fn ok(value: impl Serialize) -> Self {
        match serde_json::to_value(value) {
            Ok(value) => Self {
                version: VERSION,
                ok: Some(value),
                error: None,
            },
            Err(error) => Self::error(FailureCode::Busy, format!("cannot write the answer: {error}")),
        }
    }

    /// A failure.
    pub fn error(code: FailureCode, message: impl Into<String>) -> Self {
        Self {
            version: VERSION,
            ok: None,
            error: Some(Failure {
                code,
                message: message.into(),
            }),
        }
    }

    /// The line, with its end.
    pub fn to_line(&self) -> Vec<u8> {
        let mut line = serde_json::to_vec(self).unwrap_or_default();
        line.push(b'\n');
        line
    }
}

/// Reads a request line.
///
/// # Errors
/// The response to send instead: another version, or not a request.
pub fn parse_request(line: &[u8]) -> Result<Request, Response> {
    /// The version is read by itself first, so that a later version may change everything else.
    #[derive(Deserialize)]
    struct Versioned {
        version: u32,
    }
    let bad = |error: serde_json::Error| {
        let message = format!(
            "not a request that isatapd {} understands: {error}",
            env!("CARGO_PKG_VERSION")
        );
        Response::error(FailureCode::BadRequest, message)
    };
    let Versioned { version } = serde_json::from_slice(line).map_err(bad)?;
    if version != VERSION {
        let message = format!(
            "isatapd {} speaks version {VERSION} of the control protocol, not {version}",
            env!("CARGO_PKG_VERSION")
        );
        return Err(Response::error(FailureCode::Version, message));
    }
    serde_json::from_slice(line).map_err(bad)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_round_trip() {
        let explain = Command::Explain {
            src4: None,
            src6: "fe80::1".parse().unwrap(),
            dst6: "::1".parse().unwrap(),
        };
        for command in [
            Command::Status,
            Command::Routes,
            Command::Hosts { within: None },
            Command::Hosts {
                within: Some("10.0.0.0/8".into()),
            },
            Command::Histogram,
            Command::Reload,
            Command::Solicit,
            Command::Ready,
            Command::Drain { undo: false },
            Command::Drain { undo: true },
            explain,
            Command::Capture(CaptureRequest {
                hosts: vec!["10.0.0.1".parse().unwrap()],
                seconds: Some(1.5),
                ..CaptureRequest::default()
            }),
        ] {
            let request = Request {
                version: VERSION,
                command,
            };
            let line = serde_json::to_vec(&request).unwrap();
            assert_eq!(parse_request(&line).unwrap(), request);
        }
        assert_eq!(
            parse_request(br#"{"version":1,"command":"status"}"#)
                .unwrap()
                .command,
            Command::Status
        );
    }

    #[test]
    fn what_is_no_request_is_answered_by_kind() {
        for (line, code) in [
            (&b"{\"version\":2,\"order\":\"tea\"}"[..], FailureCode::Version),
            (b"{\"version\":1,\"command\":\"tea\"}", FailureCode::BadRequest),
            (b"{\"version\":1}", FailureCode::BadRequest),
            (b"GET / HTTP/1.1", FailureCode::BadRequest),
            (b"", FailureCode::BadRequest),
            (b"\xff\xfe", FailureCode::BadRequest),
        ] {
            assert_eq!(
                parse_request(line).unwrap_err().error.unwrap().code,
                code,
                "{line:?}"
            );
        }
    }

    #[test]
    fn an_unknown_failure_code_is_still_a_failure() {
        let failure: Failure = serde_json::from_str(r#"{"code":"new_kind","message":"x"}"#).unwrap();
        assert_eq!(failure.code, FailureCode::Other);
    }
}
