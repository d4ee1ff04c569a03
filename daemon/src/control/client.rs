//! The engine's end of the socket to the monitor: requests that wait for their answers, reports that do not, orders.

use std::collections::HashMap;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use isatap_engine::io::ebpf::MapFds;
use isatap_engine::io::passing::MessageSocket;
use tokio::io::Interest;
use tokio::sync::{mpsc, oneshot, watch as latest};
use tracing::warn;

use super::watched::watch;
use crate::launch::notify::Notice;
use crate::link::NetlinkError;
use crate::link::change::{Change, Changer};
use crate::monitor::holdings;
use crate::monitor::others::Others;
use crate::monitor::wire::{Answer, Asked, MAX_MESSAGE_LEN, Order, Say};

/// How long the monitor may take: it waits for the kernel itself, and tells when that takes too long.
const ANSWER_LIMIT: Duration = Duration::from_secs(10);
/// Orders that may wait: signals of one kind that wait together are one.
const MAX_ORDERS: usize = 32;

/// What came back for a request.
type Answered = (Answer, Vec<OwnedFd>);

/// The way to the monitor; clones share it.
#[derive(Clone, Debug)]
pub struct MonitorLink {
    socket: Arc<MessageSocket>,
    waiting: Arc<Mutex<HashMap<u32, oneshot::Sender<Answered>>>>,
    next: Arc<AtomicU32>,
}

impl AsFd for MonitorLink {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// What the monitor says of its own accord.
#[derive(Debug)]
pub(super) struct Orders {
    asked: mpsc::Receiver<Asked>,
    programs: mpsc::Receiver<Result<MapFds, String>>,
    others: latest::Receiver<Others>,
}

/// Where that goes.
struct Tellers {
    asked: mpsc::Sender<Asked>,
    programs: mpsc::Sender<Result<MapFds, String>>,
    others: latest::Sender<Others>,
}

/// One thing it said.
#[derive(Debug)]
pub(super) enum Ordered {
    /// This is to be done.
    Asked(Asked),
    /// These are the maps of the programs in the kernel, or there are none, for this reason.
    Programs(Result<MapFds, String>),
    /// These have a say about outer packets, from now on.
    Others(Others),
}

impl MonitorLink {
    /// Over this socket.
    pub fn new(socket: Arc<MessageSocket>) -> Self {
        Self {
            socket,
            waiting: Arc::default(),
            next: Arc::default(),
        }
    }

    /// Begins to listen; to be called once, inside the runtime.
    pub(super) fn listen(&self) -> io::Result<Orders> {
        let (tell_asked, asked) = mpsc::channel(MAX_ORDERS);
        let (tell_programs, programs) = mpsc::channel(1);
        let (tell_others, others) = latest::channel(Others::default());
        let tellers = Tellers {
            asked: tell_asked,
            programs: tell_programs,
            others: tell_others,
        };
        let readable = watch(self.socket.as_fd().try_clone_to_owned()?, Interest::READABLE)?;
        let link = self.clone();
        tokio::spawn(async move {
            // Ends with the monitor; control sees that the orders have ended.
            while let Ok(mut guard) = readable.readable().await {
                match link.take_all(&tellers) {
                    Ok(()) => guard.clear_ready(),
                    Err(Ended) => return,
                }
            }
        });
        Ok(Orders {
            asked,
            programs,
            others,
        })
    }

    fn take_all(&self, tellers: &Tellers) -> Result<(), Ended> {
        let mut buffer = [0; MAX_MESSAGE_LEN];
        loop {
            let received = match self.socket.receive(&mut buffer) {
                Ok(Some(received)) => received,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Ok(None) | Err(_) => return Err(Ended),
            };
            match Order::decode(&buffer[..received.len]) {
                Ok(Order::Answer(number, answer)) => {
                    if let Some(reply) = self.waiting().remove(&number) {
                        // Nobody waits any more for one that took too long.
                        let _ = reply.send((answer, received.descriptors));
                    }
                }
                // A full queue has one of each kind already.
                Ok(Order::Signal(asked)) => drop(tellers.asked.try_send(asked)),
                Ok(Order::Others(now)) => drop(tellers.others.send(now)),
                // Said once.
                Ok(Order::Maps(shape)) => {
                    let maps = holdings::maps(shape, received.descriptors);
                    let maps = maps.ok_or_else(|| "their maps did not come along".to_owned());
                    drop(tellers.programs.try_send(maps));
                }
                Ok(Order::WithoutPrograms(why)) => drop(tellers.programs.try_send(Err(why))),
                Ok(_) | Err(_) => warn!("the monitor said something that has no meaning now"),
            }
        }
    }

    fn waiting(&self) -> MutexGuard<'_, HashMap<u32, oneshot::Sender<Answered>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reports something that is not answered. A monitor that does not take it is on its way out.
    pub(super) fn report(&self, say: &Say) {
        self.send(say, &[]).unwrap_or_else(|error| {
            tracing::debug!("the monitor does not hear ({error})");
        });
    }

