//! Steady traffic while something else happens: numbered questions over UDP, each with the time of its answer, and a
//! TCP connection that goes on and on.
//!
//! What happened in between is asked afterwards: how many questions had no answer, and how long a flow was silent.

use std::fmt;
use std::io::{Read, Write};
use std::net::{Ipv6Addr, Shutdown, SocketAddr, SocketAddrV6, TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::flows::write_flow_header;
use crate::netns::Netns;
use crate::wait;

/// Questions go to this port.
const UDP_PORT: u16 = 7005;
/// The connection goes to this port.
const TCP_PORT: u16 = 7006;
/// Bytes of a question, and of its answer.
const QUESTION_LEN: usize = 64;
/// A socket is looked at again after so long.
const IDLE: Duration = Duration::from_millis(50);
/// Answers that are on their way at the end have so long.
const LAST_ANSWERS: Duration = Duration::from_secs(5);
/// A connection that is silent for longer is broken: TCP waits ever longer between its attempts.
const STALL: Duration = Duration::from_secs(90);
/// Bytes given to TCP at once, and the pause after them: some 6 Mbit/s, which leaves a machine with two cores time.
const CHUNK_LEN: usize = 16 * 1024;
const CHUNK_PAUSE: Duration = Duration::from_millis(20);

/// One question.
#[derive(Clone, Copy, Debug)]
struct Question {
    asked: Instant,
    answered: Option<Instant>,
}

#[derive(Debug, Default)]
struct Book {
    /// By flow and number.
    questions: Vec<Vec<Question>>,
    /// Answers that came twice, or to nothing that was asked.
    strange: u64,
    /// Answers that came after a later one.
    reordered: u64,
    /// Questions that the kernel did not take.
    refused: u64,
}

/// Questions and answers on several flows, each `interval` on each.
#[derive(Debug)]
pub struct Pulse {
    book: Arc<Mutex<Book>>,
    stop: Arc<AtomicBool>,
    asking: Option<JoinHandle<()>>,
    answering: Vec<JoinHandle<()>>,
}

/// What became of the questions of a span of time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Asked.
    pub asked: u64,
    /// Without an answer.
    pub lost: u64,
    /// The longest time between two answers of one flow.
    pub silence: Duration,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} asked, {} without an answer, longest silence {:.3} s",
            self.asked,
            self.lost,
            self.silence.as_secs_f64()
        )
    }
}

impl Pulse {
    /// Starts asking in `from`, one flow for each address of `to`.
    ///
    /// # Panics
    /// When a socket cannot be opened.
    #[track_caller]
    pub fn start(from: &Netns, to: &Netns, addresses: &[Ipv6Addr], interval: Duration) -> Self {
        Self::ask_from(from, to, addresses, interval, false)
    }

    /// The same from whatever address the asker has at the moment of each question.
    ///
    /// # Panics
    /// When a socket cannot be opened.
    #[track_caller]
    pub fn roaming(from: &Netns, to: &Netns, addresses: &[Ipv6Addr], interval: Duration) -> Self {
        Self::ask_from(from, to, addresses, interval, true)
    }

