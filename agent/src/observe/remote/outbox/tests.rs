use super::*;
use proptest::prelude::*;

fn batch(bytes: usize, samples: u64) -> Batch {
    Batch { body: vec![samples as u8; bytes], samples }
}

fn at(seconds: u64) -> BootTime {
    BootTime::after_boot(Duration::from_secs(seconds))
}

fn failed() -> Outcome {
    Outcome::Failed { reason: "503".into(), pause: None }
}

/// The first byte of what is to be sent.
fn sends(outbox: &mut Outbox, now: BootTime) -> Option<u8> {
    match outbox.step(now) {
        Step::Send(body) => Some(body[0]),
        _ => None,
    }
}

#[test]
fn messages_leave_in_order_and_are_counted() {
    let mut outbox = Outbox::default();
    assert_eq!(outbox.step(at(0)), Step::Wait(None));
    outbox.push(batch(10, 1));
    outbox.push(batch(10, 2));
    outbox.push(batch(10, 3));
    assert_eq!(sends(&mut outbox, at(0)), Some(1));
    outbox.settle(at(0), Outcome::Taken);
    assert_eq!(sends(&mut outbox, at(0)), Some(2));
    outbox.settle(at(0), Outcome::Refused("400".into()));
    let books = outbox.books();
    assert_eq!((books.sent, books.failed, books.waiting), (1, 2, 3));
    assert_eq!(books.trouble, Some(Trouble { reason: "400".into(), again: false }));
    assert_eq!(sends(&mut outbox, at(0)), Some(3), "a refusal is no reason to wait");
    outbox.settle(at(0), Outcome::Taken);
    assert_eq!(outbox.books(), Books { sent: 4, failed: 2, ..Books::default() });
    outbox.close();
    assert_eq!(outbox.step(at(0)), Step::End);
}

#[test]
fn a_failure_is_tried_again_ever_more_slowly() {
    let mut outbox = Outbox::default();
    outbox.push(batch(10, 1));
    let mut now = 0;
    for pause in [1, 2, 4, 8, 16, 32, 60, 60] {
        assert_eq!(sends(&mut outbox, at(now)), Some(1));
        outbox.settle(at(now), failed());
        assert_eq!(outbox.step(at(now)), Step::Wait(Some(Duration::from_secs(pause))));
        now += pause;
    }
    // A receiver says when it wants to be asked again, within reason.
    for (asked, pause) in [(0, 60), (1_000_000, 60)] {
        assert_eq!(sends(&mut outbox, at(now)), Some(1));
        let asked = Some(Duration::from_secs(asked));
        outbox.settle(at(now), Outcome::Failed { reason: "429".into(), pause: asked });
        assert_eq!(outbox.step(at(now)), Step::Wait(Some(Duration::from_secs(pause))));
        now += pause;
    }
    let books = outbox.books();
    assert_eq!(books.retries, 10);
    assert_eq!(books.trouble, Some(Trouble { reason: "429".into(), again: true }));
    assert_eq!(sends(&mut outbox, at(now)), Some(1));
    outbox.settle(at(now), Outcome::Taken);
    outbox.push(batch(10, 2));
    assert_eq!(sends(&mut outbox, at(now)), Some(2), "all is well again");
    outbox.settle(
        at(now),
        Outcome::Failed { reason: "429".into(), pause: Some(at(20).since_boot()) },
    );
    assert_eq!(outbox.step(at(now)), Step::Wait(Some(Duration::from_secs(20))));
}

#[test]
fn the_oldest_gives_way_but_not_what_is_on_its_way() {
    let mut outbox = Outbox::default();
    for number in 1..=4 {
        outbox.push(batch(WAITING_BYTES_MAX / 4, number));
    }
    assert_eq!(sends(&mut outbox, at(0)), Some(1));
    outbox.push(batch(1, 5));
    assert_eq!(outbox.books().dropped, 2);
    outbox.settle(at(0), failed());
    outbox.push(batch(WAITING_BYTES_MAX / 4, 6));
    assert_eq!(outbox.books().dropped, 3, "it failed: it is the oldest now");
    assert_eq!(sends(&mut outbox, at(1)), Some(3));
}

proptest! {
    #[test]
    fn it_is_bounded_and_loses_no_count(
        steps in prop::collection::vec((0usize..5, 0usize..200_000), 0..1_200)
    ) {
        let (mut outbox, mut came, mut number, mut before) = (Outbox::default(), 0, 0u64, None);
        let mut now = at(0);
        for (step, bytes) in steps {
            match step {
                0 | 1 => {
                    number += 1;
                    came += number;
                    outbox.push(Batch { body: number.to_le_bytes().repeat(bytes / 8 + 1), samples: number });
                }
                _ => {
                    now = now + Duration::from_secs(60);
                    if let Step::Send(body) = outbox.step(now) {
                        let sent = u64::from_le_bytes(body[..8].try_into().unwrap());
                        prop_assert!(before <= Some(sent), "{:?} before {}", before, sent);
                        before = Some(sent);
                        let refused = Outcome::Refused(String::new());
                        outbox.settle(now, [Outcome::Taken, refused, failed()][step - 2].clone());
                    }
                }
            }
            let books = outbox.books();
            prop_assert_eq!(books.waiting + books.sent + books.failed + books.dropped, came);
            prop_assert!(outbox.waiting.len() <= WAITING_MAX);
            prop_assert!(outbox.bytes <= WAITING_BYTES_MAX);
            let bytes: usize = outbox.waiting.iter().map(|(body, _)| body.len()).sum();
            prop_assert_eq!(bytes, outbox.bytes);
        }
    }
}
