//! Every bound of the core: its unit last in the name, its reason beside it.

use std::time::Duration;

use crate::clock::WallTime;

/// Bytes of one gossip payload before sealing. A sealed datagram must fit an Ethernet frame over IPv6
/// without fragments.
pub const DATAGRAM_BYTES_MAX: usize = 1350;
/// What sealing adds to a payload: version (1), key id (4), sender (32), generation (8), salt (8),
/// counter (8) and tag (16).
pub const SEAL_BYTES: usize = 77;
const _: () = assert!(DATAGRAM_BYTES_MAX + SEAL_BYTES + 8 + 40 <= 1500);

/// Bytes of one encoded [`Message`](crate::message::Message): bounds what a peer can make us buffer.
pub const MESSAGE_BYTES_MAX: usize = 1 << 20;
/// Bytes of entries put into one message; the rest waits for the next round of repair.
pub const ENTRIES_BYTES_MAX: usize = 256 << 10;
const _: () = assert!(ENTRIES_BYTES_MAX + ENTRY_BYTES_MAX < MESSAGE_BYTES_MAX);
/// Bytes of one encoded entry. The largest is a job with files.
pub const ENTRY_BYTES_MAX: usize = 192 << 10;

/// Members of one fabric.
pub const MEMBERS_MAX: usize = 16_384;
/// Members, and addresses of members, that gossip may speak of at a time, the dead of the last day included.
pub const MEMBER_INDEX_MAX: usize = 4 * MEMBERS_MAX;
/// Entries in the table: bounds memory at about 1 KiB an entry.
pub const ENTRIES_MAX: usize = 1 << 21;
/// Jobs, tombstones included.
pub const JOBS_MAX: usize = 65_536;
/// Slots of one job.
pub const COUNT_MAX: u32 = 100_000;
/// Quotas, tombstones included.
pub const QUOTAS_MAX: usize = 4096;
/// A namespace that has more than its quota is trimmed after this: what two nodes admitted at the same time, or
/// two sides of a split, is known to all by then, and copies of one slot have found out which one stays.
pub const QUOTA_GRACE: Duration = Duration::from_secs(3);
/// Nodes that wait for a share of one quota take it in turn, this long after each other: longer than a claim takes to
/// be known everywhere, and than two ticks are apart.
pub const QUOTA_TURN: Duration = Duration::from_secs(2);
/// Nodes with less important work on them that a coordinator looks at for one slot that fits nowhere.
pub const PREEMPT_NODES_MAX: usize = 256;
/// A slot that fits nowhere is looked at again for whom it could displace after this.
pub const PREEMPT_AGAIN: Duration = Duration::from_secs(1);
/// Newcomers that wait on one node until others have made room.
pub const NEWCOMERS_MAX: usize = 64;
/// Slots of a gang: all their reservations are collected in memory, and within [`GANG_GATHER`].
pub const GANG_SLOTS_MAX: u32 = 1024;
/// Bytes of a job's name: a DNS label.
pub const JOB_NAME_BYTES_MAX: usize = 63;
/// The least important job.
pub const PRIORITY_MIN: u8 = 1;
/// The most important job.
pub const PRIORITY_MAX: u8 = 100;
/// Of a job that says nothing: as much room above as below.
pub const PRIORITY_DEFAULT: u8 = 50;
/// Bytes of a job file, with files inlined, and of the spec it becomes. A job's entry holds two
/// specs: the one submitted last and the one to go back to.
pub const JOB_FILE_BYTES_MAX: usize = 90 << 10;
const _: () = assert!(2 * JOB_FILE_BYTES_MAX + (8 << 10) <= ENTRY_BYTES_MAX);
/// Items in any list of a job file.
pub const JOB_LIST_MAX: usize = 256;
/// Attributes that the slots of one job spread over, one within the other: region, room, rack, node.
pub const SPREAD_LEVELS_MAX: usize = 4;
/// Bytes of memory or swap of one allocation: sums over all of them cannot overflow.
pub const JOB_MEMORY_BYTES_MAX: u64 = 1 << 50;
const _: () = assert!(JOB_MEMORY_BYTES_MAX.checked_mul(ALLOCS_PER_NODE_MAX as u64).is_some());
/// Bytes of memory of one allocation: with less, the dynamic loader of a small program fails.
pub const JOB_MEMORY_BYTES_MIN: u64 = 1 << 20;
/// Bytes of disk of one allocation: sums over all of them cannot overflow.
pub const JOB_DISK_BYTES_MAX: u64 = 1 << 50;
const _: () = assert!(JOB_DISK_BYTES_MAX.checked_mul(ALLOCS_PER_NODE_MAX as u64).is_some());
/// Huge pages of one size of one allocation.
pub const HUGEPAGES_MAX: u32 = 1 << 24;
/// Threads of one allocation: the kernel has no more process ids.
pub const TASKS_MAX: u32 = 1 << 22;
/// Failed checks in a row, and restarts in place, that a job may ask to overlook.
pub const FAILURES_MAX: u32 = 10_000;
/// Seconds of any duration in a job: ten years, so that sums cannot overflow.
pub const JOB_DURATION_SECONDS_MAX: u64 = 10 * 366 * 86_400;
/// Logical CPUs of one node.
pub const CPUS_MAX: usize = 4096;
/// Characters of a node's name.
pub const NODE_NAME_CHARS_MAX: usize = 64;
/// Labels of one node.
pub const LABELS_MAX: usize = 64;
/// Devices of one node that can be claimed; further ones are not seen. Bounds the search for a set of
/// devices that serves a job which wants several.
pub const DEVICES_PER_NODE_MAX: usize = 512;