    #[track_caller]
    fn ask_from(from: &Netns, to: &Netns, addresses: &[Ipv6Addr], interval: Duration, roaming: bool) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let answering = addresses
            .iter()
            .map(|address| {
                let socket = to.enter(|| UdpSocket::bind((*address, UDP_PORT)).expect("bind an answerer"));
                socket.set_read_timeout(Some(IDLE)).expect("a timeout");
                let stop = Arc::clone(&stop);
                thread::spawn(move || answer(&socket, &stop))
            })
            .collect();
        let sockets: Vec<_> = addresses
            .iter()
            .map(|address| Asker::new(from, *address, roaming))
            .collect();
        let book = Arc::new(Mutex::new(Book {
            questions: vec![Vec::new(); sockets.len()],
            ..Book::default()
        }));
        let (shared, ends) = (Arc::clone(&book), Arc::clone(&stop));
        let asking = thread::spawn(move || ask(&shared, &sockets, interval, &ends));
        Self {
            book,
            stop,
            asking: Some(asking),
            answering,
        }
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        lock(&self.book)
    }

    /// Waits until a question asked after `since` was answered on each flow.
    ///
    /// # Panics
    /// When not within `limit`.
    #[track_caller]
    pub fn wait_answers(&self, since: Instant, limit: Duration) {
        wait::until("an answer on each flow", limit, || {
            let book = self.book();
            let fresh = |flow: &&Vec<Question>| {
                let newest = flow.iter().rev().take_while(|question| question.asked > since);
                newest.into_iter().any(|question| question.answered.is_some())
            };
            let alive = book.questions.iter().filter(fresh).count();
            if alive == book.questions.len() {
                Ok(())
            } else {
                Err(format!("{alive} of {} flows", book.questions.len()))
            }
        });
    }

    /// What became of the questions asked from `from` to `to`, and how silent flows were from `from` to `end`.
    fn between(&self, from: Instant, to: Instant, end: Instant) -> Outcome {
        let book = self.book();
        let mut outcome = Outcome::default();
        for flow in &book.questions {
            let mut last = from;
            for question in flow
                .iter()
                .filter(|question| (from..end).contains(&question.asked))
            {
                if question.asked < to {
                    outcome.asked += 1;
                    outcome.lost += u64::from(question.answered.is_none());
                }
                if let Some(at) = question.answered {
                    outcome.silence = outcome.silence.max(at.saturating_duration_since(last));
                    last = last.max(at);
                }
            }
            outcome.silence = outcome.silence.max(end.saturating_duration_since(last));
        }
        outcome
    }

    /// Waits until every flow of `pulses` is answered again, and says what became of all questions from `began` to then.
    ///
    /// # Panics
    /// When that takes longer than `limit`.
    #[track_caller]
    pub fn since(pulses: &[Self], began: Instant, limit: Duration) -> Outcome {
        let now = Instant::now();
        pulses.iter().for_each(|pulse| pulse.wait_answers(now, limit));
        let (mut all, end) = (Outcome::default(), Instant::now());
        for one in pulses.iter().map(|pulse| pulse.between(began, now, end)) {
            all.asked += one.asked;
            all.lost += one.lost;
            all.silence = all.silence.max(one.silence);
        }
        all
    }

    /// Asks no more, waits for the last answers, and returns what became of all.
    ///
    /// # Panics
    /// When an answer came twice or to nothing.
    #[track_caller]
    pub fn finish(mut self) -> Outcome {
        self.end();
        let book = self.book();
        assert_eq!(book.strange, 0, "answers that nobody asked for");
        drop(book);
        let end = Instant::now();
        let start = self
            .book()
            .questions
            .iter()
            .flatten()
            .map(|question| question.asked)
            .min();
        self.between(start.unwrap_or(end), end, end)
    }

    /// The same, and every question had its one answer, in order.
    ///
    /// # Panics
    /// When not.
    #[track_caller]
    pub fn finish_whole(mut self) -> Outcome {
        self.end();
        {
            let book = self.book();
            let faults = [
                ("strange", book.strange),
                ("reordered", book.reordered),
                ("refused", book.refused),
            ];
            assert!(faults.iter().all(|(_, count)| *count == 0), "{faults:?}");
        }
        let outcome = self.finish();
        assert_eq!(outcome.lost, 0, "{outcome}");
        outcome
    }

    fn end(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(asking) = self.asking.take() {
            asking.join().expect("the asker");
        }
        for answering in self.answering.drain(..) {
            answering.join().expect("an answerer");
        }
    }
}

