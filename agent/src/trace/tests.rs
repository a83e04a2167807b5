use super::*;
use std::time::Duration;

#[test]
fn traces_share_the_room_there_is_and_give_it_back() {
    let room = Arc::new(Room::default());
    let job = |name: &str| JobName::new(name).unwrap();
    let of = |name: &str| {
        Some((TraceWhat::Profile, job(name), BootTime::now() + Duration::from_secs(30)))
    };
    let most = TRACES_BYTES_MAX - 1;
    let first = room.take(most, of("web")).expect("there is room");
    let problem = room.take(2, of("db")).expect_err("there is none");
    assert_eq!(problem.kind, ProblemKind::Conflict);
    assert!(problem.detail.contains("profile of web for"), "{problem}");
    let second = room.take(1, None).expect("for a little one");
    drop(first);
    let third = room.take(most, of("db")).expect("there is room again");
    assert_ne!(second.number, third.number);
    drop((second, third));
    assert!(room.lock().is_empty());
}

#[test]
fn every_kind_fits_alone() {
    for what in ebpf::trace::What::ALL {
        assert!(what.bytes() <= TRACES_BYTES_MAX);
    }
}
