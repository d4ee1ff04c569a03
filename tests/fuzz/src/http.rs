//! HTTP: whatever a client says, in pieces of whatever size, the answers are HTTP, as many as it can have asked for, and
//! the connection ends when the client does (FAULTS 65).

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use isatapd::ops::http::{Limits, Pages, converse};
use isatapd::ops::query::{self, Queries, Query};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// The shortest request there is: `GET / HTTP/1.0` with its two line ends.
const SHORTEST_REQUEST_LEN: usize = 18;
/// More than the longest page, its head included.
const LONGEST_ANSWER_LEN: usize = 128 * 1024;
/// How often the client is asked for more after its last byte before it hangs up: time for answers to come.
const PATIENCE: usize = 64;
/// What the control loop says to a scrape.
const METRICS: &str = "isatapd_ready 1\n# EOF\n";

/// The first byte says how the rest of the bytes, which are the client's, is cut in pieces: 0 not at all.
///
/// # Panics
/// A promise is broken.
pub fn http(data: &[u8]) {
    let Some((cut, said)) = data.split_first() else {
        return;
    };
    let heard = Rc::new(RefCell::new(Heard::default()));
    let client = Client {
        rest: said,
        cut: u32::from(*cut),
        gives_way: false,
        patience: PATIENCE,
        heard: Rc::clone(&heard),
    };
    // Of its own for each input: what one leaves running must not meet the next.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        let (ask, queries) = query::channel();
        tokio::spawn(control(queries));
        converse(client, Pages::new(ask), Limits::default()).await;
    });
    let heard = heard.take();
    assert!(heard.is_over, "the server holds on to a client that has gone");
    let answers = count(&heard.bytes);
    let possible = said.len() / SHORTEST_REQUEST_LEN + 1;
    assert!(
        answers <= possible,
        "{answers} answers to {} bytes of questions",
        said.len()
    );
    assert!(
        heard.bytes.len() <= answers * LONGEST_ANSWER_LEN,
        "{} bytes in {answers} answers",
        heard.bytes.len()
    );
}

/// A control loop with little time: it answers some questions and leaves others.
async fn control(mut queries: Queries) {
    while let Some(query) = queries.next().await {
        match query {
            Query::Metrics(reply) => drop(reply.send(METRICS.to_owned())),
            Query::Ready(reply) => drop(reply.send(Err(vec!["no usable router".to_owned()]))),
            other => drop(other),
        }
    }
}

/// What reached the client.
#[derive(Debug, Default)]
struct Heard {
    bytes: Vec<u8>,
    /// The connection was closed, by either side.
    is_over: bool,
}

/// A client that says everything, waits a moment and hangs up, all in memory.
#[derive(Debug)]
struct Client<'a> {
    rest: &'a [u8],
    cut: u32,
    gives_way: bool,
    patience: usize,
    heard: Rc<RefCell<Heard>>,
}

impl Client<'_> {
    /// The length of the next piece: pseudorandom and small, unless everything is to come at once.
    fn piece(&mut self) -> usize {
        if self.cut == 0 {
            return self.rest.len();
        }
        self.cut = self.cut.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let len = 1 + (self.cut >> 24) as usize % 64;
        len.min(self.rest.len())
    }
}

impl AsyncRead for Client<'_> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        // Between two pieces, and while it waits for answers, others have their turn.
        self.gives_way = !self.gives_way;
        let waits = self.rest.is_empty() && self.patience > 0;
        if self.gives_way || waits {
            self.patience -= usize::from(waits);
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        let len = self.piece().min(buffer.remaining());
        buffer.put_slice(&self.rest[..len]);
        self.rest = &self.rest[len..];
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Client<'_> {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.heard.borrow_mut().bytes.extend_from_slice(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

impl Drop for Client<'_> {
    fn drop(&mut self) {
        self.heard.borrow_mut().is_over = true;
    }
}

/// How many answers there are; each is one, to its last byte, but that a stream of events may end anywhere.
fn count(mut bytes: &[u8]) -> usize {
    let mut answers = 0;
    while !bytes.is_empty() {
        let end = find(bytes, b"\r\n\r\n").expect("a head that ends");
        let head = std::str::from_utf8(&bytes[..end]).expect("a head is text");
        let rest = &bytes[end + 4..];
        let (status, length, chunked) = read_head(head);
        // A preliminary answer is followed by the answer.
        answers += usize::from(status != 100);
        bytes = match length {
            // The question was HEAD: none of our pages begins like an answer.
            Some(len) if len > 0 && (rest.is_empty() || rest.starts_with(b"HTTP/1.")) => rest,
            Some(len) => rest.get(len..).expect("a page to its end"),
            None if status == 100 => rest,
            None if chunked && rest.starts_with(b"HTTP/1.") => rest,
            // Events, until one side has had enough.
            None => {
                assert!(
                    head.contains("text/event-stream"),
                    "a page without a length: {head}"
                );
                &[]
            }
        };
    }
    answers
}

/// Status, length of the page if it is said, and whether it comes in chunks.
fn read_head(head: &str) -> (u16, Option<usize>, bool) {
    let mut lines = head.split("\r\n");
    let first = lines.next().expect("a status line");
    let after = first
        .strip_prefix("HTTP/1.1 ")
        .or_else(|| first.strip_prefix("HTTP/1.0 "));
    let status: u16 = after
        .and_then(|after| after.get(..3)?.parse().ok())
        .unwrap_or_else(|| panic!("{first:?} is no status line"));
    assert!(
        status == 100 || (200..600).contains(&status) && status != 500,
        "status {status}"
    );
    let (mut length, mut chunked) = (None, false);
    for line in lines {
        let (name, value) = line
            .split_once(':')
            .unwrap_or_else(|| panic!("{line:?} is no header"));
        let is_token = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
        assert!(!name.is_empty() && name.bytes().all(is_token), "{line:?}");
        assert!(!value.contains(|c: char| c.is_control()), "{line:?}");
        match name.to_ascii_lowercase().as_str() {
            "content-length" => length = Some(value.trim().parse().expect("a length")),
            "transfer-encoding" => chunked = value.trim() == "chunked",
            _ => {}
        }
    }
    (status, length, chunked)
}

fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|window| window == what)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_counted() {
        let page = b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nok\n";
        let head = b"HTTP/1.1 404 Not Found\r\ncontent-length: 3\r\n\r\n";
        assert_eq!(count(b""), 0);
        assert_eq!(count(page), 1);
        assert_eq!(count(&[page.as_slice(), head, page, head].concat()), 4);
        let events =
            b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n3\r\nx";
        assert_eq!(count(&[page.as_slice(), events].concat()), 2);
        for broken in [
            &page[..page.len() - 1],
            b"HTTP/1.1 200 OK\r\n",
            b"HTTP/2 200 OK\r\n\r\n",
            b"HTTP/1.1 500 Oh\r\ncontent-length: 0\r\n\r\n",
            b"HTTP/1.1 200 OK\r\n\r\nno length",
        ] {
            assert!(std::panic::catch_unwind(|| count(broken)).is_err(), "{broken:?}");
        }
    }
}
