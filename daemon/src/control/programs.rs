//! Control's part of the `ebpf` lane: by which rules programs in the kernel carry packets, which ones, and why not others.
//!
//! ```text
//!  Rulebook, published     --+
//!  neighbours of IPv4      ------------------------------------------> maps
//!  IPv4 routing (ways)     --+--> Surroundings --> ebpf::compile --> Image --> maps
//!  others (monitor)        --+                                       unfit: everything is left to the workers
//!  captures, interface up  --+
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{BuildHasher as _, RandomState};
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use isatap_engine::ebpf::layout::Counter;
use isatap_engine::ebpf::{self, Segmenters, Surroundings};
use isatap_engine::fib::{Locator, MAX_LOCATORS, Rulebook};
use isatap_engine::io::ebpf::{MapFds, Shared};
use isatap_engine::io::raw;
use isatap_engine::stats::{Direction, Latencies};
use tracing::{info, warn};

use super::daemon::Daemon;
use crate::config::resolved::Lane;
use crate::exit::{ExitError, ExitStatus};
use crate::launch::address_space;
use crate::link::change::{Change, Changer as _, Devices};
use crate::link::{NeighboursWatch, Netlink, Ways, WaysWatch};
use crate::monitor::others::Others;
use crate::ops::share::{DirectionShare, KernelShare};

/// Least time between two looks at IPv4 routing: a burst of changes is one look ...
const LOOK_INTERVAL: Duration = Duration::from_millis(10);
/// ... and looking takes no more than one in so many parts of control's time.
const LOOK_SHARE: u32 = 10;
/// Pause after a look that failed, or a device that could not be attached to.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// What control knows of them.
#[derive(Debug)]
pub(super) struct Programs {
    shared: Shared,
    /// Where entries lie in the table: nobody outside is to foresee it.
    seed: u64,
    /// The operator asked for this lane by name, and so for packets that no filter of this machine sees.
    insists: bool,
    watch: WaysWatch,
    neighbours: NeighboursWatch,
    ways: Option<Ways>,
    /// The locators of the rules when IPv4 routing was looked at.
    looked_for: Vec<Locator>,
    look_at: Option<Instant>,
    looked_at: Option<Instant>,
    /// How long a look took.
    look_took: Duration,
    others: Option<Others>,
    /// Where the program for decapsulation was asked to be, if anybody was asked.
    attached: Option<Devices>,
    /// One of those devices went since.
    replaced: bool,
    /// What the monitor said of devices that it cannot be attached to.
    refused: Option<String>,
    in_force: Option<Surroundings>,
    unfit: Option<String>,
    /// What was said to be in the way last.
    told: Option<Vec<String>>,
}

#[allow(clippy::needless_pass_by_value, reason = "made for map_err")]
fn maps_error(error: std::io::Error) -> ExitError {
    let memory = error.kind() == std::io::ErrorKind::OutOfMemory;
    let error = ExitError::from_io(&error, ExitStatus::Unavailable, "the maps of the ebpf lane");
    if memory {
        error.with_remedy(address_space::REMEDY)
    } else {
        error
    }
}

/// What is to be known besides.
#[derive(Clone, Debug)]
struct Moment {
    /// The interface is up.
    up: bool,
    /// Somebody captures.
    captured: bool,
    /// The machine's IPv4 addresses.
    own_v4: BTreeSet<Ipv4Addr>,
}

impl Programs {
    /// With these maps, without rules or with those of the engine before.
    ///
    /// # Errors
    /// When the maps cannot be mapped, or IPv4 routing cannot be watched.
    pub(super) fn new(maps: &MapFds, lane: Lane, netlink: &Netlink, tunnel: u32) -> Result<Self, ExitError> {
        let shared = Shared::new(maps).map_err(maps_error)?;
        let watch = WaysWatch::open(netlink.clone(), tunnel)
            .map_err(|error| ExitError::other(format!("IPv4 routing cannot be watched: {error}")))?;
        let neighbours = NeighboursWatch::open(netlink.clone())
            .map_err(|error| ExitError::other(format!("IPv4 neighbours cannot be watched: {error}")))?;
        // The engine before may have left some.
        shared.forget_neighbours();
        Ok(Self {
            shared,
            seed: RandomState::new().hash_one(tunnel),
            insists: lane == Lane::Ebpf,
            watch,
            neighbours,
            ways: None,
            looked_for: Vec::new(),
            look_at: Some(Instant::now()),
            looked_at: None,
            look_took: Duration::ZERO,
            others: None,
            attached: None,
            replaced: false,
            refused: None,
            in_force: None,
            unfit: None,
            told: None,
        })
    }

