//! What a start takes: capabilities, the fewer the more a service manager has done already.

use caps::{CapSet, Capability, CapsHashSet};
use nix::unistd::{Gid, Uid};

use crate::config::resolved::{Lane, User};
use crate::exit::ExitError;

/// What every start needs.
const NEEDED: [Capability; 3] = [
    Capability::CAP_NET_ADMIN,
    Capability::CAP_NET_RAW,
    Capability::CAP_SYS_CHROOT,
];

/// What becoming another user takes, and ending a process that has become it.
const TO_CHANGE_USER: [Capability; 2] = [Capability::CAP_SETUID, Capability::CAP_KILL];
const TO_CHANGE_GROUP: Capability = Capability::CAP_SETGID;

/// What is used where it is there: to empty the bounding sets.
const USED: Capability = Capability::CAP_SETPCAP;

/// To load the programs of the `ebpf` lane; again when an upgrade brings others. Without the second the kernel's verifier
/// allows no pointer into what a function is handed to be moved.
const TO_LOAD_PROGRAMS: [Capability; 2] = [Capability::CAP_BPF, Capability::CAP_PERFMON];

/// What the monitor keeps of what it has; see the unit, which gives no more than the first of these and, for its programs,
/// the last two.
pub(super) fn kept_by_monitor(lane: Lane) -> impl Iterator<Item = Capability> {
    let to_change = TO_CHANGE_USER.into_iter().chain([TO_CHANGE_GROUP]);
    let programs = TO_LOAD_PROGRAMS.into_iter().filter(move |_| lane.has_programs());
    NEEDED.into_iter().chain(to_change).chain([USED]).chain(programs)
}

/// Who a process is: its users, groups and further groups.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Identity {
    /// Real, effective, saved.
    uids: [Uid; 3],
    gids: [Gid; 3],
    groups: Vec<Gid>,
}

impl Identity {
    pub(super) fn read() -> nix::Result<Self> {
        let (users, groups) = (nix::unistd::getresuid()?, nix::unistd::getresgid()?);
        Ok(Self {
            uids: [users.real, users.effective, users.saved],
            gids: [groups.real, groups.effective, groups.saved],
            groups: nix::unistd::getgroups()?,
        })
    }

    pub(super) fn has_user(&self, uid: Uid) -> bool {
        self.uids == [uid; 3]
    }

    /// Groups of somebody else are a way to their files.
    pub(super) fn has_only_group(&self, gid: Gid) -> bool {
        self.gids == [gid; 3] && self.groups.iter().all(|group| *group == gid)
    }

    /// What it takes to become `user`: nothing where a service manager has done it already.
    fn needs_for(&self, user: &User) -> impl Iterator<Item = Capability> {
        let user_changes = !self.has_user(Uid::from_raw(user.uid));
        let group_changes = !self.has_only_group(Gid::from_raw(user.gid));
        let of_user = TO_CHANGE_USER.into_iter().filter(move |_| user_changes);
        of_user.chain(group_changes.then_some(TO_CHANGE_GROUP))
    }
}

/// Whether this process may do what a start needs that ends as `user`.
///
/// # Errors
/// Status 77 with the capabilities that are missing.
pub fn require(user: &User) -> Result<(), ExitError> {
    let held = caps::read(None, CapSet::Effective)
        .map_err(|error| ExitError::other(format!("capabilities cannot be read: {error}")))?;
    let identity = Identity::read()
        .map_err(|errno| ExitError::other(format!("the user of this process is not known: {errno}")))?;
    missing(&held, NEEDED.into_iter().chain(identity.needs_for(user)))
}

/// What every start needs and no process started by this one can get, by name; for `isatapctl doctor`.
pub fn out_of_reach() -> Vec<String> {
    let reach = caps::read(None, CapSet::Bounding).unwrap_or_default();
    let beyond = NEEDED.iter().filter(|cap| !reach.contains(cap));
    beyond.map(ToString::to_string).collect()
}

fn missing(held: &CapsHashSet, needed: impl Iterator<Item = Capability>) -> Result<(), ExitError> {
    let missing: Vec<_> = needed
        .filter(|cap| !held.contains(cap))
        .map(|cap| cap.to_string())
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    let message = format!("not permitted: {} missing", missing.join(", "));
    Err(ExitError::not_permitted(message)
        .with_remedy("start isatapd as root or by its unit; it drops what it does not need"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exit::ExitStatus;

    #[test]
    fn what_is_missing_is_named() {
        let root = Identity {
            uids: [Uid::from_raw(0); 3],
            gids: [Gid::from_raw(0); 3],
            groups: vec![Gid::from_raw(0)],
        };
        let user = user(990, 991);
        let needed = || NEEDED.into_iter().chain(root.needs_for(&user));
        let mut held: CapsHashSet = needed().collect();
        assert_eq!(missing(&held, needed()), Ok(()));
        held.remove(&Capability::CAP_NET_RAW);
        held.remove(&Capability::CAP_SETUID);
        let error = missing(&held, needed()).unwrap_err();
        assert_eq!(error.status(), ExitStatus::NotPermitted);
        let expected = "not permitted: CAP_NET_RAW, CAP_SETUID missing; \
                        start isatapd as root or by its unit; it drops what it does not need";
        assert_eq!(error.to_string(), expected);
    }

    fn user(uid: u32, gid: u32) -> User {
        User {
            name: "isatapd".into(),
            uid,
            gid,
        }
    }

    #[test]
    fn who_is_the_user_already_needs_nothing_to_become_it() {
        let (uid, gid) = (Uid::from_raw(990), Gid::from_raw(991));
        let by_unit = Identity {
            uids: [uid; 3],
            gids: [gid; 3],
            groups: vec![gid],
        };
        let needs = |identity: &Identity| identity.needs_for(&user(990, 991)).collect::<Vec<_>>();
        assert_eq!(needs(&by_unit), []);
        let in_a_group = Identity {
            groups: vec![gid, Gid::from_raw(4)],
            ..by_unit.clone()
        };
        assert_eq!(needs(&in_a_group), [Capability::CAP_SETGID]);
        let half_root = Identity {
            uids: [uid, uid, Uid::from_raw(0)],
            ..by_unit
        };
        assert_eq!(needs(&half_root), TO_CHANGE_USER);
    }
}
