//! The server on a loopback port, asked by clients with good and bad manners.

use super::*;
use crate::ops::query::{self, Query};
use crate::ops::status::tests::example;
use std::net::SocketAddr;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

fn impatient() -> Limits {
    Limits {
        connections: 2,
        head: Duration::from_millis(100),
        connection: Duration::from_secs(5),
    }
}

/// A server whose control loop answers with `ready`.
async fn server(ready: bool, limits: Limits) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let (ask, mut queries) = query::channel();
    tokio::spawn(serve(listener, ask, limits));
    tokio::spawn(async move {
        while let Some(query) = queries.next().await {
            match query {
                Query::Status(reply) => drop(reply.send(example())),
                Query::Metrics(reply) => drop(reply.send("isatapd_ready 1\n".to_owned())),
                Query::Ready(reply) => {
                    drop(reply.send(if ready {
                        Ok(())
                    } else {
                        Err(vec!["no usable router".to_owned()])
                    }));
                }
                other => panic!("HTTP asked {other:?}"),
            }
        }
    });
    addr
}

async fn get(addr: SocketAddr, path: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(addr).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let status = answer.split(' ').nth(1).unwrap().parse().unwrap();
    let (_, body) = answer.split_once("\r\n\r\n").unwrap();
    (status, body.to_owned())
}

#[tokio::test]
async fn every_page_answers() {
    let addr = server(true, Limits::default()).await;
    assert_eq!(get(addr, "/healthz").await, (200, "ok\n".to_owned()));
    assert_eq!(get(addr, "/ready").await, (200, "ready\n".to_owned()));
    assert_eq!(get(addr, "/metrics").await, (200, "isatapd_ready 1\n".to_owned()));
    assert!(get(addr, "/").await.1.contains("/api/v1/status"));
    assert_eq!(get(addr, "/nowhere").await.0, 404);
    let (status, body) = get(addr, "/api/v1/status").await;
    assert_eq!(status, 200);
    let seen: crate::ops::status::Status = serde_json::from_str(&body).unwrap();
    assert_eq!(seen, example());
}

#[tokio::test]
async fn not_ready_is_503_and_says_why() {
    let addr = server(false, Limits::default()).await;
    let (status, body) = get(addr, "/ready").await;
    assert_eq!(status, 503);
    assert!(body.contains("no usable router"), "{body}");
    assert_eq!(get(addr, "/healthz").await.0, 200, "alive nevertheless");
}

#[tokio::test]
async fn a_daemon_that_stops_is_not_ready() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let (ask, queries) = query::channel();
    drop(queries);
    tokio::spawn(serve(listener, ask, Limits::default()));
    assert_eq!(get(addr, "/ready").await.0, 503);
    assert_eq!(get(addr, "/metrics").await.0, 503);
}

/// FAULTS 65: clients that hold every connection and say nothing are cut off, and others get their turn.
#[tokio::test]
async fn silent_clients_do_not_keep_others_out() {
    let addr = server(true, impatient()).await;
    let mut silent = Vec::new();
    for _ in 0..8 {
        let mut stream = TcpStream::connect(addr).await.unwrap();
        stream
            .write_all(b"GET /metrics HTTP/1.1\r\nX-Slow: ")
            .await
            .unwrap();
        silent.push(stream);
    }
    let answered = tokio::time::timeout(Duration::from_secs(10), get(addr, "/healthz"))
        .await
        .unwrap();
    assert_eq!(answered.0, 200);
}

#[tokio::test]
async fn an_endless_head_is_refused() {
    let addr = server(
        true,
        Limits {
            head: Duration::from_secs(10),
            ..Limits::default()
        },
    )
    .await;
    let mut stream = TcpStream::connect(addr).await.unwrap();
    let chunk = vec![b'a'; 64 * 1024];
    let _ = stream.write_all(b"GET /").await;
    let _ = stream.write_all(&chunk).await;
    let mut answer = Vec::new();
    // The server may close with our bytes unread, which resets the connection: no answer is one, too.
    let _ = tokio::time::timeout(Duration::from_secs(5), stream.read_to_end(&mut answer))
        .await
        .unwrap();
    let answer = String::from_utf8_lossy(&answer);
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 4"), "{answer}");
}

/// What comes over one connection that asks for `paths` in turn, until the server ends it. The clock is the test's.
async fn conversation(paths: &[&str], limits: Limits) -> String {
    let (ask, queries) = query::channel();
    // Control that is too busy to answer: streams stay empty.
    let _queries = queries;
    let (mut client, stream) = tokio::io::duplex(64 * 1024);
    let server = tokio::spawn(converse(stream, Pages::new(ask), limits));
    for path in paths {
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n");
        client.write_all(request.as_bytes()).await.unwrap();
        // Less than the patience for the next head.
        tokio::time::sleep(Duration::from_secs(3)).await;
    }
    let mut heard = String::new();
    client.read_to_string(&mut heard).await.unwrap();
    server.await.unwrap();
    heard
}

/// A page that was loaded long ago takes up its stream over the connection it has: that ends well, too.
#[tokio::test(start_paused = true)]
async fn a_live_stream_ends_before_its_connection() {
    let started = Instant::now();
    let heard = conversation(&["/api/v1/live"], Limits::default()).await;
    assert!(heard.contains("connection: close"), "{heard}");
    assert!(heard.ends_with("\r\n0\r\n\r\n"), "{heard}");
    assert!(started.elapsed() < CONNECTION_WITHIN, "{:?}", started.elapsed());

    let before = Instant::now();
    let kept = [["/healthz"; 10].as_slice(), &["/api/v1/live"]].concat();
    let heard = conversation(&kept, Limits::default()).await;
    assert_eq!(heard.matches("HTTP/1.1 200").count(), 11, "{heard}");
    assert!(heard.ends_with("\r\n0\r\n\r\n"), "{heard}");
    assert!(before.elapsed() < CONNECTION_WITHIN, "{:?}", before.elapsed());
}