    /// Waits until IPv4 routing may have changed, and tells the programs of neighbours meanwhile; may be dropped at any await.
    pub(super) async fn noticed(&mut self) {
        loop {
            let none = BTreeMap::new();
            let devices = self.ways.as_ref().map_or(&none, |ways| &ways.ethernet);
            tokio::select! {
                gone = self.watch.changed() => {
                    // The programs went with them: they are to be attached anew to what has come in their places.
                    let were_in_use = self.devices_in_use().any(|index| gone.may_hold(index));
                    self.replaced |= were_in_use;
                    return;
                }
                news = self.neighbours.changed(devices, |news| self.shared.may_wait(news)) => match news {
                    Some(news) => self.shared.set_neighbours(&news),
                    // Whoever looks at the ways looks at all of them.
                    None => {
                        self.shared.forget_neighbours();
                        return;
                    }
                },
            }
        }
    }

    /// Somebody else has a say now, or no longer.
    pub(super) fn set_others(&mut self, others: Others) {
        self.others = Some(others);
    }

    /// IPv4 routing is another one.
    pub(super) fn look_soon(&mut self) {
        let now = Instant::now();
        let pause = LOOK_INTERVAL.max(self.look_took * LOOK_SHARE);
        let soon = self.looked_at.map_or(now, |at| now.max(at + pause));
        self.look_at = Some(self.look_at.map_or(soon, |at| at.min(soon)));
    }

    /// When IPv4 routing is to be looked at.
    pub(super) fn due(&self) -> Option<Instant> {
        self.look_at
    }

    /// What has been counted, and whether the kernel carries.
    pub(super) fn share(&self) -> KernelShare {
        let read = KernelShare::read(&self.shared);
        let devices = self.devices_in_use();
        KernelShare {
            devices: devices.map(|index| self.device_name(index)).collect(),
            obstacles: self.obstacles().to_vec(),
            decap: DirectionShare {
                // Until this engine has asked for any, they are where the one before it had them.
                carries: read.decap.carries
                    && self.refused.is_none()
                    && self.attached != Some([0; MAX_LOCATORS]),
                ..read.decap
            },
            ..read
        }
    }

    /// How long packets took in them.
    pub(super) fn latencies(&self) -> Latencies {
        self.shared.latencies()
    }

    /// Why packets are left to the workers; empty when they are carried.
    pub(super) fn obstacles(&self) -> &[String] {
        self.told.as_deref().unwrap_or_default()
    }

    /// By what the programs decide besides the rules; `None` before this engine has given them any, or when the rules do
    /// not fit them.
    pub(super) fn surroundings(&self) -> Option<&Surroundings> {
        self.in_force.as_ref().filter(|_| self.unfit.is_none())
    }

    /// Where packets from the IPv4 network come to the programs.
    pub(super) fn devices_in_use(&self) -> impl Iterator<Item = u32> {
        let devices = self.attached.unwrap_or_default();
        devices.into_iter().filter(|index| *index != 0)
    }

    /// The name of an Ethernet device.
    pub(super) fn device_name(&self, index: u32) -> String {
        let device = self.ways.as_ref().and_then(|ways| ways.ethernet.get(&index));
        let name = device.map(|device| device.name.clone());
        name.unwrap_or_else(|| format!("device {index}"))
    }

