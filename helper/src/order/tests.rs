use super::*;
use proptest::prelude::*;

fn decoded(bytes: &[u8]) -> Result<Frame, Problem> {
    let head: [u8; HEAD_BYTES] = bytes[..HEAD_BYTES].try_into().expect("a head");
    let length = Frame::length(head)?;
    assert_eq!(length, bytes.len() - HEAD_BYTES);
    Frame::decode(head[0], bytes[HEAD_BYTES..].to_vec())
}

#[test]
fn frames_and_orders_come_out_as_they_went_in() {
    let problem = Problem::new(ProblemKind::Conflict, "no room", "later");
    for frame in [Frame::Piece(b"{}".to_vec()), Frame::End, Frame::Refused(problem)] {
        assert_eq!(decoded(&frame.encode()).unwrap(), frame);
    }
    let subject = Subject {
        node: "ash".into(),
        what: TraceWhat::OffCpu,
        time: Duration::from_millis(1500),
        cgroups: BTreeMap::from([(u64::MAX, "web/0".into())]),
    };
    for verb in [Verb::Trace(subject), Verb::TryTraces, Verb::Hardware] {
        let order = Order::new(verb);
        let bytes = order.encode();
        assert_eq!(bytes[0], ORDER);
        assert_eq!(Order::decode(&bytes[HEAD_BYTES..]).unwrap(), order);
    }
}

#[test]
fn an_order_of_another_level_is_refused_whatever_it_says() {
    let body = br#"{"level":2,"verb":{"paint":{"colour":"red"}}}"#;
    let problem = Order::decode(body).expect_err("of another level");
    assert!(problem.to_string().contains("restart weftd"), "{problem}");
    let problem = Order::decode(b"[").expect_err("no order");
    assert_eq!(problem.kind, ProblemKind::Internal);
}

#[test]
fn a_frame_that_is_too_long_or_of_no_kind_is_refused_by_its_head() {
    let length = u32::try_from(FRAME_BYTES_MAX + 1).unwrap().to_le_bytes();
    let head = |kind: u8, length: [u8; 4]| [kind, length[0], length[1], length[2], length[3]];
    Frame::length(head(b'p', length)).expect_err("too long");
    Frame::length(head(b'x', [0; 4])).expect_err("no kind");
    assert_eq!(Frame::length(head(b'p', [1, 2, 0, 0])).unwrap(), 513);
}

proptest! {
    #[test]
    fn no_bytes_are_too_strange(kind: u8, body in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = Frame::decode(kind, body.clone());
        let _ = Order::decode(&body);
    }
}
