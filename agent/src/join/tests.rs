use super::*;
use crate::quic::admit::enrol;
use crate::quic::attempts::FAILURES_MAX;
use crate::quic::tests::{Node, fabric, identity, impostor, localhost, start};
use crate::quic::wire::JoinRequest;
use crate::quic::{Enrolled, Incoming};
use fabric::clock::WallTime;
use fabric::stamp::Stamp;
use fabric::table::{Key, Keyring, RosterEntry, TokenEntry, TokenId, Value};
use quinn::Connection;
use std::sync::Arc;
use tokio::sync::mpsc;

const NEW_NODE: Newcomer<'_> = Newcomer { name: "new-node", level: 1 };

/// A core that knows tokens and lets in who shows one that has not expired.
struct Core {
    tokens: BTreeMap<TokenId, TokenEntry>,
    now: WallTime,
    enrolled: Vec<(NodeId, String)>,
    asked: u32,
}

impl Core {
    fn new(tokens: &[(&Token, u64)]) -> Self {
        let tokens = tokens.iter().map(|(token, expires)| {
            let labels = BTreeMap::from([("rack".to_owned(), "r1".to_owned())]);
            let secret_hash = token.secret_hash();
            let expires = WallTime(*expires);
            (token.id().clone(), TokenEntry { secret_hash, expires, labels })
        });
        Self { tokens: tokens.collect(), now: WallTime(1000), enrolled: vec![], asked: 0 }
    }

    fn enrol(&mut self, member: NodeId, incoming: Incoming) {
        let Incoming::Enrol { node, name, token, secret_hash, answer, .. } = incoming else {
            panic!("expected a joiner, got {incoming:?}")
        };
        self.asked += 1;
        let result = match self.tokens.get(&token) {
            None => Err("no such token".to_owned()),
            Some(entry) if entry.secret_hash != secret_hash => Err("wrong secret".to_owned()),
            Some(entry) if entry.expires < self.now => Err("the token has expired".to_owned()),
            Some(entry) => {
                self.enrolled.push((node, name.clone()));
                let entries = vec![roster_entry(node, &name, member), keyring_entry(member)];
                Ok(Enrolled { entries, labels: entry.labels.clone() })
            }
        };
        let _ = answer.send(result);
    }
}

fn roster_entry(node: NodeId, name: &str, by: NodeId) -> Entry {
    let value = RosterEntry { name: name.to_owned(), vouched_by: by, joined: WallTime(1000) };
    let stamp = Stamp { reading: 1, node: by };
    let (key, value) = (Key::Roster(node), Value::Roster(value));
    Entry { key, stamp, value, signature: None }
}

fn keyring_entry(by: NodeId) -> Entry {
    let keyring = Keyring { keys: BTreeMap::from([(1, [7; 32])]) };
    let stamp = Stamp { reading: 1, node: by };
    let (key, value) = (Key::Keyring, Value::Keyring(keyring));
    Entry { key, stamp, value, signature: None }
}

fn member() -> (Node, Arc<Fabric>) {
    let (identity, fabric) = (identity(), fabric());
    let roster = [identity.id()];
    (start(identity, &roster, fabric.clone()), fabric)
}

/// Runs `join` beside a member whose core answers.
async fn join_beside(
    node: &mut Node,
    core: &mut Core,
    joiner: &Identity,
    token: &Token,
    addresses: &[SocketAddr],
) -> Result<Admission, JoinError> {
    let member = node.id();
    let mut joining = std::pin::pin!(join(joiner, token, NEW_NODE, addresses));
    loop {
        tokio::select! {
            result = &mut joining => return result,
            Some(incoming) = node.incoming.recv() => core.enrol(member, incoming),
        }
    }
}

#[tokio::test]
async fn a_token_lets_a_stranger_in_and_then_it_is_heard() {
    let (mut node, fabric) = member();
    let token = Token::generate(&fabric.key()).expect("random numbers");
    let mut core = Core::new(&[(&token, 2000)]);
    let joiner = identity();
    // Nobody listens at the first address, another fabric at the second.
    let (other, _) = member();
    let addresses = [localhost(1), other.address, node.address];
    let admission = join_beside(&mut node, &mut core, &joiner, &token, &addresses).await;
    let admission = admission.expect("let in");
    assert_eq!(core.enrolled, [(joiner.id(), "new-node".to_owned())]);
    assert_eq!(admission.fabric.key(), fabric.key());
    assert_eq!(admission.fabric.name(), "test");
    assert_eq!(admission.fabric.pkcs8(), fabric.pkcs8());
    assert_eq!((admission.by, admission.address), (node.id(), node.address));
    assert_eq!(admission.labels["rack"], "r1");
    let wanted = [roster_entry(joiner.id(), "new-node", node.id()), keyring_entry(node.id())];
    assert_eq!(admission.entries, wanted);

    let roster = [joiner.id(), node.id()];
    node.transport.trust(roster.into(), Default::default());
    let joined = start(joiner, &roster, Arc::new(admission.fabric));
    let message = fabric::message::Message::Held { ticket: 1 };
    joined.transport.send(node.id(), &[node.address], &message);
    let heard = timeout(Duration::from_secs(30), node.incoming.recv()).await;
    assert!(matches!(heard, Ok(Some(Incoming::Message { from, .. })) if from == joined.id()));
}