/// What waits for the agent to do it; the oldest that is said again anyway is dropped.
pub const OUTPUTS_MAX: usize = 65_536;
/// Proposals one coordinator has under way: one slow node cannot stall the others.
pub const PROPOSALS_MAX: usize = 4096;
/// Jobs of which a node remembers, in memory, why their last version failed.
pub const REMEMBERED_FAILURES_MAX: usize = 1024;
/// Allocations of one node.
pub const ALLOCS_PER_NODE_MAX: usize = 4096;
/// Stretches of ports used by others that a node tells of. What does not fit is joined: ports between two stretches are
/// not given away either.
pub const PORTS_USED_MAX: usize = 128;

/// How long a slot's lease lasts after its holder asked for it, on the holder's clock. A node that is cut
/// off from the voters stops its at-most-one work after this.
pub const LEASE: Duration = Duration::from_secs(10);
/// Time between two renewals of a lease: two may be lost.
pub const LEASE_RENEWAL: Duration = Duration::from_secs(3);
const _: () = assert!(LEASE_RENEWAL.as_secs() * 3 < LEASE.as_secs());
/// The longest stop timeout of an at-most-one job: a successor waits it out.
pub const LEASE_STOP_MAX: Duration = Duration::from_secs(30);
/// How far any clock may be off its nominal rate, in millionths: twenty times what a cheap oscillator is.
pub const DRIFT_PPM_MAX: u32 = 50_000;
/// For the kill after the stop timeout, and for the scheduling of whoever kills.
pub const LEASE_SLACK: Duration = Duration::from_secs(1);
/// Leases that the voters look after in all: one voter keeps about 200 bytes for each.
pub const LEASES_MAX: usize = 4096;
/// An ask or an answer about a lease that shows no effect is repeated after this.
pub const LEASE_RESEND: Duration = Duration::from_millis(500);
/// How often a release is said: nothing depends on it, a successor only waits less.
pub const LEASE_RELEASES: u32 = 4;
/// A target that waits for another's lease to run out waits this much longer than that takes.
pub const LEASE_PATIENCE: Duration = Duration::from_secs(30);
/// A slot for which no majority answered is tried again after this.
pub const LEASE_RETRY: Duration = Duration::from_secs(15);
/// Asks or answers in one datagram: each has at most 130 bytes beside a name of 63.
pub const LEASE_ENTRIES_MAX: usize = 8;
/// A voter raises the number on its disk so much further than it needs: a write for every so many epochs.
pub const EPOCH_BLOCK: u64 = 64;
/// The highest epoch: an allocation's row orders by epoch and phase in one number.
pub const EPOCH_MAX: u64 = 1 << 55;
/// A voter set that is declared by force starts so far above every epoch that is known.
pub const EPOCH_FORCED_JUMP: u64 = 1 << 20;
/// Voters: five survive the loss of two; more would make every renewal dearer.
pub const VOTERS_MAX: usize = 5;
/// A voter that was dead for so long is replaced when another member is up.
pub const VOTER_GONE: Duration = Duration::from_secs(600);
/// An attempt to change the voter set is given up after this.
pub const VOTERS_ATTEMPT: Duration = Duration::from_secs(5);
/// What is said in such an attempt is said again after this.
pub const VOTERS_RESEND: Duration = Duration::from_secs(1);

