use super::*;
use crate::identity::Identity;
use fabric::clock::{Instant, Now, WallTime};
use fabric::id::NodeId;
use fabric::io::{Input, Request};
use fabric::node::{Config, Origin};
use fabric::table::TokenId;
use fabric::topology::NodeInfo;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;

const NOW: Now = Now { at: Instant::at(Duration::ZERO), wall: WallTime(1_700_000_000_000) };

/// The first one of a new fabric.
pub(in crate::driver) fn node(state: &tempfile::TempDir) -> Node {
    let identity = Arc::new(Identity::load_or_create(state.path()).unwrap());
    let config = Config {
        id: identity.id(),
        info: NodeInfo { name: "n1".into(), ..NodeInfo::default() },
        fabric: NodeId([9; 32]),
        fabric_name: "readers".into(),
        signer: identity,
        generation: 1,
        seed: 1,
        canary: None,
        level: fabric::level::LEVEL,
        bounds: fabric::table::Bounds::default(),
    };
    Node::new(NOW, config, Origin::Founded { gossip_key: [7; 32] })
}

fn add_token(node: &mut Node, id: &str) {
    let request = Request::AddToken {
        id: TokenId(id.into()),
        secret_hash: [3; 32],
        lifetime: Duration::from_secs(60),
        labels: BTreeMap::new(),
    };
    node.handle(NOW, Input::Request { id: 1, request });
}

/// Which copy was read, and how many tokens it knows.
fn looks() -> Read {
    Box::new(|node| Reply::json(&(std::ptr::from_ref(node) as usize, node.tokens(NOW).len())))
}

async fn answer(answer: oneshot::Receiver<Result<Reply, Problem>>) -> (usize, usize) {
    match answer.await.unwrap() {
        Ok(Reply::Json(json)) => serde_json::from_slice(&json).unwrap(),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn ten_who_ask_at_once_cost_two_copies_and_see_what_was_done_before() {
    let state = tempfile::tempdir().unwrap();
    let mut node = node(&state);
    let (mut readers, mut done) = Readers::new();
    let (go, wait) = std::sync::mpsc::channel();
    let (first, first_told) = oneshot::channel();
    let slow = Box::new(move |node: &Node| {
        wait.recv().unwrap();
        looks()(node)
    });
    readers.ask(&node, slow, first);
    let mut others = Vec::new();
    for index in 0..9 {
        // The loop goes on while somebody reads.
        add_token(&mut node, &format!("t{index}"));
        let (other, told) = oneshot::channel();
        readers.ask(&node, looks(), other);
        others.push(told);
    }
    go.send(()).unwrap();
    assert_eq!(answer(first_told).await.1, 0, "it asked before");
    done.recv().await.unwrap();
    let (mut copies, own) = (Vec::new(), std::ptr::from_ref(&node) as usize);
    readers.go_on(&node);
    for told in others {
        let (copy, tokens) = answer(told).await;
        assert_eq!(tokens, 9, "all were there when it was copied");
        copies.push(copy);
    }
    copies.dedup();
    assert_eq!(copies.len(), 1, "they share it");
    assert_ne!(copies[0], own, "it is a copy");
    done.recv().await.unwrap();
    readers.go_on(&node);
    assert!(done.try_recv().is_err(), "nobody waits");
}

#[tokio::test]
async fn one_that_fails_keeps_nobody_waiting() {
    let state = tempfile::tempdir().unwrap();
    let node = node(&state);
    let (mut readers, mut done) = Readers::new();
    let (lost, told) = oneshot::channel();
    readers.ask(&node, Box::new(|_| panic!("a fault of the agent")), lost);
    let (next, next_told) = oneshot::channel();
    readers.ask(&node, looks(), next);
    assert!(told.await.is_err());
    done.recv().await.unwrap();
    readers.go_on(&node);
    assert_eq!(answer(next_told).await.1, 0);
}