impl Drop for Pulse {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// One flow of questions.
#[derive(Debug)]
struct Asker {
    socket: UdpSocket,
    /// Where each question is sent; nowhere in particular when the socket is connected, and keeps its source address.
    to: Option<(Ipv6Addr, u16)>,
}

impl Asker {
    fn new(from: &Netns, address: Ipv6Addr, roaming: bool) -> Self {
        let to = (address, UDP_PORT);
        let socket = from.enter(|| {
            let socket = UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0)).expect("bind an asker");
            if !roaming {
                socket.connect(to).expect("a route");
            }
            socket
        });
        socket.set_nonblocking(true).expect("a non-blocking socket");
        Self {
            socket,
            to: roaming.then_some(to),
        }
    }

    fn send(&self, data: &[u8]) -> std::io::Result<usize> {
        match self.to {
            Some(to) => self.socket.send_to(data, to),
            None => self.socket.send(data),
        }
    }
}

fn lock(book: &Mutex<Book>) -> MutexGuard<'_, Book> {
    book.lock().unwrap_or_else(PoisonError::into_inner)
}

fn answer(socket: &UdpSocket, stop: &AtomicBool) {
    let mut question = [0; QUESTION_LEN];
    // Answers until nothing has come for a while after the end.
    loop {
        match socket.recv_from(&mut question) {
            // An answer that the kernel has no route for is lost, which the asker notes.
            Ok((len, from)) => drop(socket.send_to(&question[..len], from)),
            Err(_) if stop.load(Ordering::Relaxed) => return,
            Err(_) => {}
        }
    }
}

fn ask(book: &Mutex<Book>, sockets: &[Asker], interval: Duration, stop: &AtomicBool) {
    let mut newest = vec![None; sockets.len()];
    let mut next = Instant::now();
    let mut sequence = 0u32;
    while !stop.load(Ordering::Relaxed) {
        let now = Instant::now();
        if now >= next {
            for (flow, asker) in (0u16..).zip(sockets) {
                let mut data = [0x5a; QUESTION_LEN];
                write_flow_header(&mut data, flow, sequence);
                let question = Question {
                    asked: Instant::now(),
                    answered: None,
                };
                lock(book).questions[usize::from(flow)].push(question);
                // An error may be an earlier question's: the socket reports it once.
                if asker.send(&data).is_err() && asker.send(&data).is_err() {
                    lock(book).refused += 1;
                }
            }
            sequence += 1;
            // After a pause of the machine the rate goes on, without a burst to catch up.
            next = (next + interval).max(now);
        }
        take(book, sockets, &mut newest);
        thread::sleep(
            next.saturating_duration_since(Instant::now())
                .min(Duration::from_millis(1)),
        );
    }
    let deadline = Instant::now() + LAST_ANSWERS;
    while Instant::now() < deadline {
        take(book, sockets, &mut newest);
        let last_is_open = |flow: &Vec<Question>| flow.last().is_some_and(|last| last.answered.is_none());
        if !lock(book).questions.iter().any(last_is_open) {
            break;
        }
        thread::sleep(Duration::from_millis(1));
    }
}

/// Takes every answer that is there.
fn take(book: &Mutex<Book>, sockets: &[Asker], newest: &mut [Option<u32>]) {
    let mut answer = [0; QUESTION_LEN];
    for (flow, asker) in sockets.iter().enumerate() {
        // Bounded: an error that the network reports is read once.
        for _ in 0..1024 {
            match asker.socket.recv(&mut answer) {
                Ok(QUESTION_LEN) => {}
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => break,
                _ => continue,
            }
            let number = u32::from_be_bytes(answer[10..14].try_into().expect("four bytes"));
            let mut book = lock(book);
            let open = book.questions[flow].get_mut(number as usize);
            match open.filter(|question| question.answered.is_none()) {
                Some(question) => question.answered = Some(Instant::now()),
                None => book.strange += 1,
            }
            if newest[flow].is_some_and(|before| number < before) {
                book.reordered += 1;
            }
            newest[flow] = newest[flow].max(Some(number));
        }
    }
}

