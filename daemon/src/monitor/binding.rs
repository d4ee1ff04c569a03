//! Which addresses may carry the tunnel, as far as the monitor is concerned (FAULTS 72).
//!
//! The configuration in force is what the engine says it is. So the file is read here once more: it belongs to root, and is all that
//! the monitor believes. A name in it is looked up once, at the start, when nobody but root has said anything yet; what it was answered
//! then goes from one monitor to the next, beside what an engine has left. Any other name stands for no address.

use std::net::Ipv4Addr;

use tracing::debug;

use crate::config::Loader;
use crate::config::file::BindText;
use crate::config::resolved::Bind;
use crate::config::values::Host;

/// Most addresses of a name; as many as the list of routers has room for.
pub const MAX_ADDRESSES: usize = 64;

/// Addresses; `None` is any.
pub type Allowed = Option<Vec<Ipv4Addr>>;

/// What the file says and, as a reload may have failed, what it said before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// What it says.
    pub now: Allowed,
    /// What it said before.
    pub before: Allowed,
}

impl Bounds {
    /// These from the beginning.
    pub fn new(now: Allowed) -> Self {
        let before = now.clone();
        Self { now, before }
    }

    /// The file says this now.
    pub fn set(&mut self, now: Allowed) {
        if self.now != now {
            self.before = std::mem::replace(&mut self.now, now);
        }
    }

    /// Whether this address may carry the tunnel.
    pub fn allow(&self, addr: Ipv4Addr) -> bool {
        let has = |addresses: &Allowed| addresses.as_ref().is_none_or(|all| all.contains(&addr));
        has(&self.now) || has(&self.before)
    }
}

/// A name, and the addresses that it had at the start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LookedUp {
    /// The name.
    pub name: String,
    /// Its addresses.
    pub addresses: Vec<Ipv4Addr>,
}

/// What a monitor leaves to the next one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Left {
    /// What it went by.
    pub bounds: Bounds,
    /// The name that was looked up, if the file had one at the start.
    pub looked_up: Option<LookedUp>,
}

/// The bounds, and where they come from.
#[derive(Debug)]
pub struct Binding {
    loader: Loader,
    left: Left,
}

impl Binding {
    /// That of a start: `loader` has just read the file, looked up what is in it, and come to `in_force`.
    pub fn new(loader: Loader, in_force: Bind) -> Self {
        let text = loader.bind_text();
        let looked_up = match &text {
            Ok(Some(BindText::Host(Host::Name(name)))) => loader.looked_up(name).map(|mut addresses| {
                addresses.truncate(MAX_ADDRESSES);
                let name = name.clone();
                LookedUp { name, addresses }
            }),
            _ => None,
        };
        let now = match (text, in_force) {
            (Ok(text), _) => allowed(text, looked_up.as_ref()),
            // It was replaced in this very moment.
            (Err(_), Bind::Auto(_)) => None,
            (Err(_), Bind::Fixed(addr)) => Some(vec![addr]),
        };
        let bounds = Bounds::new(now);
        let left = Left { bounds, looked_up };
        Self { loader, left }
    }

    /// That of a monitor which has taken over from another one. What `loader` may have been told by an engine is none of its
    /// business.
    pub fn taken_over(loader: Loader, left: Left) -> Self {
        let mut binding = Self { loader, left };
        binding.read_again();
        binding
    }

    /// Reads the file once more. One that cannot be read changes nothing, as it does elsewhere.
    pub fn read_again(&mut self) {
        match self.loader.bind_text() {
            Ok(text) => {
                let now = allowed(text, self.left.looked_up.as_ref());
                self.left.bounds.set(now);
            }
            Err(error) => debug!("which addresses may carry the tunnel stays as it was: {error}"),
        }
    }

    /// What holds now.
    pub fn bounds(&self) -> &Bounds {
        &self.left.bounds
    }

    /// What the next monitor has to know.
    pub fn left(&self) -> &Left {
        &self.left
    }
}