    /// Looks at IPv4 routing, and at the neighbours, for packets from these locators.
    async fn look(&mut self, now: Instant, locators: &[Locator]) {
        let before = self.ways.take();
        match self.watch.look().await {
            Ok(ways) => {
                // Without them packets take the longer way; news of each will come.
                let neighbours = self.neighbours.look(&ways.ethernet).await.unwrap_or_default();
                self.shared.forget_neighbours();
                self.shared.set_neighbours(&neighbours);
                self.ways = Some(ways);
                self.looked_for = locators.to_vec();
                self.look_at = None;
            }
            Err(error) => {
                self.shared.forget_neighbours();
                if before.is_some() {
                    warn!("the ebpf lane does not know the ways of IPv4: {error}");
                }
                self.look_at = Some(now + LOOK_AGAIN);
            }
        }
        self.looked_at = Some(Instant::now());
        self.look_took = now.elapsed();
    }

    /// The devices where packets for the locators arrive.
    fn devices(&self, locators: &[Locator]) -> Devices {
        let ethernet = self.ways.as_ref().map(|ways| &ways.ethernet);
        let is_ethernet = |index: &u32| ethernet.is_some_and(|known| known.contains_key(index));
        let indices = locators.iter().map(|locator| locator.if_index);
        let wanted: BTreeSet<_> = indices.filter(is_ethernet).collect();
        let mut devices = [0; MAX_LOCATORS];
        for (place, index) in devices.iter_mut().zip(wanted) {
            *place = index;
        }
        devices
    }

    /// What is in the way of carrying anything.
    fn held_by(&self, moment: &Moment) -> Vec<String> {
        let mut why = Vec::new();
        let mut held = |holds: bool, text: &str| {
            if holds {
                why.push(text.to_owned());
            }
        };
        held(!moment.up, "the interface is down");
        held(moment.captured, "somebody captures");
        let others = self.others.clone().unwrap_or_default();
        held(
            others.firewall && !self.insists,
            "netfilter has rules for IPv4, which would not see the packets (Lane ebpf carries them all the same)",
        );
        held(
            others.ipsec && !self.insists,
            if raw::obeys_policies_for_protocol() {
                "there are IPsec policies, which would not see the packets (Lane ebpf carries them all the same)"
            } else {
                "there are IPsec policies, which would not see the packets (Lane ebpf carries them all the same); one for protocol 41 alone does not see \
                 what workers send either before Linux 6.4, one for all protocols does"
            },
        );
        why
    }

    /// What is in the way of carrying what goes out, besides.
    fn held_out(&self) -> Option<String> {
        let shaping = self
            .others
            .as_ref()
            .is_some_and(|others| others.shaping && !self.insists);
        let text = "there is traffic control at the ISATAP interface, which would not see what goes out (Lane ebpf carries it all the same)";
        shaping.then(|| text.to_owned())
    }

    fn surroundings_at(&self, moment: &Moment, locators: &[Locator]) -> Surroundings {
        let carries = self.held_by(moment).is_empty();
        // An address that has come since may have brought routes of its own: with it by the device of before, packets would teach
        // our neighbours there a wrong place for it. Workers ask the kernel's routing of each packet.
        let are_right = self.looked_for == locators;
        let ways = self.ways.as_ref().filter(|_| are_right);
        let egress = ways.and_then(|ways| ways.egress.as_ref().ok());
        Surroundings {
            link_len: 0,
            carry_in: carries,
            carry_out: carries && self.held_out().is_none(),
            alone: self.others.as_ref().is_some_and(|others| !others.listeners),
            own_v4: moment.own_v4.iter().copied().collect(),
            egress: egress.cloned().unwrap_or_default(),
            segmenters: self
                .others
                .as_ref()
                .map_or(Segmenters::Unknown, |others| others.segmenters.clone()),
        }
    }

    /// Whether enough is known to replace the rules that an engine before this one may have left.
    fn is_informed(&self) -> bool {
        self.looked_at.is_some() && self.others.is_some()
    }

