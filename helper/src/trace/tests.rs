use super::*;

#[test]
fn every_kind_has_its_program() {
    assert_eq!(KINDS.map(what), What::ALL);
}

/// With or without the kernel's leave: each kind is tried, what cannot be made says why, and nothing stays behind.
#[test]
fn every_kind_is_tried_and_none_of_them_stays() {
    for _ in 0..2 {
        let tried = attempt();
        // Had one of them stayed, there would be no room for the last.
        assert_eq!(tried.iter().map(|(kind, _)| *kind).collect::<Vec<_>>(), KINDS);
        for (kind, outcome) in tried {
            match outcome {
                Ok(()) => println!("{}: can be made", kind.name()),
                Err(reason) => {
                    println!("{}: {reason}", kind.name());
                    assert!(!reason.is_empty() && !reason.contains("other traces"), "{reason}");
                    assert!(std::env::var("WEFT_MUST").as_deref() != Ok("ebpf"), "{reason}");
                }
            }
        }
    }
}

#[test]
fn the_largest_stacks_are_kept_and_the_others_counted() {
    let (kept, rest) = largest(vec![("a".into(), 1), ("b".into(), 3), ("c".into(), 2)]);
    assert_eq!((kept, rest), (vec![("b".into(), 3), ("c".into(), 2), ("a".into(), 1)], 0));
    let many = (0..STACKS_MAX as u64 + 5).map(|count| (format!("s{count}"), count));
    let (kept, rest) = largest(many.collect());
    assert_eq!((kept.len(), rest), (STACKS_MAX, 1 + 2 + 3 + 4));
    // Each byte of these is six as JSON.
    let long = (0..8).map(|count| ("\u{1}".repeat(200_000), count + 1));
    let (kept, rest) = largest(long.collect());
    let json = serde_json::to_vec(&kept).unwrap();
    assert!(json.len() <= STACKS_BYTES_MAX && json.len() <= crate::order::FRAME_BYTES_MAX);
    assert_eq!(kept.len() as u64, 5);
    assert_eq!(rest, 1 + 2 + 3);
}
