use super::*;

const NODE: &str = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";

#[test]
fn the_machine_and_the_id_make_the_instance() {
    assert_eq!(instance("board1", NODE), "board1-0011223344556677");
    assert_eq!(instance("Board One.example.org", NODE), "board-one-0011223344556677");
    assert_eq!(instance("", NODE), "node-0011223344556677");
    assert_eq!(instance("...", NODE), "node-0011223344556677");
    assert_eq!(instance("\u{fc}\u{fc}--", NODE), "node-0011223344556677");
    assert!(instance(&"x".repeat(300), NODE).len() <= 63);
    assert_eq!(host(NODE), "weft-0011223344556677.local.");
}

#[test]
fn two_nodes_of_one_machine_name_differ() {
    let other = NODE.replace("0011", "1100");
    assert_ne!(instance("board", NODE), instance("board", &other));
    assert_ne!(host(NODE), host(&other));
}