    /// Makes `rules` those of the programs.
    fn publish(&mut self, rules: &Rulebook, moment: &Moment) {
        if !self.is_informed() {
            return;
        }
        if self.looked_for != rules.locators() {
            self.look_soon();
        }
        let surroundings = self.surroundings_at(moment, rules.locators());
        let image = ebpf::compile(rules, &surroundings, self.shared.slots_per_table(), self.seed);
        self.unfit = image.as_ref().err().map(ToString::to_string);
        let image = image.unwrap_or_else(|_| ebpf::leave_all());
        if let Err(error) = self.shared.publish(&image) {
            self.unfit = Some(error.to_string());
        }
        self.in_force = Some(surroundings);
        self.tell(moment);
    }

    /// Says what is in the way, when it is something else than before.
    fn tell(&mut self, moment: &Moment) {
        if !self.is_informed() {
            return;
        }
        let mut why = self.held_by(moment);
        why.extend(self.held_out());
        why.extend(self.unfit.clone());
        why.extend(self.refused.clone());
        match &self.ways {
            None => why.push("the ways of IPv4 are not known yet".to_owned()),
            Some(ways) => why.extend(ways.egress.as_ref().err().map(ToString::to_string)),
        }
        if self.attached.is_some_and(|devices| devices == [0; MAX_LOCATORS]) {
            why.push("no Ethernet device has an address of the tunnel".to_owned());
        }
        if self.told.as_ref() == Some(&why) {
            return;
        }
        if !moment.up {
            // That is told by whoever watches the interface.
        } else if why.is_empty() {
            info!("the kernel carries packets by the ebpf lane");
        } else {
            info!("packets are left to the workers: {}", why.join("; "));
        }
        self.told = Some(why);
    }
}

impl Daemon {
    /// Packets sent through the tunnel, by workers and by programs: whether it is in use.
    pub(super) fn packets_sent(&self) -> u64 {
        let by_programs = self.programs.as_ref().map_or(0, |programs| {
            programs.shared.count(Counter::Packets, Direction::Encap as usize)
        });
        self.engine.stats().delivered(Direction::Encap) + by_programs
    }

    /// Does for the programs what is due: they know the ways of IPv4, are where packets arrive, and carry what they may.
    pub(super) async fn guide_programs(&mut self, now: Instant) {
        let moment = self.moment();
        let Some(programs) = &mut self.programs else {
            return;
        };
        let rules = self.publisher.current();
        if programs.due().is_some_and(|at| at <= now) {
            programs.look(now, rules.locators()).await;
        }
        // Rules come first: after an upgrade, programs are put into the places of those that carry.
        let surroundings = programs.surroundings_at(&moment, rules.locators());
        if programs.is_informed() && programs.in_force.as_ref() != Some(&surroundings) {
            programs.publish(&rules, &moment);
        }
        let devices = programs.devices(&self.attached);
        let is_settled = programs.attached == Some(devices) && !programs.replaced;
        let is_known = programs.in_force.is_some() && programs.ways.is_some() && programs.look_at.is_none();
        if is_known && !is_settled {
            if std::mem::take(&mut programs.replaced) {
                // The monitor knows devices by their numbers, and would find nothing to do.
                let _ = self.link.change(Change::Programs([0; MAX_LOCATORS])).await;
            }
            let outcome = self.link.change(Change::Programs(devices)).await;
            programs.attached = Some(devices);
            programs.refused = outcome.as_ref().err().map(ToString::to_string);
            if outcome.is_err() {
                // Tried again when it is looked at again.
                programs.attached = None;
                programs.look_at = Some(now + LOOK_AGAIN);
            }
            programs.tell(&moment);
        }
    }

    /// Gives the programs the Rulebook in force.
    pub(super) fn publish_programs(&mut self) {
        let moment = self.moment();
        if let Some(programs) = &mut self.programs {
            programs.publish(&self.publisher.current(), &moment);
        }
    }

    fn moment(&self) -> Moment {
        let state = self.watch.state();
        Moment {
            up: state.is_up(),
            captured: self.engine.captures() > 0,
            own_v4: state.v4().map(|own| own.addr).collect(),
        }
    }
}
