//! Every bound of discovery: its unit last in the name, its reason beside it.
//!
//! Whoever shares the link or the zone with us can write what it likes; these bound what that costs.

use std::time::Duration;

/// Instances remembered, over all sources. When more show up, those of no use to us make room.
pub const INSTANCES_MAX: usize = 4096;
/// Addresses kept of one instance; the rest is left out.
pub const ADDRESSES_PER_INSTANCE_MAX: usize = 16;
/// Bytes of an instance's full name (RFC 1035, section 2.3.4).
pub const NAME_BYTES_MAX: usize = 255;
/// Bytes of a TXT record that are looked at. Ours has about 100.
pub const TXT_BYTES_MAX: usize = 512;
/// Strings of a TXT record that are looked at.
pub const TXT_STRINGS_MAX: usize = 16;
/// Hex digits of a node's id.
pub const NODE_DIGITS: usize = 64;
/// Hex digits of the hash of a fabric's key.
pub const FABRIC_DIGITS: usize = 16;
/// Hex digits of the node's id that make its DNS names unique: 64 bits. So many that nobody has to
/// ask the link whether a name is free, which would cost a second (RFC 6762, section 8.1).
pub const SHORT_DIGITS: usize = 16;
/// Bytes of the machine's name that go into the instance's name. With the id and a dash it fits a
/// DNS label.
pub const MACHINE_BYTES_MAX: usize = 40;
const _: () = assert!(MACHINE_BYTES_MAX + 1 + SHORT_DIGITS <= 63);

/// Domains that are browsed by unicast.
pub const DOMAINS_MAX: usize = 8;
/// Instances of one domain that are looked up.
pub const INSTANCES_PER_DOMAIN_MAX: usize = 1024;
/// Static seeds.
pub const SEEDS_MAX: usize = 64;

/// Records in the multicast cache; above it the cache is thrown away and built anew. A link with
/// 1,024 nodes needs about 6 each.
pub const CACHE_RECORDS_MAX: i64 = 8192;
/// Timers of the multicast daemon. Each record that arrives sets up to three, which stay until it
/// would have expired.
pub const CACHE_TIMERS_MAX: i64 = 65_536;
/// Time between two looks at the size of the multicast cache.
pub const CACHE_CHECK: Duration = Duration::from_secs(10);
/// Events taken from the multicast daemon before other tasks get their turn.
pub const EVENTS_PER_TURN_MAX: u32 = 64;

/// The network is looked at when it has not changed for this long.
pub const LINK_QUIET: Duration = Duration::from_millis(150);
/// The network is looked at this long after the first change, even if it keeps changing.
pub const LINK_QUIET_MAX: Duration = Duration::from_millis(600);
/// How long the multicast daemon polls the interfaces itself after a change: it removes addresses
/// that are gone only when it polls, which it does once a second at most.
pub const POLL_AFTER_CHANGE: Duration = Duration::from_millis(2500);
/// The link is searched a second time this long after a start or a change of the network: goodbyes
/// that were on their way then are forgotten after a second.
pub const SECOND_SEARCH: Duration = Duration::from_secs(2);
/// Time between two searches of a quiet link. The multicast daemon's own grows to an hour.
pub const SEARCH_AGAIN: Duration = Duration::from_secs(600);
/// With more instances the link is not searched again: all of them would be reported at once, two
/// events each, to a channel that holds a thousand, and that is closed when it is full.
pub const SEARCH_AGAIN_INSTANCES_MAX: usize = 400;
/// Everything is asked for anew this long after an instance came without its text.
pub const TEXT_REQUEST: Duration = Duration::from_millis(1300);
/// How often that is done for services that may have no text at all.
pub const TEXT_REQUESTS_MAX: u32 = 3;
/// Who is asked anew and has not answered after this long is gone. The question is put at 0, 1, 3 and 7
/// seconds.
pub const ANSWERS_MAX: Duration = Duration::from_secs(9);
/// The multicast daemon is started again this long after it failed.
pub const RESTART_DELAY: Duration = Duration::from_secs(1);
/// The multicast daemon repeats its goodbye after 120 ms; it is not stopped before.
pub const GOODBYE_REPEAT: Duration = Duration::from_millis(150);
/// Longest wait for each step of a shutdown.
pub const SHUTDOWN_STEP_MAX: Duration = Duration::from_secs(1);

/// Shortest time between two lookups of a name, whatever its time to live.
pub const LOOKUP_MIN: Duration = Duration::from_secs(5);
/// Longest time between two lookups of a name: new nodes are seen within this.
pub const LOOKUP_MAX: Duration = Duration::from_secs(120);
/// Time between two lookups of a seed, which has no time to live that we could see.
pub const SEED_LOOKUP: Duration = Duration::from_secs(60);
/// Longest wait for one answer of a DNS server.
pub const ANSWER_MAX: Duration = Duration::from_secs(2);
/// Updates of lookups that wait to be taken in. A full queue makes the lookups wait.
pub const UPDATES_MAX: usize = 4;
