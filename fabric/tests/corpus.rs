//! The fuzzers' corpus, and thousands of mutations of it, in every test run.

#[path = "../../fuzz/replay.rs"]
mod replay;

use replay::replay;

/// Mutations of each file in the corpus.
const MUTATIONS: usize = 400;

#[test]
fn datagrams() {
    replay("datagram", MUTATIONS, fabric::fuzzing::datagram);
}

#[test]
fn messages() {
    replay("message", MUTATIONS, fabric::fuzzing::message);
}

#[test]
fn entries() {
    replay("entry", MUTATIONS, fabric::fuzzing::entry);
}

#[test]
fn job_files() {
    replay("job_file", MUTATIONS, fabric::fuzzing::job_file);
}

#[test]
fn a_node_that_is_told_anything() {
    replay("node", MUTATIONS, fabric::fuzzing::node);
}

#[test]
fn a_node_that_starts_with_any_rows() {
    replay("node_start", MUTATIONS, fabric::fuzzing::node_start);
}
