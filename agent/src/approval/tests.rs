use super::*;
use crate::quic::listen;
use crate::quic::tests::{fabric, identity, localhost, start};
use crate::quic::wire::Standing;
use crate::seal::Start;
use std::net::{Ipv4Addr, UdpSocket};

const PATIENCE: Duration = Duration::from_secs(30);

fn token() -> Token {
    Token::generate(&NodeId([7; 32])).expect("random numbers")
}

/// A waiting node: its key, its address, its door and what comes through it.
struct Waiting {
    id: NodeId,
    address: SocketAddr,
    _door: Door,
    invited: mpsc::Receiver<Invited>,
}

fn waiting() -> Waiting {
    let identity = identity();
    let sockets = crate::quic::Sockets::bind(localhost(0)).expect("free ports");
    let endpoint = listen(&identity, sockets.streams).expect("an endpoint");
    let (sender, invited) = mpsc::channel(1);
    let (id, address) = (identity.id(), sockets.address);
    Waiting { id, address, _door: Door::open(endpoint, sender), invited }
}

fn from_here() -> (SocketAddr, u16) {
    (localhost(0), 7400)
}

#[tokio::test]
async fn an_invitation_reaches_the_loop_and_its_outcome_comes_back() {
    let mut node = waiting();
    let (member, shown) = (identity(), token());
    // Nobody listens at the first address.
    let addresses = [localhost(1), node.address];
    for outcome in [Err("its disk is full".to_owned()), Ok(())] {
        let inviting = invite(&member, node.id, &addresses, &shown, from_here());
        let answering = async {
            let invited = node.invited.recv().await.expect("an invitation");
            assert_eq!(invited.by, member.id());
            assert_eq!(invited.token, shown);
            assert_eq!(invited.address, localhost(7400), "the member's gossip");
            invited.answer.send(outcome.clone()).expect("somebody waits");
        };
        let (result, ()) =
            timeout(PATIENCE, async { tokio::join!(inviting, answering) }).await.expect("in time");
        match (result, outcome) {
            (Ok(address), Ok(())) => assert_eq!(address, node.address),
            (Err(InviteError::Refused(reason)), Err(wanted)) => assert_eq!(reason, wanted),
            (result, outcome) => panic!("{result:?} instead of {outcome:?}"),
        }
    }
}

#[tokio::test]
async fn whoever_does_not_hold_the_announced_key_hears_nothing() {
    let mut impostor = waiting();
    let announced = identity().id();
    let result = invite(&identity(), announced, &[impostor.address], &token(), from_here()).await;
    let Err(InviteError::AnotherKey { found, .. }) = &result else { panic!("{result:?}") };
    assert_eq!(*found, fingerprint(&impostor.id));
    assert!(impostor.invited.try_recv().is_err(), "the impostor was invited");
}

#[tokio::test]
async fn where_nobody_waits_nobody_answers() {
    // Bound, and nobody reads: as with a node that takes no invitations.
    let silent = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let mut address = silent.local_addr().expect("its address");
    address.set_port(address.port() - 1);
    let result = invite(&identity(), identity().id(), &[address], &token(), from_here()).await;
    let error = result.expect_err("nobody answers").to_string();
    assert!(error.contains("approval = true"), "{error}");
    let result = invite(&identity(), identity().id(), &[], &token(), from_here()).await;
    assert!(result.expect_err("no address").to_string().contains("no address is known"));
}

#[tokio::test]
async fn a_member_takes_no_invitation() {
    let member = start(identity(), &[], fabric());
    let result = invite(&identity(), member.id(), &[member.address], &token(), from_here()).await;
    let Err(InviteError::Refused(reason)) = &result else { panic!("{result:?}") };
    assert_eq!(reason, "this node belongs to a fabric already");
}

const START: Start = Start { generation: 1, salt: [0; 8] };

