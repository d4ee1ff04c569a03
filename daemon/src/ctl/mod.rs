//! `isatapctl`: asks the daemon over its control socket and shows the answer.

pub mod capture;
pub mod cli;
pub mod client;
pub mod doctor;
pub mod histogram;
pub mod hlog;
mod hosts;
pub mod overview;
mod place;
mod plain;
pub mod ready;
pub mod render;
mod share;
pub mod table;
pub mod top;
pub mod upgrade;

use std::io::Write;
use std::path::Path;
use std::time::Duration;

use crate::config::source::DEFAULT_PATH;
use crate::config::{ConfigError, Loader, Overrides};
use crate::exit::{ExitError, ExitStatus};
use crate::ops::protocol::Command;
use crate::ops::status::{Routes, Status};
use crate::prl::resolver;
use cli::{Cli, Order};
use client::Client;

/// Does what the command line says; text goes to `out`.
///
/// # Errors
/// [`ExitError`] with the contract's status: 69 no daemon, 78 `check` failed, 1 refused.
pub fn run(cli: &Cli, out: &mut impl Write) -> Result<(), ExitError> {
    let mut obstacles = 0;
    let socket = || place::socket(cli.socket.as_deref());
    let text = match &cli.order {
        Order::Check { file, no_lookup } => check(file.as_deref(), !no_lookup)?,
        Order::Status { schema: true, .. } => json(&crate::ops::schema::status())?,
        Order::Doctor => {
            let (report, found) = doctor::run(&socket());
            obstacles = found;
            report
        }
        Order::Upgrade => upgrade::run(&socket())?,
        Order::Top { interval } => {
            top::run(&socket(), Duration::from_secs_f64(*interval))?;
            String::new()
        }
        Order::Capture(options) => {
            let summary = capture::run(options, &socket(), out)?;
            // Beside the packets, which may be on the standard output; whoever read both may have gone.
            let _ = writeln!(std::io::stderr(), "{summary}");
            String::new()
        }
        Order::Ready { hold: Some(name), .. } => return ready::hold(&socket(), name, out),
        Order::Ready { wait, .. } => ready::wait(&socket(), wait.map(Duration::from_secs_f64))?,
        order => ask(order, Client::connect(&socket())?)?,
    };
    let whole = matches!(
        cli.order,
        Order::Status { json: true, .. } | Order::Hosts { json: true, .. }
    );
    let text = if whole {
        plain::json(&text)
    } else {
        plain::text(&text)
    };
    out.write_all(text.as_bytes())
        .and_then(|()| out.flush())
        .or_else(|error| match error.kind() {
            // `isatapctl routes | head` is no failure.
            std::io::ErrorKind::BrokenPipe => Ok(()),
            _ => Err(ExitError::other(format!("cannot write the answer: {error}"))),
        })?;
    match obstacles {
        0 => Ok(()),
        count => Err(ExitError::other(format!("{count} thing(s) stand in the way"))),
    }
}

