//! Questions and answers through the kernel's sockets, one at a time: what a resolver or a database does.

use std::io::{Read, Write};
use std::net::{Ipv6Addr, SocketAddr, SocketAddrV6, TcpListener, TcpStream, UdpSocket};
use std::thread;
use std::time::Duration;

use crate::flows::{FlowBook, write_flow_header};
use crate::netns::Netns;

/// Bytes of a question, and of its answer.
const MESSAGE_LEN: usize = 64;
/// An answer that takes longer is lost.
const PATIENCE: Duration = Duration::from_secs(3);
/// The client asks from here and the server answers from here, on UDP and TCP alike.
const PORT: u16 = 7003;

/// Asks `count` questions over UDP, each after the answer to the one before, and returns what the server saw and
/// what came back.
///
/// # Panics
/// When sockets cannot be opened.
#[track_caller]
pub fn over_udp(client: &Netns, server: &Netns, dst: Ipv6Addr, count: u32) -> (FlowBook, FlowBook) {
    let open = || {
        let socket = UdpSocket::bind((Ipv6Addr::UNSPECIFIED, PORT)).expect("bind an end");
        socket.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        socket
    };
    let (asking, answering) = (client.enter(open), server.enter(open));
    thread::scope(|scope| {
        let server = scope.spawn(|| {
            let mut book = FlowBook::default();
            let mut question = [0; MESSAGE_LEN];
            for _ in 0..count {
                let Ok((len, from)) = answering.recv_from(&mut question) else {
                    break;
                };
                book.observe(&question[..len]);
                answering.send_to(&question[..len], from).expect("an answer");
            }
            book
        });
        let mut book = FlowBook::default();
        let (mut question, mut answer) = ([0; MESSAGE_LEN], [0; MESSAGE_LEN]);
        for sequence in 0..count {
            write_flow_header(&mut question, 0, sequence);
            asking.send_to(&question, (dst, PORT)).expect("a question");
            match asking.recv(&mut answer) {
                Ok(len) => book.observe(&answer[..len]),
                Err(_) => break,
            };
        }
        (server.join().expect("the server"), book)
    })
}

/// Asks `count` questions over one TCP connection, each after the answer to the one before.
///
/// # Errors
/// When the connection fails, or an answer is late or not the question.
pub fn over_tcp(client: &Netns, server: &Netns, dst: Ipv6Addr, count: u32) -> std::io::Result<()> {
    let listener = server.enter(|| TcpListener::bind((Ipv6Addr::UNSPECIFIED, PORT)))?;
    let to = SocketAddr::V6(SocketAddrV6::new(dst, PORT, 0, 0));
    let mut asking = client.enter(|| TcpStream::connect_timeout(&to, PATIENCE))?;
    let (mut answering, _) = listener.accept()?;
    for stream in [&asking, &answering] {
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
    }
    thread::scope(|scope| {
        let server = scope.spawn(move || -> std::io::Result<()> {
            let mut question = [0; MESSAGE_LEN];
            for _ in 0..count {
                answering.read_exact(&mut question)?;
                answering.write_all(&question)?;
            }
            Ok(())
        });
        let (mut question, mut answer) = ([0; MESSAGE_LEN], [0; MESSAGE_LEN]);
        for sequence in 0..count {
            write_flow_header(&mut question, 0, sequence);
            asking.write_all(&question)?;
            asking.read_exact(&mut answer)?;
            if answer != question {
                return Err(std::io::Error::other(format!("answer {sequence} is another")));
            }
        }
        server.join().expect("the server")
    })
}