/// Greets, sends these bytes as a frame, and returns what comes back.
async fn say(node: &Waiting, greeting: Greeting, frame: &[u8]) -> anyhow::Result<InvitationAnswer> {
    let (endpoint, client) = client_endpoint(&identity(), localhost(0))?;
    let connection = connect_anybody(&endpoint, &client, node.address).await?;
    let (mut send, mut receive) = greet(&connection, greeting).await?;
    match wire::read_frame(&mut receive, wire::FRAME_BYTES_MAX).await? {
        Answer::Welcome => {}
        Answer::Refused(reason) => anyhow::bail!("refused: {reason}"),
        other => anyhow::bail!("{other:?}"),
    }
    send.write_all(&(frame.len() as u32).to_be_bytes()).await?;
    send.write_all(frame).await?;
    Ok(wire::read_frame(&mut receive, wire::FRAME_BYTES_MAX).await?)
}

#[tokio::test]
async fn what_strangers_send_never_reaches_the_loop_and_is_limited() {
    let mut node = waiting();
    let bad = |token: String, port: u16| wire::encode(&Invitation { token, port });
    let good = token().to_string();
    let rows: [(Greeting, Vec<u8>, &str); 8] = [
        (Greeting::Join, vec![], "waits to be approved"),
        (Greeting::Member(Standing { start: START, heard: None }), vec![], "waits to be approved"),
        (Greeting::Invite, bad("weft1.what".into(), 7400), "not a weft token"),
        (Greeting::Invite, bad(good[..60].into(), 7400), "characters"),
        (Greeting::Invite, bad(good.clone(), 0), "no port"),
        (Greeting::Invite, bad(good.clone(), 65535), "no port"),
        // Too long, and no postcard: it hangs up.
        (Greeting::Invite, vec![1; INVITATION_BYTES_MAX + 1], ""),
        (Greeting::Invite, vec![1, 0xff, 0xff, 0xff], ""),
    ];
    for (greeting, frame, wanted) in rows {
        let said = timeout(PATIENCE, say(&node, greeting, &frame)).await.expect("in time");
        let text = match said {
            Ok(InvitationAnswer::Refused(reason)) => reason,
            Ok(InvitationAnswer::Joined) => panic!("joined with {frame:?}"),
            Err(error) => format!("{error:#}"),
        };
        assert!(text.contains(wanted), "{greeting:?} {frame:?}: {text} instead of {wanted}");
    }
    // Six failures so far; after ten, nobody from there is listened to.
    let mut throttled = false;
    for _ in 0..8 {
        let said = say(&node, Greeting::Invite, &bad("x".into(), 1)).await;
        throttled |= said.is_err_and(|error| error.to_string().contains("wait a minute"));
    }
    assert!(throttled);
    assert!(node.invited.try_recv().is_err(), "the loop was told");
}

#[tokio::test]
async fn an_invitation_is_for_one_node_once_and_for_a_while() {
    let at = |seconds: u64| Instant::at(Duration::from_secs(seconds));
    let (node, other) = (NodeId([1; 32]), NodeId([2; 32]));
    let (shown, never) = (token(), token());
    let pending = || tokio::spawn(std::future::pending::<()>());
    let mut given = Invitations::default();
    given.room_for(at(0), &node).expect("room");
    given.give(at(0), node, &shown, pending());
    assert!(given.room_for(at(0), &node).expect_err("twice").contains("already"));
    given.room_for(at(0), &other).expect("room for another");

    let (id, hash) = (shown.id(), shown.secret_hash());
    assert!(!given.redeem(at(1), &other, id, &hash), "another node");
    assert!(!given.redeem(at(1), &node, id, &never.secret_hash()), "another secret");
    assert!(!given.redeem(at(1), &node, never.id(), &hash), "another token");
    assert!(given.redeem(at(1), &node, id, &hash));
    assert!(!given.redeem(at(1), &node, id, &hash), "a second time");

    given.give(at(10), node, &shown, pending());
    assert!(!given.redeem(at(10 + INVITATION_LIFETIME.as_secs()), &node, id, &hash), "too late");
    // One that could not be handed over makes room.
    let over = tokio::spawn(async {});
    while !over.is_finished() {
        tokio::task::yield_now().await;
    }
    given.give(at(10), node, &shown, over);
    given.room_for(at(10), &node).expect("room again");
    for index in 0..INVITATIONS_MAX {
        let node = NodeId([index as u8 + 10; 32]);
        given.room_for(at(20), &node).expect("room");
        given.give(at(20), node, &token(), pending());
    }
    assert!(given.room_for(at(20), &other).is_err(), "bounded");
}