    /// Reports something that is said again as long as it is true: the monitor hears it now or not at all.
    pub(super) fn hint(&self, say: &Say) {
        if let Err(error) = self.socket.send(&say.encode(), &[]) {
            tracing::debug!("the monitor does not hear ({error})");
        }
    }

    /// Has the service manager told.
    pub(crate) fn notify(&self, notice: Notice) {
        self.report(&match notice {
            Notice::Ready => Say::Ready,
            Notice::Reloading => Say::Reloading,
            Notice::Status(status) => Say::Status(status),
            Notice::Alive => Say::Alive,
            // The monitor knows best.
            Notice::Stopping => return,
        });
    }

    /// Has no use for the programs in the kernel.
    pub(super) fn give_programs_up(&self, why: String) {
        self.report(&Say::WithoutPrograms(why));
    }

    /// Hands over what a successor needs to work by the configuration in force.
    pub(super) fn keep(&self, text: BorrowedFd<'_>) -> io::Result<()> {
        self.send(&Say::Keep, &[text])
    }

    fn send(&self, say: &Say, along: &[BorrowedFd<'_>]) -> io::Result<()> {
        let bytes = say.encode();
        match self.socket.send(&bytes, along) {
            // It reads as fast as it can: a moment is enough, and rare.
            Err(error)
                if error.kind() == io::ErrorKind::WouldBlock
                    && self.socket.wait_for_room(Duration::from_millis(200))? =>
            {
                self.socket.send(&bytes, along)
            }
            sent => sent,
        }
    }

    /// Sends bytes that are no message, for a test.
    #[cfg(debug_assertions)]
    pub(super) fn babble(&self) {
        let _ = self.socket.send(&[u8::MAX; 16], &[]);
    }

    /// Asks for an answer that nobody takes, for a test.
    #[cfg(debug_assertions)]
    pub(super) fn ask_and_not_listen(&self) {
        let _ = self.send(&Say::Attend(0), &[]);
    }

    async fn ask(&self, say: impl FnOnce(u32) -> Say) -> io::Result<Answered> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let (reply, answer) = oneshot::channel();
        self.waiting().insert(number, reply);
        let answered = match self.send(&say(number), &[]) {
            Ok(()) => match tokio::time::timeout(ANSWER_LIMIT, answer).await {
                Ok(Ok(answered)) => Ok(answered),
                Ok(Err(_)) => Err(io::ErrorKind::BrokenPipe.into()),
                Err(_) => Err(io::ErrorKind::TimedOut.into()),
            },
            Err(error) => Err(error),
        };
        self.waiting().remove(&number);
        answered
    }

    /// Has the monitor become the program that is installed now; what is said then is an order to hand over.
    ///
    /// # Errors
    /// Why it cannot, in words.
    pub(super) async fn upgrade(&self) -> Result<String, String> {
        match self.ask(Say::Upgrade).await {
            Ok((Answer::Done, _)) => Ok("the program that is installed takes over".to_owned()),
            Ok((Answer::Refused(why), _)) => Err(why),
            Ok((Answer::Kernel(errno), _)) => Err(io::Error::from_raw_os_error(errno).to_string()),
            Err(error) => Err(format!("the monitor does not answer: {error}")),
        }
    }

    /// Waits until everything said before has been done: whoever is answered then may rely on it.
    pub(super) async fn attend(&self) {
        if let Err(error) = self.ask(Say::Attend).await {
            tracing::debug!("the monitor does not answer ({error})");
        }
    }