/// Shortest time between two ticks: packets that arrive together are decided together.
pub const TICK_MIN: Duration = Duration::from_millis(5);
/// Longest time between two ticks: everything lost is derived again within this.
pub const TICK_MAX: Duration = Duration::from_secs(1);

/// How long the row of an ended allocation is remembered if its job does not say: long enough to read at breakfast why it ended.
pub const ENDED_KEEP: Duration = Duration::from_secs(12 * 3600);
/// Entries that are looked at in each second for those whose time is over: about a millisecond of one core. Until all
/// nodes have looked, their tables differ.
pub const EXPIRE_ENTRIES: usize = 16_384;
/// The longest time that a job may ask for.
pub const ENDED_KEEP_MAX: Duration = Duration::from_secs(30 * 86_400);
/// The shortest: by then its coordinator and its quota have taken note.
pub const ENDED_KEEP_MIN: Duration = Duration::from_secs(60);

/// Time between two rounds in which members say what they have seen, for tombstones to leave, in a fabric of up to
/// [`PURGE_MEMBERS`]: a name that is deleted can be counted on to be gone some minutes later.
pub const PURGE_ROUND: Duration = Duration::from_secs(60);
/// Each further group of as many members makes rounds longer by one: about one row is written per second at most.
pub const PURGE_MEMBERS: usize = 64;
/// While a member is away, no tombstone can leave: members say what they have seen this often, for fabrics in
/// which somebody is always away.
pub const PURGE_ROUND_AWAY: Duration = Duration::from_secs(86_400);
/// How often it is looked whether a round is over.
pub const PURGE_LOOK: Duration = Duration::from_secs(10);

/// Time between two probes of a healthy node. Detection of a dead node takes about two and a half of
/// these plus the suspicion.
pub const PROBE_PERIOD: Duration = Duration::from_millis(400);
/// Time for a probe's direct answer before others are asked to probe.
pub const PROBE_RTT: Duration = Duration::from_millis(150);
const _: () = assert!(PROBE_RTT.as_millis() * 2 < PROBE_PERIOD.as_millis());
/// Lifeguard's ceiling of the local health score: probes of a node in trouble are up to this many
/// times slower and more patient.
pub const LOCAL_HEALTH_MAX: u32 = 8;
/// Suspicion lasts at least this, times `log10` of the fabric's size: a busy board gets that long to
/// deny its death, even when many confirm it.
pub const SUSPICION_MIN: Duration = Duration::from_millis(600);
/// Suspicion that nobody confirms lasts this many times longer.
pub const SUSPICION_FACTOR: u32 = 3;
/// Confirmations by others that bring the suspicion down to its minimum.
pub const CONFIRMATIONS: u32 = 2;
/// Confirmations attached to one datagram.
pub const CONFIRMS_PER_DATAGRAM_MAX: usize = 4;
/// Bytes of one packet of foca's: what is left of a datagram beside the confirmations (75 bytes each).
pub const SWIM_BYTES_MAX: usize = DATAGRAM_BYTES_MAX - 16 - CONFIRMS_PER_DATAGRAM_MAX * 75;
/// Suspicions are compared with foca's list this often: it has to be walked for that.
pub const SUSPICION_REVIEW: Duration = Duration::from_millis(50);
/// Members that one push of fresh entries goes to.
pub const PUSH_FANOUT: usize = 3;
/// Shortest time between two pushes.
pub const PUSH_INTERVAL: Duration = Duration::from_millis(50);
/// In a fabric with at most that many other members, peers are chosen from a list of all; in a larger
/// one they are drawn.
pub const FEW_PEERS: usize = 64;
/// Datagrams of one push to one member.
pub const PUSH_DATAGRAMS_MAX: usize = 8;
/// Entries that do not fit the last datagram of a push and are passed over for smaller ones.
pub const PUSH_PASSED_OVER_MAX: usize = 64;
/// Rows in one message to the coordinator that proposed them: about 200 bytes each.
pub const NEWS_MAX: usize = 1024;
/// Time between two comparisons with a random member.
pub const REPAIR_INTERVAL: Duration = Duration::from_secs(5);
/// Rows described in one message of repair: about 120 bytes each.
pub const REPAIR_ROWS_MAX: usize = 4096;
/// Bytes of one described row: a slot of a job with the longest name, a node's key (32), rank (10) and stamp (42).
pub const ROW_BYTES_MAX: usize = 1 + 1 + JOB_NAME_BYTES_MAX + 5 + 32 + 10 + 42 + 1;
/// Bytes of rows in one message of repair: what is left of it beside the names of the buckets. All rows of a bucket of a full table
/// have a third more.
pub const ROWS_BYTES_MAX: usize = MESSAGE_BYTES_MAX - 1024;
const _: () = assert!(REPAIR_ROWS_MAX * ROW_BYTES_MAX < ROWS_BYTES_MAX);
/// Time between two attempts to reach members that are not alive.
pub const REJOIN_INTERVAL: Duration = Duration::from_secs(5);
/// Members tried in one such attempt.
pub const REJOIN_FANOUT: usize = 4;

