//! The checkers themselves: each of them must be able to fail.

use super::*;
use crate::disk::Write;
use crate::machines::{Hardware, Shape};
use fabric::alloc::{AllocRow, Phase};
use fabric::claim::Claim;
use fabric::id::{Birth, JobName, SlotId};
use fabric::stamp::Stamp;
use fabric::table::Entry;
use fabric::topology::{Device, HugepagePool};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

fn machine() -> SimNode {
    let mut topology = Shape { packages: 2, cores: 3, threads: 1, memory_gib: 2 }.topology();
    topology.devices.push(Device { path: "/dev/gpu0".into(), ..Device::default() });
    topology.hugepages.push(HugepagePool { size_kib: 2048, numa: 0, count: 8 });
    let hardware = Hardware { topology, labels: BTreeMap::new() };
    SimNode::new(0, "a".into(), hardware, &mut ChaCha8Rng::seed_from_u64(1))
}

fn claim(cpus: &str) -> Claim {
    let shared_millis = if cpus.is_empty() { 100 } else { 0 };
    Claim { cpus: cpus.parse().unwrap(), shared_millis, memory: 1 << 20, ..Claim::default() }
}

/// Starts one unit a claim; those without CPUs of their own run on `shared`.
fn running(claims: Vec<Claim>, shared: &str) -> SimNode {
    let mut machine = machine();
    for (index, claim) in claims.into_iter().enumerate() {
        let spec = crate::workload::service(JobName::new("web").unwrap());
        let shared: CpuSet = shared.parse().unwrap();
        let launch = Launch {
            alloc: AllocId::new(spec.name.clone(), index as u32, 1),
            run: 1,
            node: "a".into(),
            task: spec.task,
            memory: claim.memory,
            swap: 0,
            cpu_hard: false,
            cpus: if claim.cpus.is_empty() { shared } else { claim.cpus.clone() },
            claim,
            health: None,
            lease: None,
        };
        machine.units.start(launch, fabric::clock::Instant::at(Duration::ZERO), Duration::ZERO);
    }
    machine
}

fn twice(one: Claim, other: Claim) -> Verdict {
    let machine = running(vec![one, other], "1-5");
    invariant_a_core_byte_device_or_port_is_never_claimed_twice_on_a_node(&machine)
}

#[test]
fn what_is_claimed_twice_is_found() {
    assert_eq!(twice(claim("1-2"), claim("3")), Ok(()));
    assert!(twice(claim("1-2"), claim("2-3")).unwrap_err().contains("cpu 2"));
    let with = |change: fn(&mut Claim)| {
        let mut claim = claim("");
        change(&mut claim);
        claim
    };
    type Change = fn(&mut Claim);
    let pairs: [(Change, &str); 6] = [
        (|claim| claim.devices = vec!["/dev/gpu0".into()], "/dev/gpu0"),
        (|claim| claim.ports = [("http".into(), 8080)].into(), "port 8080"),
        (|claim| claim.memory = 5 << 28, "bytes of a's"),
        (|claim| claim.hugepages = vec![(2048, 0, 5)], "pages"),
        (|claim| claim.shared_millis = 2600, "thousandths"),
        (
            |claim| {
                claim.memory = 700 << 20;
                claim.mems = [1].into_iter().collect();
            },
            "memory node 1",
        ),
    ];
    for (change, expected) in pairs {
        let found = twice(with(change), with(change)).unwrap_err();
        assert!(found.contains(expected), "{found}");
        assert_eq!(twice(with(change), claim("")), Ok(()), "{expected} once is fine");
    }
}

#[test]
fn disk_that_is_promised_twice_is_found() {
    let claims = |disk| {
        let claim = Claim { disk, ..claim("") };
        invariant_no_node_has_more_disk_promised_than_its_pool(&running(
            vec![claim.clone(), claim],
            "1-5",
        ))
    };
    assert_eq!(claims(3 << 30), Ok(()), "six GiB are all that there is");
    assert!(claims((3 << 30) + 1).unwrap_err().contains("of a's disk are held"));
}

#[test]
fn a_claim_on_what_is_not_there_is_found() {
    let holds = |claim: Claim, shared: &str| {
        invariant_a_claim_names_only_what_the_machine_has(&running(vec![claim], shared))
    };
    assert_eq!(holds(claim("1"), ""), Ok(()));
    assert_eq!(holds(claim(""), "1-5"), Ok(()));
    assert!(holds(claim("0"), "").is_err(), "housekeeping");
    assert!(holds(claim("77"), "").is_err());
    assert!(holds(claim(""), "").is_err(), "nowhere to run");
    assert!(holds(Claim { devices: vec!["/dev/gpu7".into()], ..claim("1") }, "").is_err());
    assert!(holds(Claim { mems: [9].into_iter().collect(), ..claim("1") }, "").is_err());
}

#[test]
fn shared_work_on_an_exclusive_core_is_found() {
    let holds = |shared| {
        let machine = running(vec![claim("1-2"), claim("")], shared);
        invariant_an_exclusive_core_runs_nobody_elses_work(&machine)
    };
    assert_eq!(holds("3-5"), Ok(()));
    assert!(holds("2-5").is_err());
}

