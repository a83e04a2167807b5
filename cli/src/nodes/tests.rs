use fabric::id::NodeId;
use fabric::topology::NodeInfo;

use super::*;

fn node(first: u8, name: &str, host: &str) -> NodeView {
    let mut id = [0x11; 32];
    id[0] = first;
    NodeView {
        id: NodeId(id),
        name: name.into(),
        state: NodeState::Alive,
        local: false,
        info: Some(NodeInfo { name: host.into(), ..NodeInfo::default() }),
        free: Default::default(),
        allocs: Vec::new(),
    }
}

#[test]
fn a_node_is_found_by_name_host_name_or_the_first_digits_of_its_id() {
    let nodes = [
        node(0xab, "rack1", "rack1"),
        node(0xcd, "rack2-cd111111", "rack2"),
        node(0xce, "rack2-ce111111", "rack2"),
        node(0xef, "cd11", "cd11"),
    ];
    for (wanted, found) in [
        ("rack1", 0),
        ("rack2-ce111111", 2),
        ("ab11", 0),
        ("AB11", 0),
        ("ce1111", 2),
        ("cd11", 3),
        (&nodes[1].id.to_string(), 1),
    ] {
        assert_eq!(position(&nodes, wanted).ok(), Some(found), "{wanted}");
    }
    for (wanted, exit, said) in [
        (
            "rack2",
            Exit::Usage,
            "\"rack2\" may be rack2-cd111111 (cd111111) or rack2-ce111111 (ce111111): use the first digits of an id",
        ),
        ("rcak1", Exit::NotFound, "there is no node \"rcak1\": did you mean rack1?"),
        ("ab1", Exit::NotFound, "there is no node \"ab1\": weft nodes lists them"),
        ("", Exit::NotFound, "there is no node \"\": weft nodes lists them"),
    ] {
        match position(&nodes, wanted) {
            Err(Failure::Said(code, message)) => assert_eq!((code, message.as_str()), (exit, said)),
            other => panic!("{wanted}: {other:?}"),
        }
    }
}