#[tokio::test]
async fn another_fabric_does_not_get_to_see_the_secret() {
    let (mut node, _) = member();
    let elsewhere = Fabric::found("elsewhere").expect("random numbers");
    let token = Token::generate(&elsewhere.key()).expect("random numbers");
    let error =
        join(&identity(), &token, NEW_NODE, &[node.address]).await.expect_err("wrong fabric");
    assert!(matches!(error, JoinError::WrongFabric(address) if address == node.address));
    assert!(node.incoming.try_recv().is_err(), "the member was asked");
}

/// Greets, proves what it can, and returns whatever the joiner says after that.
async fn pose(
    identity: Identity,
    proof: impl AsyncFnOnce(&Connection) -> Answer,
) -> (SocketAddr, impl Future<Output = Vec<u8>>) {
    let (endpoint, address) = impostor(&identity);
    let said = async move {
        let connection = endpoint.accept().await.expect("open").await.expect("connected");
        let (mut send, mut receive) = connection.accept_bi().await.expect("a greeting");
        let greeting: Greeting =
            wire::read_frame(&mut receive, wire::FRAME_BYTES_MAX).await.expect("a greeting");
        assert_eq!(greeting, Greeting::Join);
        let proof = proof(&connection).await;
        wire::write_frame(&mut send, &proof).await.expect("sent");
        let mut said = Vec::new();
        while let Ok(Some(chunk)) = receive.read_chunk(1 << 16, true).await {
            said.extend_from_slice(&chunk.bytes);
        }
        said
    };
    (address, said)
}

fn halves(signature: [u8; 64]) -> [[u8; 32]; 2] {
    let (first, second) = signature.split_at(32);
    [first.try_into().expect("32"), second.try_into().expect("32")]
}

#[tokio::test]
async fn who_only_knows_the_public_key_does_not_get_to_see_the_secret() {
    let fabric = Fabric::found("true").expect("random numbers");
    let token = Token::generate(&fabric.key()).expect("random numbers");
    let own = Fabric::found("own").expect("random numbers");
    let claimed = fabric.key();
    let (address, said) = pose(identity(), async move |connection: &Connection| {
        let signature = own.sign(&signed(connection).expect("exported"));
        Answer::Proof { fabric: claimed, signature: halves(signature) }
    })
    .await;
    let (joiner, addresses) = (identity(), [address]);
    let (result, said) = tokio::join!(join(&joiner, &token, NEW_NODE, &addresses), said);
    assert!(matches!(result, Err(JoinError::WrongFabric(_))), "{result:?}");
    assert_eq!(said, b"");
}

#[tokio::test]
async fn a_borrowed_signature_does_not_open_a_connection_in_the_middle() {
    let (node, fabric) = member();
    let token = Token::generate(&fabric.key()).expect("random numbers");
    let true_member = node.address;
    let (address, said) = pose(identity(), async move |_: &Connection| {
        // Has the true member sign, over its own connection to it.
        let (endpoint, client) = client_endpoint(&identity(), localhost(0)).expect("an endpoint");
        let dialled = dial_anybody(&endpoint, &client, true_member, Greeting::Join).await;
        let (_connection, _send, mut receive) = dialled.expect("connected");
        wire::read_frame(&mut receive, wire::FRAME_BYTES_MAX).await.expect("a proof")
    })
    .await;
    let (joiner, addresses) = (identity(), [address]);
    let (result, said) = tokio::join!(join(&joiner, &token, NEW_NODE, &addresses), said);
    assert!(matches!(result, Err(JoinError::WrongFabric(_))), "{result:?}");
    assert_eq!(said, b"");
}

#[tokio::test]
async fn the_secret_is_seen_by_who_proves_the_fabric() {
    // The same impostor with the true key: shows that the tests above would have seen the secret.
    let fabric = Fabric::found("true").expect("random numbers");
    let token = Token::generate(&fabric.key()).expect("random numbers");
    let key = fabric.key();
    let (address, said) = pose(identity(), async move |connection: &Connection| {
        let signature = fabric.sign(&signed(connection).expect("exported"));
        Answer::Proof { fabric: key, signature: halves(signature) }
    })
    .await;
    let (joiner, addresses) = (identity(), [address]);
    let (result, said) = tokio::join!(join(&joiner, &token, NEW_NODE, &addresses), said);
    assert!(matches!(result, Err(JoinError::Unreachable(_))), "{result:?}");
    assert!(said.windows(token.secret().len()).any(|part| part == token.secret()));
}

