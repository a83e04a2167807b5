use proptest::prelude::*;

use super::*;
use crate::alloc::Phase;

fn slot(job: &str, index: u32) -> SlotId {
    SlotId { job: JobName::new(job).unwrap(), index }
}

fn row(epoch: u64, phase: Phase) -> AllocRow {
    AllocRow { epoch, phase, ..AllocRow::default() }
}

fn millis(cpu_millis: u64) -> Amount {
    Amount { cpu_millis, allocs: 1, ..Amount::default() }
}

fn node(number: u8) -> NodeId {
    NodeId([number; 32])
}

/// Accounts of one namespace that may have `cpu_millis`, with the jobs `a` and `b` in it.
fn accounts(cpu_millis: u64) -> (Namespace, Accounts) {
    let (name, mut accounts) = (Namespace::new("team").unwrap(), Accounts::default());
    let quota = Quota { cpu_millis: Some(cpu_millis), ..Quota::default() };
    assert!(accounts.open(&name, quota));
    for job in ["a", "b"] {
        assert!(accounts.enter(&JobName::new(job).unwrap(), &name));
    }
    (name, accounts)
}

#[test]
fn a_claim_counts_every_thread_it_holds_and_every_device_by_class() {
    let topology = Topology {
        devices: vec![crate::topology::Device {
            path: "/dev/dri/card0".into(),
            class: "gpu".into(),
            ..Default::default()
        }],
        ..Topology::default()
    };
    let claim = Claim {
        cpus: "0-3".parse().unwrap(),
        memory: 7,
        disk: 9,
        devices: vec!["/dev/dri/card0".into()],
        ..Claim::default()
    };
    let amount = Amount::of(&claim, Some(&topology));
    assert_eq!((amount.cpu_millis, amount.memory, amount.disk, amount.allocs), (4000, 7, 9, 1));
    assert_eq!(amount.devices, BTreeMap::from([("gpu".into(), 1)]));
}

#[test]
fn the_first_limit_that_is_exceeded_is_named_with_its_figures() {
    let quota = Quota {
        cpu_millis: Some(8000),
        memory: Some(1 << 30),
        devices: [("gpu".to_owned(), 1)].into(),
        allocs: Some(2),
        disk: Some(10 << 30),
    };
    let said = |amount: Amount| quota.check(&amount).unwrap_err().to_string();
    assert_eq!(said(millis(8500)), "8.5 of 8 CPUs");
    assert_eq!(said(Amount { memory: 3 << 30, ..millis(1) }), "3GiB of 1GiB memory");
    assert_eq!(said(Amount { disk: 12 << 30, ..millis(1) }), "12GiB of 10GiB disk");
    assert_eq!(said(Amount { allocs: 3, ..millis(1) }), "3 of 2 allocations");
    let devices = [("gpu".to_owned(), 2)].into();
    assert_eq!(said(Amount { devices, ..millis(1) }), "2 of 1 gpu");
    assert_eq!(quota.check(&millis(8000)), Ok(()));
}

#[test]
fn a_quota_that_says_nothing_or_nonsense_is_refused() {
    assert!(Quota::default().validate().unwrap_err().contains("limits nothing"));
    let devices = [("/dev/x".to_owned(), 1)].into();
    let error = Quota { devices, ..Quota::default() }.validate().unwrap_err();
    assert!(error.contains("class of devices"), "{error}");
}

#[test]
fn a_claim_is_refused_as_soon_as_it_would_not_fit_beside_rows_and_promises() {
    let (name, mut accounts) = accounts(3000);
    accounts.put(&slot("a", 0), node(1), &row(1, Phase::Running), millis(1000), true);
    accounts.put(&slot("a", 1), node(1), &row(1, Phase::Stopping), millis(1000), true);
    accounts.put(&slot("a", 2), node(2), &row(1, Phase::Running), millis(1000), false);
    let check = |accounts: &Accounts, promised| {
        accounts.check(&name, &slot("b", 0), &[], &millis(1000), promised)
    };
    assert_eq!(check(&accounts, true), Ok(()));
    let promise = AllocId::new(slot("b", 1).job, 1, 4);
    accounts.promise(&promise, millis(1000));
    assert!(check(&accounts, true).is_err(), "what was promised counts for the coordinator");
    assert_eq!(check(&accounts, false), Ok(()), "and not for the target");
    accounts.put(&slot("b", 1), node(2), &row(4, Phase::Reserved), millis(1000), true);
    assert!(check(&accounts, false).is_err(), "the row has come");
    accounts.put(&slot("b", 1), node(2), &row(4, Phase::Ended), millis(1000), true);
    assert_eq!(check(&accounts, true), Ok(()), "and its promise is gone with it");
    accounts.set_up(node(2), true);
    assert!(check(&accounts, true).is_err(), "a node that comes back brings its claims");
}