/// A TCP connection on which content goes one way until it is finished.
#[derive(Debug)]
pub struct Stream {
    stop: Arc<AtomicBool>,
    arrived: Arc<AtomicU64>,
    sender: Option<JoinHandle<std::io::Result<u64>>>,
    receiver: Option<JoinHandle<std::io::Result<u64>>>,
}

impl Stream {
    /// Connects `from` to `address` in `to`, and goes on sending.
    ///
    /// # Panics
    /// When no connection comes about.
    #[track_caller]
    pub fn start(from: &Netns, to: &Netns, address: Ipv6Addr) -> Self {
        let listener = to.enter(|| TcpListener::bind((address, TCP_PORT)).expect("bind a listener"));
        let target = SocketAddr::V6(SocketAddrV6::new(address, TCP_PORT, 0, 0));
        let sending = from.enter(|| TcpStream::connect_timeout(&target, STALL).expect("a connection"));
        let (receiving, _) = listener.accept().expect("the connection");
        sending.set_write_timeout(Some(STALL)).expect("a timeout");
        receiving.set_read_timeout(Some(STALL)).expect("a timeout");
        let (stop, arrived) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (ends, count) = (Arc::clone(&stop), Arc::clone(&arrived));
        Self {
            stop,
            arrived,
            sender: Some(thread::spawn(move || send(sending, &ends))),
            receiver: Some(thread::spawn(move || receive(receiving, &count))),
        }
    }

    /// Bytes that arrived, all of them as they were sent.
    pub fn arrived(&self) -> u64 {
        self.arrived.load(Ordering::Relaxed)
    }

    /// Waits until `bytes` more have arrived.
    ///
    /// # Panics
    /// When not within `limit`.
    #[track_caller]
    pub fn wait_more(&self, bytes: u64, limit: Duration) {
        let before = self.arrived();
        wait::until(&format!("{bytes} more bytes over TCP"), limit, || {
            let more = self.arrived() - before;
            if more >= bytes {
                Ok(())
            } else {
                Err(format!("{more}"))
            }
        });
    }

    /// Ends it; returns how many bytes arrived, each of them as it was sent.
    ///
    /// # Panics
    /// When the connection broke, or bytes are missing or wrong.
    #[track_caller]
    pub fn finish(mut self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        let join = |end: Option<JoinHandle<std::io::Result<u64>>>| {
            end.expect("finished once")
                .join()
                .expect("an end of the connection")
        };
        let sent = join(self.sender.take()).expect("the sender's end");
        let received = join(self.receiver.take()).expect("the receiver's end");
        assert_eq!(received, sent, "bytes that arrived of those sent");
        received
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// The byte at one place of the content: no part of it looks like another within any buffer.
pub(crate) fn content(at: u64) -> u8 {
    (at.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56).to_le_bytes()[0]
}

fn send(mut stream: TcpStream, stop: &AtomicBool) -> std::io::Result<u64> {
    let mut at = 0;
    while !stop.load(Ordering::Relaxed) {
        let chunk: Vec<u8> = (at..).take(CHUNK_LEN).map(content).collect();
        stream.write_all(&chunk)?;
        at += chunk.len() as u64;
        thread::sleep(CHUNK_PAUSE);
    }
    stream.shutdown(Shutdown::Write)?;
    Ok(at)
}

fn receive(mut stream: TcpStream, arrived: &AtomicU64) -> std::io::Result<u64> {
    let mut buffer = vec![0; CHUNK_LEN];
    let mut at = 0;
    loop {
        let len = stream.read(&mut buffer)?;
        if len == 0 {
            return Ok(at);
        }
        if let Some(wrong) = (at..)
            .zip(&buffer[..len])
            .find(|(at, byte)| content(*at) != **byte)
        {
            return Err(std::io::Error::other(format!("byte {} is another one", wrong.0)));
        }
        at += len as u64;
        arrived.store(at, Ordering::Relaxed);
    }
}