fn ask(order: &Order, mut client: Client) -> Result<String, ExitError> {
    let mut status = |rate: Option<f64>| -> Result<(Status, Option<render::Earlier>), ExitError> {
        let Some(seconds) = rate else {
            return Ok((client.get(Command::Status)?, None));
        };
        let earlier: Status = client.get(Command::Status)?;
        std::thread::sleep(Duration::from_secs_f64(seconds));
        Ok((client.get(Command::Status)?, Some(render::Earlier(earlier))))
    };
    match order {
        Order::Status { json: true, .. } => json(&client.request(Command::Status)?),
        Order::Status { rate, .. } => status(*rate).map(|(now, then)| overview::status(&now, then.as_ref())),
        Order::Drops { rate } => status(*rate).map(|(now, then)| render::drops(&now, then.as_ref())),
        Order::Workers { rate } => status(*rate).map(|(now, then)| render::workers(&now, then.as_ref())),
        Order::Routers => status(None).map(|(now, _)| render::routers(&now)),
        Order::Routes => client
            .get::<Routes>(Command::Routes)
            .map(|routes| render::routes(&routes)),
        Order::Hosts { network, json: whole } => {
            let within = network.map(|network| network.to_string());
            let answer = client.request(Command::Hosts { within })?;
            if *whole {
                return json(&answer);
            }
            let hosts = serde_json::from_value(answer).map_err(|error| {
                ExitError::other(format!("the daemon's answer is not understood: {error}"))
            })?;
            Ok(hosts::text(&hosts))
        }
        Order::Histogram {
            hlog,
            count,
            interval,
        } => {
            let watch = count.map(|count| histogram::Watch {
                count,
                interval: Duration::from_secs_f64(*interval),
            });
            histogram::show(&mut client, watch, hlog.as_deref())
        }
        Order::Reload => client
            .get::<Vec<String>>(Command::Reload)
            .map(|changes| render::reload(&changes)),
        Order::Rs => client
            .get::<usize>(Command::Solicit)
            .map(|count| format!("solicited {count} router(s)\n")),
        Order::Drain { undo } => client
            .get::<Vec<String>>(Command::Drain { undo: *undo })
            .map(|lines| lines.join("\n") + "\n"),
        Order::Explain { src4, src6, dst6 } => {
            let command = Command::Explain {
                src4: *src4,
                src6: *src6,
                dst6: *dst6,
            };
            client
                .get::<Vec<String>>(command)
                .map(|lines| lines.join("\n") + "\n")
        }
        // These are dealt with before a connection is made.
        Order::Check { .. }
        | Order::Doctor
        | Order::Top { .. }
        | Order::Ready { .. }
        | Order::Capture(_)
        | Order::Upgrade => Ok(String::new()),
    }
}

fn json(value: &serde_json::Value) -> Result<String, ExitError> {
    serde_json::to_string_pretty(value)
        .map(|text| text + "\n")
        .map_err(|error| ExitError::other(format!("cannot write JSON: {error}")))
}

/// Parses and resolves the file as the daemon would on this machine, and looks up every name in it unless told not to.
fn check(file: Option<&Path>, lookup: bool) -> Result<String, ExitError> {
    let refused = |error: ConfigError| ExitError::new(ExitStatus::Config, error.to_string());
    let loader = Loader::open(file.map(Path::to_owned), Overrides::default()).map_err(refused)?;
    let loaded = loader.load().map_err(refused)?;
    if lookup {
        resolver::check(&loaded).map_err(refused)?;
    }
    let mut text: String = loaded
        .warnings
        .iter()
        .map(|warning| format!("warning: {warning}\n"))
        .collect();
    let shown = file.unwrap_or(Path::new(DEFAULT_PATH)).display();
    text.push_str(&match loaded.settings.config_path {
        None if file.is_none() => format!("{shown} does not exist: the defaults can be used\n"),
        _ => format!("{shown}: can be used\n"),
    });
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(content: &str, no_lookup: bool) -> Result<String, ExitError> {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("isatapd.conf");
        std::fs::write(&file, content).unwrap();
        let order = Order::Check {
            file: Some(file),
            no_lookup,
        };
        let mut out = Vec::new();
        let cli = Cli {
            socket: Some("/nonexistent".into()),
            order,
        };
        run(&cli, &mut out).map(|()| String::from_utf8(out).unwrap())
    }

    #[test]
    fn check_needs_no_daemon() {
        assert!(
            checked("BindAddress 10.0.0.5\n", false)
                .unwrap()
                .ends_with("can be used\n")
        );
    }

    #[test]
    fn a_name_that_cannot_be_looked_up_is_no_obstacle_when_nobody_asks() {
        let config = "BindAddress 10.0.0.5\nServerAddress no.such.name.invalid\n";
        assert_eq!(checked(config, false).unwrap_err().status(), ExitStatus::Config);
        assert!(checked(config, true).unwrap().ends_with("can be used\n"));
    }

    #[test]
    fn a_failed_check_is_78_and_names_the_place() {
        let error = checked("BindAddress 10.0.0.5\nTeaTime 17\n", true).unwrap_err();
        assert_eq!(error.status(), ExitStatus::Config);
        assert!(error.to_string().contains("isatapd.conf:2:1"), "{error}");
    }
}