/// A coordinator that has just started waits this long for the others' rows before it places
/// anything, unless somebody says sooner that the tables are equal.
pub const BOOT_HOLD: Duration = Duration::from_secs(5);
/// A node that has started waits this long, from the first member that it hears on, for those that it has not heard before
/// it takes their work over. Longer than [`AWAY_GRACE`]: their agents may be restarting as well.
pub const UNHEARD_HOLD: Duration = Duration::from_secs(35);
/// A member whose agent said that it stops and its units run on has this long to come back before its work is placed
/// elsewhere: a package upgrade on a slow card.
pub const AWAY_GRACE: Duration = Duration::from_secs(30);
const _: () = assert!(AWAY_GRACE.as_millis() + BOOT_HOLD.as_millis() <= UNHEARD_HOLD.as_millis());
/// A datagram that was sent before another one arrives at most so long after it.
pub const OVERTAKEN: Duration = Duration::from_secs(1);
/// Members that a stopping agent tells so, each by a datagram of its own.
pub const LEAVING_TOLD_MAX: usize = 1024;
/// A machine whose link is back hears somebody within this: the others look for it every five seconds.
pub const RECONNECT_HOLD: Duration = Duration::from_secs(10);
/// A node that others reach hears one of them at least this often, also when one of three is dead and every second
/// probe goes to that one. Less than it takes until a member that fell silent with all others is called dead.
pub const HEARS_WITHIN: Duration = Duration::from_millis(2 * PROBE_PERIOD.as_millis() as u64 + 100);
const _: () = assert!(
    HEARS_WITHIN.as_millis()
        < PROBE_PERIOD.as_millis() / 2 + SUSPICION_MIN.as_millis() + PROBE_RTT.as_millis()
);
/// A copy that stands in for one that cannot be reached, and has been healthy for this long, stays when that one is
/// back: by then others depend on it.
pub const STAND_IN_MAX: Duration = Duration::from_secs(300);
/// A proposal without an answer is forgotten after this, and made again.
pub const PROPOSE_TIMEOUT: Duration = Duration::from_secs(3);
/// After an accepted proposal, the row may take this long to arrive.
pub const ACCEPTED_TIMEOUT: Duration = Duration::from_secs(10);
/// A node that rejected a slot is not asked again for it for this long.
pub const REJECTED_FOR: Duration = Duration::from_secs(2);
/// A node on which a slot failed for good is not asked again for it for this long.
pub const FAILED_FOR: Duration = Duration::from_secs(60);
/// Every job is looked at this often even when nothing seems to have changed.
pub const RECONCILE_INTERVAL: Duration = Duration::from_secs(5);
/// A node that has placed nothing for this long drops its ledgers of the others.
pub const FLEET_KEPT: Duration = Duration::from_secs(60);
/// Proposals of one coordinator in one tick, the most important first: about 20 ms of one core.
pub const PROPOSALS_PER_TICK: u32 = 1024;
/// A slot that failed for good on a second node waits this long before the third, then twice as long, and so
/// on: a job that cannot work does not run through the whole fabric.
pub const SLOT_BACKOFF_MIN: Duration = Duration::from_secs(5);
/// The longest such wait.
pub const SLOT_BACKOFF_MAX: Duration = Duration::from_secs(120);
/// A member that came back from the dead gets no new work for this long, after the second return for twice as
/// long, and so on. A machine that rebooted once hardly notices.
pub const FLAP_HOLD_MIN: Duration = Duration::from_secs(2);
/// The longest such time: a job that can run nowhere else waits no longer.
pub const FLAP_HOLD_MAX: Duration = Duration::from_secs(64);
/// A member that stayed for this long after its last return is as good as one that never went.
pub const FLAP_CALM: Duration = Duration::from_secs(300);
/// Members that went, or are suspected, at about the same time before a node doubts itself. One or two
/// die for reasons of their own, and the last of two or three has to act at once.
pub const DOUBT_MEMBERS_MIN: usize = 3;
/// And they are at least this part of the fabric: a quarter. More than a rack of a large fabric, and what a
/// switch or a hanging board makes of all others.
pub const DOUBT_PART: usize = 4;
/// With a local health score from this on a node doubts itself whatever part of the fabric they are: its own
/// probes fail one after the other.
pub const DOUBT_HEALTH: u32 = 3;
/// 'At about the same time': a cut-off node of a large fabric notices one death after the other.
pub const DOUBT_WINDOW: Duration = Duration::from_secs(10);
/// A doubt ends when nobody was lost or suspected for this long: five probe periods, in which the others
/// answered five probes of this node.
pub const DOUBT_CALM: Duration = Duration::from_millis(5 * PROBE_PERIOD.as_millis() as u64);
/// A doubt ends at the latest after this. Whoever is on the smaller side of a split takes over then.
pub const DOUBT_MAX: Duration = Duration::from_secs(10);
/// After a doubt, slots wait this much longer for each point that their priority is below 100: coordinators do not
/// ask each other, and the room that is left goes to the more important ones first.
pub const IMPORTANCE_STEP: Duration = Duration::from_millis(30);
/// In a doubt and after it, a node looks this often.
pub const DOUBT_TICK: Duration = Duration::from_millis(200);
/// A reservation of a gang that is neither committed nor released ends after this, on its target's clock.
pub const GANG_HOLD: Duration = Duration::from_secs(5);
/// A gang whose reservations are not together after this is released. Shorter than the hold by more than
/// the drift of two clocks: what is committed is still held everywhere.
pub const GANG_GATHER: Duration = Duration::from_secs(3);
const _: () = assert!(GANG_GATHER.as_millis() * 11 < GANG_HOLD.as_millis() * 9);
/// Moves of one rebalancing: every one of them starts something and stops something.
pub const MOVES_MAX: u32 = 100;
/// Moves that one coordinator remembers.
pub const MOVES_KEPT_MAX: usize = 1024;
/// A move that could not be made after this is forgotten: the fabric is another one by then.
pub const MOVE_WITHIN: Duration = Duration::from_secs(600);
/// A target of a gang that has not answered is asked again after this; so is a commit without effect.
pub const GANG_AGAIN: Duration = Duration::from_secs(1);
/// A gang that did not come together tries again after about this, then twice as long, and so on.
pub const GANG_BACK_OFF: Duration = Duration::from_millis(500);
/// The longest of these waits.
pub const GANG_BACK_OFF_MAX: Duration = Duration::from_secs(30);
/// A job is left alone this long for each of its slots after it was looked at: looking at ten thousand slots
/// takes milliseconds, and whatever happens to one of them asks for it.
pub const RECONCILE_REST: Duration = Duration::from_micros(20);
/// A retirement is asked for again after this.
pub const RETIRE_RETRY: Duration = Duration::from_secs(3);
/// A unit whose start or stop shows no effect is asked again after this, then twice as long, and so on.
pub const UNIT_RETRY: Duration = Duration::from_secs(10);
/// The longest wait between such repetitions, and between two restarts of a failing unit.
pub const UNIT_RETRY_MAX: Duration = Duration::from_secs(300);
/// A unit that was told to move to other CPUs, and is not seen there, is told again after this, then twice as long, and so
/// on: meanwhile it may run on cores that a job has for itself.
pub const CONFINE_RETRY: Duration = Duration::from_secs(1);
/// A failing unit is not started again sooner than this, whatever its job says: one that ends at once would keep its
/// node busy.
pub const RESTART_DELAY_MIN: Duration = Duration::from_secs(1);
/// A unit of ours that the agent does not report at its start is given up after this.
pub const ADOPT_TIMEOUT: Duration = Duration::from_secs(10);
/// The allocation of a job that this node has never heard of is ended after this.
pub const ABSENT_GRACE: Duration = Duration::from_secs(60);
/// A submit is answered after this with the holders that there are by then, if there are any.
pub const HOLD_TIMEOUT: Duration = Duration::from_millis(800);
/// With none, and disks that may still take it, it is answered at the latest after this: cards stand still for seconds.
pub const HOLD_TIMEOUT_MAX: Duration = Duration::from_secs(15);
/// How often it is looked meanwhile.
pub const HOLD_LOOK: Duration = Duration::from_millis(200);
/// Members asked to hold a submitted job besides the one that took it.
pub const HOLDERS: usize = 2;
/// Submits that wait for holders at a time.
pub const HOLDS_MAX: usize = 1024;
/// After the disk refused, everything is written again this much later.
pub const PERSIST_RETRY: Duration = Duration::from_secs(5);
/// Entries of the table looked at in one tick while everything is written again.
pub const REWRITE_ENTRIES: usize = 4096;
/// After a rotation, datagrams sealed with the key before are still opened for this long.
pub const KEY_OVERLAP: Duration = Duration::from_secs(30);
/// Reasons why a version fits nowhere that are told in one line.
pub const REASONS_MAX: usize = 3;
/// Whoever misses an answer of a member asks whether it is heard so many times before it says that it is not.
pub const REACH_ASKS: u32 = 3;
/// Such an ask is answered at once, whatever the disk does: within this, or it is lost.
pub const REACH_TIMEOUT: Duration = Duration::from_secs(1);
/// A member that cannot be reached is asked again this often: the way may be there again.
pub const REACH_AGAIN: Duration = Duration::from_secs(5);
/// Probes of a member in a row that it answered by others only, after which it is asked over a stream.
pub const ANSWERED_BY_OTHERS: u32 = 3;
/// Users' wishes that are kept for one member until it is known whether it can be reached.
pub const WISHES_MAX: usize = 256;
/// Members of which one is chosen to pass something on: most can, and the next word goes by another one.
pub const DETOURS_DRAWN: usize = 4;
/// Bytes of an encoded message that is passed on: with the key of its receiver and its length it is a message, too.
pub const PASSED_ON_BYTES_MAX: usize = MESSAGE_BYTES_MAX - 64;

