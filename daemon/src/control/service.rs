//! What the service manager hears of the running daemon: a line of status when it changes, reloads. Signs of
//! life are [`super::watchdog`]'s.
//!
//! Whoever sends the notices is none of our business: the process that the service manager started need not be this one.

use std::time::{Duration, Instant};

use super::daemon::Daemon;
use super::report::{lane_words, role_name, router_counts};
use crate::config::resolved::Role;
use crate::launch::notify::Notice;

/// Least time between two looks at what the status should say.
const STATUS_INTERVAL: Duration = Duration::from_secs(1);
/// The first look: when the kernel's notices of what the start has done are here.
const FIRST_LOOK: Duration = Duration::from_millis(100);

/// The service manager as control sees it.
pub(super) struct Service {
    send: Box<dyn Fn(Notice)>,
    status: String,
    look_at: Option<Instant>,
    looked_at: Option<Instant>,
}

impl Service {
    /// `send` takes notices where they belong.
    pub(super) fn new(now: Instant, send: Box<dyn Fn(Notice)>) -> Self {
        Self {
            send,
            status: String::new(),
            look_at: Some(now + FIRST_LOOK),
            looked_at: None,
        }
    }

    pub(super) fn tell(&self, notice: Notice) {
        (self.send)(notice);
    }

    /// Something happened: the status may be another one.
    pub(super) fn mark_changed(&mut self, now: Instant) {
        let earliest = self.looked_at.map_or(now, |at| now.max(at + STATUS_INTERVAL));
        self.look_at.get_or_insert(earliest);
    }

    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.look_at
    }

    /// Whether it is time to look at the status.
    fn take_look(&mut self, now: Instant) -> bool {
        let due = self.look_at.is_some_and(|at| at <= now);
        if due {
            self.look_at = None;
            self.looked_at = Some(now);
        }
        due
    }

    fn set_status(&mut self, status: String) {
        if status != self.status {
            self.tell(Notice::Status(status.clone()));
            self.status = status;
        }
    }
}

impl Daemon {
    /// Tells the service manager what is due.
    pub(super) fn report_to_manager(&mut self, now: Instant) {
        if self.service.take_look(now) {
            let line = self.status_line();
            self.service.set_status(line);
        }
    }

    /// The whole daemon in one line.
    fn status_line(&self) -> String {
        let obstacles = self.obstacles();
        let readiness = if obstacles.is_empty() {
            "ready".to_owned()
        } else {
            format!("not ready: {}", obstacles.join("; "))
        };
        let routers = match self.settings.role {
            Role::Router => String::new(),
            Role::Host => match router_counts(&self.routers) {
                counts if counts.is_empty() => "; no routers".to_owned(),
                counts => format!("; routers: {counts}"),
            },
        };
        format!(
            "{} at {} on {}, {}, {} worker(s): {readiness}{routers}",
            role_name(self.settings.role),
            self.locator,
            self.interface.name,
            lane_words(self.programs.is_some(), self.engine.lane()),
            self.settings.workers
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::RefCell;
    use std::rc::Rc;

    fn bench(now: Instant) -> (Service, Rc<RefCell<Vec<Notice>>>) {
        let told = Rc::new(RefCell::new(Vec::new()));
        let heard = Rc::clone(&told);
        let send = Box::new(move |notice| heard.borrow_mut().push(notice));
        (Service::new(now, send), told)
    }

    #[test]
    fn the_status_is_told_when_it_changes_and_once_a_second_at_most() {
        let start = Instant::now();
        let (mut service, told) = bench(start - FIRST_LOOK);
        assert_eq!(service.next_deadline(), Some(start));
        assert!(!service.take_look(start - Duration::from_millis(1)));
        assert!(service.take_look(start));
        service.set_status("not ready".into());
        for millis in [1, 2, 500] {
            service.mark_changed(start + Duration::from_millis(millis));
            assert_eq!(service.next_deadline(), Some(start + STATUS_INTERVAL));
            assert!(!service.take_look(start + Duration::from_millis(millis)));
        }
        assert!(service.take_look(start + STATUS_INTERVAL));
        service.set_status("not ready".into());
        service.set_status("ready".into());
        assert_eq!(service.next_deadline(), None);
        let status = |text: &str| Notice::Status(text.to_owned());
        assert_eq!(*told.borrow(), [status("not ready"), status("ready")]);
        // Long after the last look, at once.
        let later = start + Duration::from_secs(60);
        service.mark_changed(later);
        assert!(service.take_look(later));
    }
}
