//! The numbers that the programs and the engine agree on. `build.rs` makes the header for the programs from this file.

macro_rules! numbers {
    ($( $(#[doc = $doc:literal])+ $name:ident = $value:literal; )+) => {
        $( $(#[doc = $doc])+ pub const $name: u32 = $value; )+

        /// Each with its name.
        pub const NUMBERS: &[(&str, u32)] = &[ $( (stringify!($name), $name), )+ ];
    };
}

numbers! {
    /// Locators of one interface; as many as a Rulebook takes.
    MAX_LOCATORS = 16;
    /// Prefix lengths in one table of prefixes: all 33 of IPv4, and more than anybody's IPv6 routes have.
    MAX_LEVELS = 64;
    /// Tables of prefixes; a power of two.
    PREFIX_TABLES = 4;
    /// Entries that one look-up reads at most.
    MAX_PROBES = 16;
    /// Counters of identifications.
    IDENTS = 4096;
    /// Pairs of addresses that a CPU remembers in each direction; a power of two.
    FLOWS = 512;
    /// Places for neighbours of the Ethernet devices; a power of two.
    NEIGHBOURS = 16384;
    /// Slots of a group of equal next hops.
    GROUP_SLOTS = 64;
    /// Of so many packets carried one has its time taken.
    SAMPLE = 256;
    /// Places that times between two powers of two are counted in ...
    STAY_STEPS = 16;
    /// ... how often they double, from twice as many nanoseconds on ...
    STAY_OCTAVES = 20;
    /// ... and all places: the last one is for 33 ms, and what takes longer.
    STAYS = 352;
    /// What every IPv6 link takes (RFC 8200 5), in bytes.
    MIN_MTU = 1280;
    /// Longest packet, in bytes, that gets its headers though it is no superpacket. The kernel's helpers make none longer than four pages
    /// with its own notes behind them (BPF_SKB_MAX_LEN), which are less than a thousand bytes of the smallest pages there are.
    MAX_ALONE = 15360;
    /// The outer DSCP is the inner one.
    DSCP_INHERIT = 256;

    /// Directions, as in the counters.
    DIRECTIONS = 2;
    /// TUN to IPv4.
    ENCAP = 0;
    /// IPv4 to TUN.
    DECAP = 1;

    /// Packets from the IPv4 network are carried; else all are left.
    FLAG_CARRY_IN = 1;
    /// Packets from the TUN interface are carried; else all are left.
    FLAG_CARRY_OUT = 2;
    /// Nobody else on this machine listens to protocol 41.
    FLAG_ALONE = 4;
    /// Every IPv4 host may use the tunnel.
    FLAG_ANY_SITE = 8;
    /// One of our IPv6 addresses embeds an IPv4 address that is no locator of ours.
    FLAG_OWNS_FOREIGN = 16;
    /// An ISATAP source must be under a prefix of the link.
    FLAG_STRICT = 32;
    /// Inner tunnel packets are carried.
    FLAG_NESTED = 64;
    /// Packets that would go round between tunnels are dropped (RFC 6324).
    FLAG_LOOP_CHECKS = 128;
    /// Some devices cut superpackets of IPv4 tunnels themselves ...
    FLAG_SEGMENTERS = 256;
    /// ... and which ones is not known: any may.
    FLAG_ANY_SEGMENTER = 512;

    /// The path to this peer is explored (RFC 4213 3.2.2).
    PEER_DYNAMIC = 1;
    /// Towards this peer the outer ECN field is cleared (RFC 6040 4.1).
    PEER_COMPAT = 2;

    /// No route.
    HOP_NONE = 0;
    /// To the IPv4 address in the destination.
    HOP_ON_LINK = 1;
    /// To the IPv4 address in the value.
    HOP_VIA = 2;
    /// To a member of the group in the value.
    HOP_GROUP = 3;
    /// Nowhere.
    HOP_UNREACHABLE = 4;

    /// Routes by IPv6 prefix: the hop's kind in `extra`. Tags of prefix tables have the prefix length in the second byte; those of IPv4 have
    /// the network in the upper half of the key's first half.
    TAG_ROUTE = 1;
    /// Networks whose hosts may use the tunnel.
    TAG_SITE = 2;
    /// PEER_ flags by network.
    TAG_PEER = 3;
    /// Devices by network of the next hop, with their MTU in `extra` and the gateway in `more`; 0: none.
    TAG_EGRESS = 4;
    /// IPv6 addresses of the interface.
    TAG_OWN = 5;
    /// First halves of those in ISATAP's format.
    TAG_OWN_PREFIX = 6;
    /// Routers of the PRL, and peer routers.
    TAG_ROUTER = 7;
    /// Directed broadcast addresses.
    TAG_BROADCAST = 8;
    /// IPv4 addresses whose 6to4 prefix this machine uses.
    TAG_OWN_6TO4 = 9;
    /// Path MTU << 16 | link MTU by peer.
    TAG_PATH = 10;
    /// Groups with an active member that is a router.
    TAG_GROUP = 11;
    /// The next hop of a slot: the group in the high half of the key, the slot in the low one.
    TAG_GROUP_SLOT = 12;
    /// Members of a group, active or not: the group in the high half of the key, the address in the low one.
    TAG_MEMBER = 13;
    /// IPv4 addresses of this machine.
    TAG_OWN_V4 = 14;
    /// Devices that cut superpackets of IPv4 tunnels themselves, by interface index.
    TAG_SEGMENTER = 15;
}