#[tokio::test]
async fn wrong_and_expired_tokens_are_refused_with_the_members_reason() {
    let (mut node, fabric) = member();
    let good = Token::generate(&fabric.key()).expect("random numbers");
    let expired = Token::generate(&fabric.key()).expect("random numbers");
    let unknown = Token::generate(&fabric.key()).expect("random numbers");
    let mut core = Core::new(&[(&good, 2000), (&expired, 500)]);
    // A token with the right name and another secret.
    core.tokens.insert(unknown.id().clone(), core.tokens[good.id()].clone());
    let never = Token::generate(&fabric.key()).expect("random numbers");
    for (token, wanted) in
        [(&expired, "the token has expired"), (&unknown, "wrong secret"), (&never, "no such token")]
    {
        let joiner = identity();
        let addresses = [node.address];
        let error = join_beside(&mut node, &mut core, &joiner, token, &addresses).await;
        match error.expect_err("refused") {
            JoinError::Refused { reason, .. } => assert_eq!(reason, wanted),
            other => panic!("{other:?}"),
        }
    }
    assert!(core.enrolled.is_empty());
    assert_eq!(node.transport.counters().refused, 3);
}

#[tokio::test]
async fn guessing_is_stopped_without_asking_the_core() {
    let (mut node, fabric) = member();
    let token = Token::generate(&fabric.key()).expect("random numbers");
    let mut core = Core::new(&[]);
    let addresses = [node.address];
    let joiner = identity();
    let mut last = None;
    for _ in 0..FAILURES_MAX + 3 {
        last = join_beside(&mut node, &mut core, &joiner, &token, &addresses).await.err();
    }
    assert_eq!(core.asked, FAILURES_MAX);
    let last = last.expect("refused").to_string();
    assert!(last.contains("wait a minute"), "{last}");
}

#[tokio::test]
async fn who_shows_nothing_has_failed_like_one_who_guesses() {
    let (node, fabric) = member();
    for failed in 1..=u64::from(FAILURES_MAX) {
        let (endpoint, client) = client_endpoint(&identity(), localhost(0)).expect("an endpoint");
        let dialled = dial_anybody(&endpoint, &client, node.address, Greeting::Join).await;
        let (connection, _send, mut receive) = dialled.expect("connected");
        let proof = wire::read_frame(&mut receive, wire::FRAME_BYTES_MAX).await;
        assert!(matches!(proof, Ok(Answer::Proof { .. })));
        connection.close(Close::Done.code(), b"");
        let noticed = async {
            while node.transport.counters().refused < failed {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        timeout(Duration::from_secs(30), noticed).await.expect("it is noticed");
    }
    let token = Token::generate(&fabric.key()).expect("random numbers");
    let refused = join(&identity(), &token, NEW_NODE, &[node.address]).await.expect_err("refused");
    assert!(refused.to_string().contains("wait a minute"), "{refused}");
}

#[tokio::test]
async fn nobody_to_ask_and_nobody_there_are_told_apart() {
    let fabric = Fabric::found("x").expect("random numbers");
    let token = Token::generate(&fabric.key()).expect("random numbers");
    let error = join(&identity(), &token, NEW_NODE, &[]).await.expect_err("nobody");
    assert!(matches!(error, JoinError::NobodyFound));
    let error = join(&identity(), &token, NEW_NODE, &[localhost(1)]).await.expect_err("nobody");
    assert!(matches!(error, JoinError::Unreachable(_)));
    assert!(error.to_string().contains("127.0.0.1:1"), "{error}");
}

#[tokio::test]
async fn unreasonable_names_and_tokens_do_not_reach_the_core() {
    let (incoming, mut core) = mpsc::channel(1);
    let node = NodeId([1; 32]);
    let fine = JoinRequest { token: "t".into(), secret: vec![1], name: "n".into(), level: 1 };
    let bad = [
        JoinRequest { name: String::new(), ..fine.clone() },
        JoinRequest { name: "x".repeat(300), ..fine.clone() },
        JoinRequest { name: "a\u{1b}[2Jb".into(), ..fine.clone() },
        JoinRequest { token: "t".repeat(100), ..fine.clone() },
        JoinRequest { secret: vec![0; 100], ..fine.clone() },
    ];
    for request in bad {
        assert!(enrol(&incoming, node, request).await.is_err());
    }
    assert!(core.try_recv().is_err());
    drop(core);
    let error = enrol(&incoming, node, fine).await.expect_err("nobody decides");
    assert!(error.contains("ask another"), "{error}");
}