/// How far a stamp may lie ahead of the time by which it is judged. Clocks of machines that nobody looks after are
/// off by minutes; hours are a time zone, and years an empty battery.
pub const STAMP_AHEAD_MAX: Duration = Duration::from_secs(3600);
/// Clocks that show the same within this agree. Without a time server they drift by a few seconds a week.
pub const CLOCKS_AGREE: Duration = Duration::from_secs(120);
const _: () = assert!(CLOCKS_AGREE.as_secs() * 10 < STAMP_AHEAD_MAX.as_secs());
/// A clock that is off by this much is worth a word: a machine that stands still for a moment, and reads a datagram
/// late, is not.
pub const CLOCK_OFF: Duration = Duration::from_secs(30);
/// 2020-01-01, in milliseconds since 1970: a clock that shows less was never set, and has no vote.
pub const CLOCK_SET_FROM: WallTime = WallTime(1_577_836_800_000);
/// A wall clock that moves by this much against the monotonic one was set, and the time is looked at again.
pub const CLOCK_STEP: Duration = Duration::from_secs(1);
/// Rows that the nodes they name did not sign are spoken of in the log at most so often.
pub const FORGED_TOLD_EVERY: Duration = Duration::from_secs(60);
/// Clocks that a node knows, its own included: in a larger fabric those that it heard last speak for all.
pub const CLOCKS_MAX: usize = 64;
/// What a member said of its clock holds for so long: members compare tables every five seconds, with one of all.
pub const CLOCK_FRESH: Duration = Duration::from_secs(600);
/// A node that hears nobody believes that its machine was off for so long, and no longer.
pub const CLOCK_PAUSE_MAX: Duration = Duration::from_secs(30 * 86_400);
/// A token is deleted so long after it ran out: until then somebody's clock might call it good, and a deletion
/// cannot be taken back.
pub const TOKEN_KEEP: Duration = Duration::from_secs(86_400);
/// After `reclock`, stamps of others do not raise the ceiling for so long: longer than a reading holds.
pub const RECLOCK_HOLD: Duration = Duration::from_secs(900);
const _: () = assert!(RECLOCK_HOLD.as_secs() > CLOCK_FRESH.as_secs());
/// Members other than the one that was asked wait up to this long before they stamp anew what nobody has by then.
pub const RECLOCK_SPREAD: Duration = Duration::from_secs(10);
