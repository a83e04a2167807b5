use super::*;

#[test]
fn every_kind_has_its_program() {
    assert_eq!(KINDS.map(what), What::ALL);
}

/// With or without the kernel's leave: each kind is tried, what cannot be made says why, and nothing stays behind.
#[test]
fn every_kind_is_tried_and_none_of_them_stays() {
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let tracer = Tracer::default();
    for _ in 0..2 {
        let tried = runtime.block_on(tracer.attempt()).expect("a thread");
        // Had one of them stayed, there would be no room for the last the second time.
        assert_eq!(tried.iter().map(|(kind, _)| *kind).collect::<Vec<_>>(), KINDS);
        for (kind, outcome) in tried {
            match outcome {
                Ok(()) => println!("{}: can be made", kind.name()),
                Err(reason) => {
                    println!("{}: {reason}", kind.name());
                    assert!(!reason.is_empty());
                    assert!(std::env::var("WEFT_MUST").as_deref() != Ok("ebpf"), "{reason}");
                }
            }
        }
    }
}