fn allowed(text: Option<BindText>, looked_up: Option<&LookedUp>) -> Allowed {
    match text {
        None | Some(BindText::Auto) => None,
        Some(BindText::Host(Host::Addr(addr))) => Some(vec![addr]),
        Some(BindText::Host(Host::Name(name))) => {
            let known = looked_up.filter(|known| known.name == name);
            Some(known.map(|known| known.addresses.clone()).unwrap_or_default())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Overrides;
    use crate::config::kept::{Kept, Memory};

    const A: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
    const B: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);
    const C: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 3);

    /// A file, and loaders that read it.
    struct Source {
        dir: tempfile::TempDir,
    }

    impl Source {
        fn new(text: &str) -> Self {
            let source = Self {
                dir: tempfile::tempdir().unwrap(),
            };
            source.write(text);
            source
        }

        fn write(&self, text: &str) {
            std::fs::write(self.dir.path().join("isatapd.conf"), text).unwrap();
        }

        fn loader(&self) -> Loader {
            Loader::open(Some(self.dir.path().join("isatapd.conf")), Overrides::default()).unwrap()
        }

        /// One that was told, by a name server or by an engine, which addresses a name has.
        fn told(&self, name: &str, addresses: &[Ipv4Addr]) -> Loader {
            let loader = self.loader();
            let kept = Kept {
                locator: A,
                lines: String::new(),
                memory: Memory {
                    names: [(name.to_owned(), addresses.to_vec())].into(),
                    ..Memory::default()
                },
                drained: false,
                drained_at: None,
                taken_back: Vec::new(),
                routers: [].into(),
                heard: Vec::new(),
                paths: Vec::new(),
            };
            // What the lines lack does not matter here.
            let _ = loader.load_kept(&kept);
            loader
        }
    }

    #[test]
    fn what_the_file_said_before_is_allowed_once_more() {
        let mut bounds = Bounds::new(Some(vec![A]));
        let allowed = |bounds: &Bounds| [A, B, C].map(|addr| bounds.allow(addr));
        assert_eq!(allowed(&bounds), [true, false, false]);
        bounds.set(Some(vec![B]));
        bounds.set(Some(vec![B]));
        assert_eq!(allowed(&bounds), [true, true, false]);
        bounds.set(Some(vec![C]));
        assert_eq!(allowed(&bounds), [false, true, true]);
        bounds.set(Some(Vec::new()));
        assert_eq!(allowed(&bounds), [false, false, true]);
        bounds.set(None);
        assert_eq!(allowed(&bounds), [true; 3]);
        bounds.set(Some(vec![A]));
        bounds.set(Some(vec![B]));
        assert_eq!(allowed(&bounds), [true, true, false]);
    }

    /// FAULTS 72.
    #[test]
    fn the_file_is_believed() {
        let source = Source::new("BindAddress 10.0.0.1\n");
        let mut binding = Binding::new(source.loader(), Bind::Auto(B));
        assert_eq!(binding.bounds(), &Bounds::new(Some(vec![A])));
        for (text, now) in [
            ("BindAddress 10.0.0.2\n", Some(vec![B])),
            ("BindAddress 10.0.0\n", Some(vec![B])),
            ("BindAddress auto\n", None),
            ("Mtu 1400\n", None),
            ("BindAddress 10.0.0.3\n", Some(vec![C])),
        ] {
            source.write(text);
            binding.read_again();
            assert_eq!(binding.bounds().now, now, "{text}");
        }
        // A start goes by what was loaded if the file is another one by then.
        source.write("BindAddress 10.0.0\n");
        let binding = Binding::new(source.loader(), Bind::Fixed(C));
        assert_eq!(binding.bounds(), &Bounds::new(Some(vec![C])));
    }

    /// FAULTS 72: a name stands for what it was at the start; one that nobody looked up then stands for nothing.
    #[test]
    fn names_are_looked_up_at_the_start_or_never() {
        let source = Source::new("BindAddress ourselves.example\n");
        let mut binding = Binding::new(source.told("ourselves.example", &[A, B]), Bind::Fixed(A));
        assert_eq!(binding.bounds(), &Bounds::new(Some(vec![A, B])));
        for (text, now) in [
            ("BindAddress 10.0.0.3\n", Some(vec![C])),
            ("BindAddress others.example\n", Some(Vec::new())),
            ("BindAddress ourselves.example\n", Some(vec![A, B])),
        ] {
            source.write(text);
            binding.read_again();
            assert_eq!(binding.bounds().now, now, "{text}");
        }
        source.write("BindAddress 10.0.0.3\n");
        let mut binding = Binding::new(source.loader(), Bind::Fixed(C));
        source.write("BindAddress ourselves.example\n");
        binding.read_again();
        let allowed = [A, B, C].map(|addr| binding.bounds().allow(addr));
        assert_eq!(allowed, [false, false, true], "what held before");
    }

    /// FAULTS 72: who takes over goes by what its predecessor did, and not by what an engine says that names stand for.
    #[test]
    fn the_next_monitor_believes_the_one_before() {
        let source = Source::new("BindAddress ourselves.example\n");
        let before = Binding::new(source.told("ourselves.example", &[A]), Bind::Fixed(A));
        let lie = || source.told("ourselves.example", &[C]);
        let mut next = Binding::taken_over(lie(), before.left().clone());
        assert_eq!(next.left(), before.left());
        next.read_again();
        assert_eq!(next.left(), before.left());
        // With a file that cannot be read, too.
        source.write("BindAddress 10.0.0\n");
        assert_eq!(
            Binding::taken_over(lie(), before.left().clone()).left(),
            before.left()
        );
        // What was written since is found.
        source.write("BindAddress 10.0.0.2\n");
        let next = Binding::taken_over(lie(), before.left().clone());
        let allowed = [A, B, C].map(|addr| next.bounds().allow(addr));
        assert_eq!(allowed, [true, true, false]);
    }
}
