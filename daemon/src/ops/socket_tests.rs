//! The server on a socket in a temporary directory, asked by clients with good and bad manners.

use super::*;
use crate::ops::query::{self, Query};
use crate::ops::status::tests::example;
use std::path::PathBuf;

struct Server {
    _dir: tempfile::TempDir,
    path: PathBuf,
}

fn server(limits: Limits) -> Server {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("control.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let (ask, mut queries) = query::channel();
    tokio::spawn(serve(listener, ask, limits));
    tokio::spawn(async move {
        while let Some(query) = queries.next().await {
            match query {
                Query::Status(reply) => drop(reply.send(example())),
                Query::Reload(reply) => drop(reply.send(Err("isatapd.conf:3:1: unknown name".to_owned()))),
                Query::Solicit(reply) => drop(reply.send(Ok(2))),
                other => panic!("unexpected {other:?}"),
            }
        }
    });
    Server { _dir: dir, path }
}

async fn exchange(stream: &mut BufReader<UnixStream>, request: &str) -> Response {
    stream.write_all(request.as_bytes()).await.unwrap();
    stream.write_all(b"\n").await.unwrap();
    read(stream).await
}

async fn read(stream: &mut BufReader<UnixStream>) -> Response {
    let mut line = String::new();
    stream.read_line(&mut line).await.unwrap();
    serde_json::from_str(&line).unwrap()
}

async fn connect(server: &Server) -> BufReader<UnixStream> {
    BufReader::new(UnixStream::connect(&server.path).await.unwrap())
}

#[tokio::test]
async fn several_requests_on_one_connection() {
    let server = server(Limits::default());
    let mut client = connect(&server).await;
    let status = exchange(&mut client, r#"{"version":1,"command":"status"}"#).await;
    let seen: crate::ops::status::Status = serde_json::from_value(status.ok.unwrap()).unwrap();
    assert_eq!(seen, example());
    let reload = exchange(&mut client, r#"{"version":1,"command":"reload"}"#).await;
    let failure = reload.error.unwrap();
    assert_eq!(failure.code, FailureCode::Refused);
    assert!(failure.message.contains("isatapd.conf:3:1"));
    assert_eq!(
        exchange(&mut client, r#"{"version":1,"command":"solicit"}"#).await,
        Response::ok(2)
    );
    let other = exchange(&mut client, r#"{"version":9}"#).await.error.unwrap();
    assert_eq!(other.code, FailureCode::Version);
}

/// FAULTS 64: a request without end is refused at its bound and the connection closed.
#[tokio::test]
async fn a_request_has_a_largest_size() {
    let server = server(Limits::default());
    let mut client = connect(&server).await;
    let chunk = vec![b'x'; 4096];
    // The server may stop reading and close before everything is written.
    for _ in 0..64 {
        if client.write_all(&chunk).await.is_err() {
            break;
        }
    }
    let mut answer = Vec::new();
    let _ = client.read_to_end(&mut answer).await;
    let answer: Response = serde_json::from_slice(&answer).unwrap();
    assert_eq!(answer.error.unwrap().code, FailureCode::BadRequest);
}

#[tokio::test]
async fn a_silent_client_is_cut_off() {
    let server = server(Limits {
        patience: Duration::from_millis(50),
        ..Limits::default()
    });
    let mut client = connect(&server).await;
    client.write_all(b"{\"version\":1,").await.unwrap();
    let mut answer = Vec::new();
    tokio::time::timeout(Duration::from_secs(5), client.read_to_end(&mut answer))
        .await
        .unwrap()
        .unwrap();
    assert!(answer.is_empty());
}

#[tokio::test]
async fn too_many_clients_are_told_so() {
    let server = server(Limits {
        connections: 1,
        ..Limits::default()
    });
    let mut first = connect(&server).await;
    // An answer proves that the first connection holds the only permit.
    exchange(&mut first, r#"{"version":1,"command":"solicit"}"#).await;
    let mut second = connect(&server).await;
    assert_eq!(read(&mut second).await.error.unwrap().code, FailureCode::Busy);
}

#[tokio::test]
async fn an_unfinished_last_line_is_answered_before_the_end() {
    let server = server(Limits::default());
    let mut client = connect(&server).await;
    client
        .write_all(br#"{"version":1,"command":"solicit"}"#)
        .await
        .unwrap();
    client.shutdown().await.unwrap();
    assert_eq!(read(&mut client).await, Response::ok(2));
}