proptest! {
    /// One more than there is room for exceeds a limit, and what there is room for does not.
    #[test]
    fn there_is_room_for_as_many_as_the_limits_let_in(
        limits in (
            prop::option::of(0..50_u64), prop::option::of(0..50_u64), prop::option::of(0..50_u64),
            prop::option::of(0..9_u32),
        ),
        gpus in prop::option::of(0..5_u32),
        each in (0..9_u64, 0..9_u64, 0..9_u64, 0..3_u32),
        used in 0..4_u32,
    ) {
        let gpu = |number: u32| (number > 0).then(|| ("gpu".to_owned(), number)).into_iter().collect();
        let (cpu_millis, memory, disk, allocs) = limits;
        let devices = gpus.map(|number| ("gpu".to_owned(), number)).into_iter().collect();
        let quota = Quota { cpu_millis, memory, devices, allocs, disk };
        let each = Amount {
            cpu_millis: each.0,
            memory: each.1,
            disk: each.2,
            devices: gpu(each.3),
            allocs: 1,
        };
        let (name, mut accounts) = accounts(0);
        accounts.open(&name, quota.clone());
        let mut sum = Amount::default();
        for index in 0..used {
            accounts.put(&slot("a", index), node(1), &row(1, Phase::Running), each.clone(), true);
            sum.add(&each);
        }
        let mut fits = 0;
        while fits < 100 && quota.check(&with(&sum, &each)).is_ok() {
            sum.add(&each);
            fits += 1;
        }
        let room = accounts.room(&name, &each).unwrap();
        prop_assert_eq!(room.min(100), fits);
        prop_assert_eq!(accounts.room(&Namespace::new("other").unwrap(), &each), None);
    }
}

#[test]
fn a_move_does_not_need_twice_the_room() {
    let (name, mut accounts) = accounts(1000);
    accounts.put(&slot("a", 0), node(1), &row(1, Phase::Running), millis(1000), true);
    let check = |slot: &SlotId, others: &[NodeId]| {
        accounts.check(&name, slot, others, &millis(1000), true).is_ok()
    };
    assert!(check(&slot("a", 0), &[node(1)]));
    assert!(!check(&slot("a", 1), &[]));
}

#[test]
fn the_least_important_and_then_the_youngest_go_and_copies_do_not_count() {
    let (name, mut accounts) = accounts(2000);
    let put = |accounts: &mut Accounts, job: &str, index, number, epoch| {
        let row = row(epoch, Phase::Running);
        accounts.put(&slot(job, index), node(number), &row, millis(1000), true);
    };
    put(&mut accounts, "a", 0, 1, 1);
    put(&mut accounts, "a", 1, 1, 3);
    put(&mut accounts, "a", 1, 2, 2);
    let priority =
        |job: &JobName| Some((JobKind::Service, if job.as_str() == "b" { 9 } else { 5 }));
    let quota = accounts.get(&name).unwrap().0.clone();
    assert_eq!(accounts.surplus(&name, &quota, priority), [], "two copies of one slot are one");
    put(&mut accounts, "b", 0, 2, 7);
    let alloc = AllocId::new(slot("a", 1).job, 1, 3);
    let surplus = accounts.surplus(&name, &quota, priority);
    assert_eq!(surplus, [Surplus { alloc, node: node(1) }]);
}

#[test]
fn a_job_that_changes_its_namespace_takes_its_claims_along() {
    let (name, mut accounts) = accounts(1000);
    accounts.put(&slot("a", 0), node(1), &row(1, Phase::Running), millis(1000), true);
    let other = Namespace::new("other").unwrap();
    assert!(!accounts.enter(&JobName::new("a").unwrap(), &other), "it has no account");
    assert_eq!(accounts.get(&name).unwrap().1, &Amount::default());
    accounts.close(&name);
    assert!(accounts.is_empty());
}

proptest! {
    /// However rows come and go, what is used is what a walk over them would find.
    #[test]
    fn what_is_used_is_the_sum_of_the_rows(
        steps in prop::collection::vec((0u32..4, 1u8..4, 0u64..4, 0usize..6, any::<bool>()), 0..60)
    ) {
        const PHASES: [Phase; 6] = [
            Phase::Pending, Phase::Reserved, Phase::Starting, Phase::Running, Phase::Stopping,
            Phase::Ended,
        ];
        let (name, mut accounts) = accounts(1);
        let (mut rows, mut down) = (BTreeMap::new(), BTreeSet::new());
        for (index, number, epoch, phase, up) in steps {
            if epoch == 0 {
                accounts.set_up(node(number), up);
                if up { down.remove(&number); } else { down.insert(number); }
                continue;
            }
            let amount = millis(epoch * 10 + u64::from(number));
            let is_up = !down.contains(&number);
            let row = row(epoch, PHASES[phase]);
            accounts.put(&slot("a", index), node(number), &row, amount.clone(), is_up);
            rows.insert((index, number), (PHASES[phase].holds_claim(), amount));
        }
        let mut sum = Amount::default();
        for ((_, number), (held, amount)) in &rows {
            if *held && !down.contains(number) {
                sum.add(amount);
            }
        }
        prop_assert_eq!(accounts.get(&name).unwrap().1, &sum);
    }
}