    /// Has the monitor listen there for metrics instead of wherever it did.
    ///
    /// # Errors
    /// Why it cannot, in words.
    pub(super) async fn listen_at(&self, addr: SocketAddr) -> Result<TcpListener, String> {
        match self.ask(|number| Say::Listen(number, addr)).await {
            Ok((Answer::Done, along)) => match along.into_iter().next() {
                Some(fd) => Ok(TcpListener::from(fd)),
                None => Err("the monitor sent no socket".to_owned()),
            },
            Ok((Answer::Refused(why), _)) => Err(why),
            Ok((Answer::Kernel(errno), _)) => Err(io::Error::from_raw_os_error(errno).to_string()),
            Err(error) => Err(format!("the monitor does not answer: {error}")),
        }
    }
}

/// The monitor is gone.
struct Ended;

impl Changer for MonitorLink {
    async fn change(&self, change: Change) -> Result<(), NetlinkError> {
        let refused = |error| NetlinkError::Refused {
            operation: change.to_string(),
            error,
        };
        match self.ask(|number| Say::Change(number, change)).await {
            Ok((Answer::Done, _)) => Ok(()),
            Ok((Answer::Kernel(errno), _)) => Err(refused(io::Error::from_raw_os_error(errno))),
            Ok((Answer::Refused(why), _)) => Err(refused(io::Error::other(why))),
            Err(error) => Err(refused(error)),
        }
    }
}

impl Orders {
    /// The next one; `None` when the monitor is gone. May be dropped and called again.
    pub(super) async fn next(&mut self) -> Option<Ordered> {
        tokio::select! {
            biased;
            asked = self.asked.recv() => asked.map(Ordered::Asked),
            // Before others: these matter to programs alone.
            Some(programs) = self.programs.recv() => Some(Ordered::Programs(programs)),
            Ok(()) = self.others.changed() => Some(Ordered::Others(self.others.borrow_and_update().clone())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::monitor::wire::MapsShape;

    /// Both ends inside one runtime.
    fn ends() -> (MonitorLink, Orders, MessageSocket) {
        let (ours, theirs) = MessageSocket::pair().unwrap();
        let link = MonitorLink::new(Arc::new(ours));
        let orders = link.listen().unwrap();
        (link, orders, theirs)
    }

    fn heard(monitor: &MessageSocket) -> Say {
        let mut buffer = [0; MAX_MESSAGE_LEN];
        assert!(monitor.wait(Duration::from_secs(10)).unwrap());
        let received = monitor.receive(&mut buffer).unwrap().unwrap();
        Say::decode(&buffer[..received.len]).unwrap()
    }

    fn say(monitor: &MessageSocket, order: Order) {
        monitor.send(&order.encode(), &[]).unwrap();
    }

    #[tokio::test]
    async fn answers_find_their_requests_in_any_order() {
        let (link, _orders, monitor) = ends();
        let answering = std::thread::spawn(move || {
            let numbers: Vec<u32> = (0..2)
                .map(|_| match heard(&monitor) {
                    Say::Change(number, _) => number,
                    other => panic!("{other:?}"),
                })
                .collect();
            say(&monitor, Order::Answer(u32::MAX, Answer::Done));
            say(
                &monitor,
                Order::Answer(numbers[1], Answer::Kernel(nix::libc::EPERM)),
            );
            say(&monitor, Order::Answer(numbers[0], Answer::Done));
            monitor
        });
        let (first, second) = tokio::join!(link.change(Change::Up), link.change(Change::Mtu(1400)));
        first.unwrap();
        let error = second.unwrap_err();
        assert_eq!(error.errno(), Some(nix::libc::EPERM));
        assert!(error.to_string().starts_with("set the MTU 1400: "), "{error}");
        answering.join().unwrap();
        assert!(link.waiting().is_empty());
    }

    /// Whoever hears of others knows of the programs they matter to.
    #[tokio::test]
    async fn programs_are_heard_of_before_others() {
        let (_link, mut orders, monitor) = ends();
        say(&monitor, Order::WithoutPrograms("no clang".into()));
        say(&monitor, Order::Others(Others::default()));
        let first = orders.next().await;
        assert!(
            matches!(&first, Some(Ordered::Programs(Err(why))) if why == "no clang"),
            "{first:?}"
        );
        assert!(matches!(orders.next().await, Some(Ordered::Others(_))));
        // Maps without their descriptors are none.
        say(&monitor, Order::Maps(MapsShape { slots: 1, cpus: 1 }));
        let maps = orders.next().await;
        assert!(matches!(maps, Some(Ordered::Programs(Err(_)))), "{maps:?}");
    }

    #[tokio::test]
    async fn the_end_of_the_monitor_ends_requests_and_orders() {
        let (link, mut orders, monitor) = ends();
        say(&monitor, Order::Signal(Asked::Reload));
        let first = orders.next().await;
        assert!(matches!(first, Some(Ordered::Asked(Asked::Reload))), "{first:?}");
        for firewall in [true, false, true] {
            say(
                &monitor,
                Order::Others(Others {
                    firewall,
                    ..Others::default()
                }),
            );
        }
        // However many there were, the last one is told.
        let last = Others {
            firewall: true,
            ..Others::default()
        };
        while !matches!(orders.next().await, Some(Ordered::Others(others)) if others == last) {}

        drop(monitor);
        assert!(orders.next().await.is_none());
        assert!(link.change(Change::Down).await.is_err());
        assert!(link.listen_at("127.0.0.1:9441".parse().unwrap()).await.is_err());
    }

    #[tokio::test]
    async fn a_listener_comes_along() {
        let (link, _orders, monitor) = ends();
        let answering = std::thread::spawn(move || {
            let Say::Listen(number, addr) = heard(&monitor) else {
                panic!("something else")
            };
            let listener = TcpListener::bind(addr).unwrap();
            let order = Order::Answer(number, Answer::Done).encode();
            monitor.send(&order, &[listener.as_fd()]).unwrap();
            (monitor, listener.local_addr().unwrap())
        });
        let listener = link.listen_at("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let (_monitor, bound) = answering.join().unwrap();
        assert_eq!(listener.local_addr().unwrap(), bound);
    }
}
