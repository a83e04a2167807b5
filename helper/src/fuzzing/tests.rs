use super::*;

#[path = "../../../fuzz/replay.rs"]
mod replay;

use replay::replay;

/// Mutations of each file in the corpus.
const MUTATIONS: usize = 400;

#[test]
fn signatures_of_updates() {
    replay("update_signature", MUTATIONS, update_signature);
}

#[test]
fn orders_and_answers() {
    replay("helper", MUTATIONS, helper);
}