#[test]
fn a_start_without_a_row_on_disk_is_found() {
    let machine = running(vec![claim("1")], "");
    let launch = machine.units.there().next().unwrap().1.launch.clone();
    assert!(invariant_nothing_starts_before_its_claim_is_on_disk(&machine, &launch).is_err());
}

#[test]
fn limits_numbers_and_repetitions_are_counted() {
    let sized = |size| {
        invariant_datagrams_messages_and_queues_stay_within_their_limits("a", "it", size, 10)
    };
    assert!(sized(10).is_ok() && sized(11).is_err());
    let numbered = invariant_writes_are_numbered_one_by_one;
    assert!(numbered(None, 7).is_ok() && numbered(Some(7), 8).is_ok());
    assert!(numbered(Some(7), 9).is_err() && numbered(Some(7), 7).is_err());
    let woken = |times| invariant_a_tick_makes_progress("a", times);
    assert!(woken(WAKES_AT_ONCE_MAX).is_ok() && woken(WAKES_AT_ONCE_MAX + 1).is_err());
    let bytes = Message::Reach { answer: true }.encode();
    let read = |bytes| invariant_what_a_node_sends_can_be_read("a", bytes);
    assert!(read(&bytes).is_ok() && read(&bytes[..1]).is_err());
    let alloc = AllocId::new(JobName::new("web").unwrap(), 0, 1);
    let repeated =
        |times| invariant_no_command_repeats_without_progress("a", Command::Start, &alloc, times);
    assert!(repeated(REPEATS_MAX).is_ok() && repeated(REPEATS_MAX + 1).is_err());
}

#[test]
fn a_roll_out_that_stops_too_much_is_found() {
    let mut spec = crate::workload::service(JobName::new("web").unwrap());
    spec.count = 3;
    let leaves = rollouts::invariant_a_roll_out_leaves_as_many_as_its_update_allows;
    let one_at_a_time = std::slice::from_ref(&spec);
    assert_eq!(leaves(one_at_a_time, 1), Ok(()));
    assert!(leaves(one_at_a_time, 2).unwrap_err().contains("2 slots"));
    // Whoever paces it may know of a version that this node has not heard of.
    let mut later = spec.clone();
    later.update.max_parallel = 2;
    assert_eq!(leaves(&[spec.clone(), later], 2), Ok(()));

    let settings = crate::world::Settings {
        seed: 1,
        quality: crate::network::Quality::default(),
        canary: None,
        rediscovery: None,
        detail: crate::trace::Detail::Nothing,
        print: false,
        numbered: false,
    };
    let mut world = World::new(settings, vec![("a".into(), crate::machines::plain())]);
    world.found_and_join();
    world.run_for(Duration::from_secs(1)).unwrap();
    let alloc = AllocId::new(spec.name.clone(), 0, 1);
    let stops = |spec: &fabric::job::JobSpec| {
        let known = std::slice::from_ref(spec);
        rollouts::invariant_a_roll_out_stops_only_what_can_be_replaced(&world, &alloc, known)
    };
    assert_eq!(stops(&spec), Ok(()));
    spec.placement.constraints.push("labels.rack == \"nowhere\"".parse().unwrap());
    assert!(stops(&spec).unwrap_err().contains("no node is of the kind"));
}

/// A slot begins with epoch 1 again when its rows have left.
#[test]
fn an_identity_that_comes_back_is_found() {
    let mut machine = machine();
    let slot = SlotId { job: JobName::new("web").unwrap(), index: 0 };
    let key = Key::Alloc(slot.clone(), machine.identity);
    let of = |birth: u32, phase| AllocRow {
        epoch: 1,
        birth: Birth(birth),
        phase,
        ..AllocRow::default()
    };
    let shares = |machine: &SimNode, birth, run, earlier| {
        let alloc = of(birth, Phase::Running).of(slot.clone());
        invariant_no_two_allocations_share_an_identity(machine, 0, &alloc, run, earlier).is_err()
    };
    assert!(!shares(&machine, 7, 1, None));
    assert!(!shares(&machine, 7, 2, Some((0, 1))), "started anew in its place");
    assert!(shares(&machine, 7, 1, Some((1, 1))), "on another node");

    let coded = b"\0row".to_vec();
    let (node, value) = (machine.identity, Value::Alloc(Box::new(of(7, Phase::Ended))));
    let stamp = Stamp { reading: 1 << 40, node };
    let row = Entry { key, stamp, value, signature: None }.encode();
    // The row comes, and leaves.
    for (sequence, value) in [(1, Some(row)), (2, None)] {
        let write = Write { sequence, changes: vec![(coded.clone(), value)] };
        machine.disk.write(write, Duration::ZERO, Duration::ZERO);
        machine.disk.due(sequence);
    }
    assert_eq!((machine.disk.entries().count(), &machine.disk.wrongs[..]), (0, &[][..]));
    assert!(shares(&machine, 7, 1, None), "once more");
    assert!(!shares(&machine, 8, 1, None), "another one");
}
