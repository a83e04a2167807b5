use super::*;
use fabric::table::Key;
use std::net::Ipv4Addr;
use tokio::net::UdpSocket;
use tokio::time::{sleep, timeout};

/// Generous: the machine may be busy.
const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) struct Node {
    pub(crate) identity: Identity,
    pub(crate) transport: Transport,
    pub(crate) incoming: mpsc::Receiver<Incoming>,
    pub(crate) address: SocketAddr,
    gossip: std::net::UdpSocket,
}

impl Node {
    pub(crate) fn id(&self) -> NodeId {
        self.identity.id()
    }

    async fn message(&mut self) -> (NodeId, SocketAddr, Message) {
        match timeout(PATIENCE, self.incoming.recv()).await {
            Ok(Some(Incoming::Message { from, address, message })) => (from, address, message),
            other => panic!("expected a message, got {other:?}"),
        }
    }
}

pub(crate) fn identity() -> Identity {
    Identity::ephemeral().expect("random numbers")
}

/// An endpoint that takes any connection, and does with it as it likes: an impostor.
pub(crate) fn impostor(identity: &Identity) -> (Endpoint, SocketAddr) {
    let Sockets { streams, address, .. } = Sockets::bind(localhost(0)).expect("free ports");
    let mut server = quinn::ServerConfig::with_crypto(tls::server(identity).expect("a key"));
    let mut transport = TransportConfig::default();
    transport.max_idle_timeout(Some(IdleTimeout::try_from(IDLE).expect("in range")));
    server.transport_config(Arc::new(transport));
    let runtime = Arc::new(quinn::TokioRuntime);
    let endpoint = Endpoint::new(endpoint_config(identity), Some(server), streams, runtime);
    (endpoint.expect("an endpoint"), address)
}

pub(crate) fn localhost(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}

pub(crate) fn start(identity: Identity, roster: &[NodeId], fabric: Arc<Fabric>) -> Node {
    start_at(identity, roster, fabric, localhost(0))
}

fn start_at(identity: Identity, roster: &[NodeId], fabric: Arc<Fabric>, at: SocketAddr) -> Node {
    // As the wall clock would: each start is later than those before.
    static GENERATION: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(1);
    let generation = GENERATION.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    start_as(identity, roster, fabric, at, Start::new(generation).expect("random numbers"))
}

fn start_as(
    identity: Identity,
    roster: &[NodeId],
    fabric: Arc<Fabric>,
    at: SocketAddr,
    start: Start,
) -> Node {
    let Sockets { gossip, streams, address } = Sockets::bind(at).expect("free ports");
    let (transport, incoming) = Transport::start(Setup {
        identity: &identity,
        fabric,
        endpoint: listen(&identity, streams).expect("an endpoint"),
        roster: roster.iter().copied().collect(),
        start,
    })
    .expect("started");
    Node { identity, transport, incoming, address, gossip }
}

pub(crate) fn fabric() -> Arc<Fabric> {
    Arc::new(Fabric::found("test").expect("random numbers"))
}

/// Two members of one fabric.
fn pair() -> (Node, Node) {
    let (one, two, fabric) = (identity(), identity(), fabric());
    let roster = [one.id(), two.id()];
    (start(one, &roster, fabric.clone()), start(two, &roster, fabric))
}

fn held(ticket: u64) -> Message {
    Message::Held { ticket }
}

#[tokio::test]
async fn members_exchange_messages_over_one_connection() {
    let (mut one, mut two) = pair();
    one.transport.send(two.id(), &[two.address], &held(1));
    let (from, address, message) = two.message().await;
    assert_eq!((from, address, message), (one.id(), one.address, held(1)));
    // The answer needs no address: the connection works both ways.
    two.transport.send(one.id(), &[], &held(2));
    let (from, _, message) = one.message().await;
    assert_eq!((from, message), (two.id(), held(2)));
    for ticket in 0..200 {
        one.transport.send(two.id(), &[two.address], &held(ticket));
    }
    let mut got = BTreeSet::new();
    for _ in 0..200 {
        match two.message().await.2 {
            Message::Held { ticket } => assert!(got.insert(ticket)),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(one.transport.counters().dialled, 1);
    assert_eq!(two.transport.counters().dialled, 0);
    assert_eq!(two.transport.counters().received, 201);
}

#[tokio::test]
async fn the_largest_message_arrives_and_a_larger_one_is_not_sent() {
    let (one, mut two) = pair();
    let keys = |count: usize| Message::Buckets(vec![u64::MAX; count]);
    let most = (MESSAGE_BYTES_MAX - 8) / 10;
    one.transport.send(two.id(), &[two.address], &keys(most));
    assert_eq!(two.message().await.2, keys(most));
    one.transport.send(two.id(), &[two.address], &keys(most + 2));
    assert_eq!(one.transport.counters().undelivered, 1);
}

#[tokio::test]
async fn a_stranger_is_refused_and_gets_nothing() {
    let (mut one, two) = pair();
    let fabric = fabric();
    let stranger = identity();
    // It believes to be a member; the others do not.
    let roster = [stranger.id(), one.id()];
    let mut stranger = start(stranger, &roster, fabric);
    stranger.transport.send(one.id(), &[one.address], &held(1));
    let refused = async {
        while stranger.transport.counters().undelivered == 0 {
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(PATIENCE, refused).await.expect("refused");
    let asked = stranger.transport.request(one.id(), &[one.address], get("/v1/status")).await;
    let error = asked.expect_err("refused").to_string();
    assert!(error.contains("not in the roster"), "{error}");
    assert!(one.transport.counters().refused >= 2);
    // A member is still heard, so nothing of the stranger's came before.
    two.transport.send(one.id(), &[one.address], &held(7));
    assert_eq!(one.message().await.2, held(7));
    assert_eq!(one.transport.counters().received, 1);
    assert!(stranger.incoming.try_recv().is_err());
}

#[tokio::test]
async fn before_the_welcome_a_client_can_open_one_stream_only() {
    let (mut one, _two) = pair();
    let (endpoint, client) = client_endpoint(&identity(), localhost(0)).expect("an endpoint");
    let streams = stream_address(one.address).expect("a port");
    let connection = endpoint
        .connect_with(client, streams, &tls::server_name(Some(&one.id())))
        .expect("an address")
        .await
        .expect("TLS takes any key");
    let (mut send, _receive) = connection.open_bi().await.expect("one stream");
    // Something must be sent, or the server does not see the stream.
    send.write_all(&[0]).await.expect("sent");
    tokio::select! {
        _ = connection.open_uni() => panic!("a message before the welcome"),
        _ = connection.open_bi() => panic!("a request before the welcome"),
        _ = connection.closed() => {}
        () = sleep(Duration::from_secs(1)) => {}
    }
    assert!(one.incoming.try_recv().is_err());
}

#[tokio::test]
async fn a_server_with_another_key_is_refused() {
    let (one, mut two) = pair();
    let expected = identity().id();
    one.transport.trust([one.id(), two.id(), expected].into(), Default::default());
    one.transport.send(expected, &[two.address], &held(1));
    let refused = async {
        while one.transport.counters().dial_failures == 0 {
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(PATIENCE, refused).await.expect("refused");
    assert!(two.incoming.try_recv().is_err());
    // The next address is tried, and the right key found there.
    one.transport.send(two.id(), &[one.address, two.address], &held(2));
    assert_eq!(two.message().await.2, held(2));
}

#[tokio::test]
async fn nobody_without_our_kind_of_key_gets_past_tls() {
    let (one, _two) = pair();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    // A client of certificates, not of raw keys, and without any of its own.
    let roots = rustls::RootCertStore::empty();
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("TLS 1.3")
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"weft/1".to_vec()];
    let config = quinn::crypto::rustls::QuicClientConfig::try_from(config).expect("AES");
    let (endpoint, _) = client_endpoint(&identity(), localhost(0)).expect("an endpoint");
    let config = quinn::ClientConfig::new(Arc::new(config));
    let streams = stream_address(one.address).expect("a port");
    let connecting = endpoint.connect_with(config, streams, "x.weft").expect("an address");
    assert!(timeout(PATIENCE, connecting).await.expect("answered").is_err());
}

#[tokio::test]
async fn a_removed_member_is_cut_off_at_once() {
    let (mut one, mut two) = pair();
    one.transport.send(two.id(), &[two.address], &held(1));
    two.message().await;
    one.transport.trust([one.id()].into(), Default::default());
    let gone = async {
        while two.transport.connections() > 0 {
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(PATIENCE, gone).await.expect("closed");
    two.transport.send(one.id(), &[one.address], &held(2));
    let refused = async {
        while two.transport.counters().undelivered == 0 {
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(PATIENCE, refused).await.expect("refused");
    assert!(one.incoming.try_recv().is_err());
    one.transport.send(two.id(), &[two.address], &held(3));
    assert_eq!(one.transport.counters().undelivered, 1);
    // And back again.
    one.transport.trust([one.id(), two.id()].into(), Default::default());
    two.transport.send(one.id(), &[one.address], &held(4));
    assert_eq!(one.message().await.2, held(4));
}

#[tokio::test]
async fn a_dead_peer_holds_up_nobody_else() {
    let (one, mut two) = pair();
    let dead = identity().id();
    one.transport.trust([one.id(), two.id(), dead].into(), Default::default());
    // A socket that never answers.
    let hole = UdpSocket::bind(localhost(0)).await.expect("a port");
    let port = hole.local_addr().expect("bound").port();
    for ticket in 0..3000 {
        one.transport.send(dead, &[localhost(port - 1)], &held(ticket));
    }
    one.transport.send(two.id(), &[two.address], &held(1));
    assert_eq!(two.message().await.2, held(1));
    let counters = one.transport.counters();
    assert!(counters.overflowed >= 3000 - 1025, "{counters:?}");
    let given_up = async {
        while one.transport.counters().undelivered < 1000 {
            sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(PATIENCE, given_up).await.expect("dropped what waited");
}

#[tokio::test]
async fn a_burst_to_more_peers_than_are_kept_connected_loses_nothing() {
    let fabric = fabric();
    let identities: Vec<_> = (0..80).map(|_| identity()).collect();
    let roster: Vec<_> = identities.iter().map(Identity::id).collect();
    let start = |identity| start(identity, &roster, fabric.clone());
    let mut nodes: Vec<_> = identities.into_iter().map(start).collect();
    let one = nodes.remove(0);
    for node in &nodes {
        for ticket in 0..3 {
            one.transport.send(node.id(), &[node.address], &held(ticket));
        }
    }
    for node in &mut nodes {
        for _ in 0..3 {
            node.message().await;
        }
    }
    // Once they are quiet, one more connection lets the surplus go.
    sleep(Duration::from_secs(4)).await;
    let last = identity();
    let mut roster: BTreeSet<_> = roster.iter().copied().collect();
    roster.insert(last.id());
    one.transport.trust(roster.clone(), Default::default());
    let roster: Vec<_> = roster.into_iter().collect();
    let mut last = self::start(last, &roster, fabric.clone());
    one.transport.send(last.id(), &[last.address], &held(9));
    last.message().await;
    let fewer = async {
        while one.transport.connections() > 64 {
            sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(PATIENCE, fewer).await.expect("let go");
    // Those are found again when they are wanted.
    one.transport.send(nodes[0].id(), &[nodes[0].address], &held(10));
    assert_eq!(nodes[0].message().await.2, held(10));
}

#[tokio::test]
async fn what_waits_for_dead_peers_is_bounded_in_all() {
    let (one, mut two) = pair();
    let dead: Vec<_> = (0..40).map(|_| identity().id()).collect();
    let roster = dead.iter().copied().chain([one.id(), two.id()]);
    one.transport.trust(roster.collect(), Default::default());
    let large = Message::Buckets(vec![u64::MAX; 100_000]);
    for &peer in &dead {
        for _ in 0..6 {
            one.transport.send(peer, &[localhost(1)], &large);
        }
    }
    let waiting = one.transport.shared.peers().queued_bytes();
    assert!(waiting <= 32 << 20, "{waiting}");
    assert!(one.transport.counters().overflowed > 0);
    let given_up = async {
        while one.transport.shared.peers().queued_bytes() > 0 {
            sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(PATIENCE, given_up).await.expect("given up");
    one.transport.send(two.id(), &[two.address], &held(1));
    assert_eq!(two.message().await.2, held(1));
}

/// Runs an agent on a runtime of its own until it has heard `messages` messages; then it is gone without
/// a word, as by `kill -9`.
fn run_until_heard(
    identity: Identity,
    roster: &[NodeId],
    fabric: Arc<Fabric>,
    at: SocketAddr,
    messages: usize,
) -> (SocketAddr, std::thread::JoinHandle<()>) {
    let (bound, address) = std::sync::mpsc::channel();
    let roster = roster.to_vec();
    let work = move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.expect("a runtime").block_on(async {
            let mut node = start_at(identity, &roster, fabric, at);
            bound.send(node.address).expect("the test waits");
            for _ in 0..messages {
                node.message().await;
            }
        });
    };
    let thread = std::thread::Builder::new().spawn(work).expect("a thread");
    (address.recv().expect("started"), thread)
}

#[tokio::test]
async fn a_peer_that_was_started_anew_is_found_again_soon() {
    let (one, two, fabric) = (identity(), identity(), fabric());
    let (again, to) = (two.clone_for_tests(), two.id());
    let roster = [one.id(), to];
    let one = start(one, &roster, fabric.clone());
    let (address, thread) = run_until_heard(two, &roster, fabric.clone(), localhost(0), 1);
    one.transport.send(to, &[address], &held(1));
    while !thread.is_finished() {
        sleep(Duration::from_millis(20)).await;
    }
    let old = one.transport.shared.peers().connection(&to).expect("it does not know yet");
    let (_, thread) = run_until_heard(again, &roster, fabric, address, 1);
    // One message, said once: it finds its way over a new connection.
    one.transport.send(to, &[address], &held(100));
    let heard = async {
        while !thread.is_finished() {
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(PATIENCE, heard).await.expect("heard again");
    // Told by the newly started agent, not by its own patience.
    assert_eq!(old.close_reason(), Some(quinn::ConnectionError::Reset));
}

#[tokio::test]
async fn rubbish_on_both_ports_changes_nothing() {
    let (mut one, two) = pair();
    let sender = UdpSocket::bind(localhost(0)).await.expect("a port");
    let mut seal = crate::seal::Seal::new(one.id(), Start::new(1).expect("random numbers"));
    let mut buffer = vec![0; crate::seal::SEALED_BYTES_MAX + 1];
    one.gossip.set_nonblocking(false).expect("set");
    let random = ring::rand::SystemRandom::new();
    for round in 0..300usize {
        let mut bytes = vec![0; 1 + round * 4];
        ring::rand::SecureRandom::fill(&random, &mut bytes).expect("random numbers");
        if round % 3 == 0 {
            bytes[0] |= 0xc0;
        }
        sender.send_to(&bytes, stream_address(one.address).expect("a port")).await.expect("sent");
        sender.send_to(&bytes, one.address).await.expect("sent");
        let (length, _) = one.gossip.recv_from(&mut buffer).expect("received");
        assert!(seal.open(&buffer[..length], |_| true).is_err());
    }
    assert_eq!(seal.counters().opened, 0);
    two.transport.send(one.id(), &[one.address], &held(1));
    assert_eq!(one.message().await.2, held(1));
    assert_eq!(one.transport.counters().received, 1);
    assert!(one.incoming.try_recv().is_err());
}

#[tokio::test]
async fn a_message_that_is_none_is_counted_and_dropped() {
    let (mut one, mut two) = pair();
    one.transport.send(two.id(), &[two.address], &held(1));
    two.message().await;
    let connection = one.transport.shared.peers().connection(&two.id()).expect("connected");
    for rubbish in [&b""[..], b"\x01\xff\xff", b"\x02", &[0; 2000]] {
        let mut stream = connection.open_uni().await.expect("a stream");
        stream.write_all(rubbish).await.expect("sent");
        let _ = stream.finish();
    }
    // Longer than any message: cut off before it is all there.
    let mut stream = connection.open_uni().await.expect("a stream");
    let _ = stream.write_all(&vec![1; MESSAGE_BYTES_MAX + 1]).await;
    let _ = stream.finish();
    let counted = async {
        while two.transport.counters().malformed < 5 {
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(PATIENCE, counted).await.expect("counted");
    two.transport.send(one.id(), &[], &held(2));
    assert_eq!(one.message().await.2, held(2));
    assert!(two.incoming.try_recv().is_err());
}

fn get(path: &str) -> ApiRequest {
    ApiRequest { method: "GET".into(), path: path.into(), body: Vec::new() }
}

/// An agent's API that behaves: echoes, streams, breaks off.
async fn serve_api(mut node: Node, gone: mpsc::Sender<()>) {
    while let Some(incoming) = node.incoming.recv().await {
        let Incoming::Request { request, answer, .. } = incoming else { continue };
        let gone = gone.clone();
        let response = match request.path.as_str() {
            "/echo" => ApiResponse::whole(200, "text/plain", request.body),
            "/nothing" => ApiResponse::whole(204, "text/plain", Vec::new()),
            "/dropped" => continue,
            path => {
                let (send, body) = mpsc::channel(1);
                let breaks = path == "/breaks";
                tokio::spawn(async move {
                    for number in 0u32.. {
                        let chunk = match number {
                            3 if breaks => Err(std::io::Error::other("torn")),
                            _ => Ok(Bytes::from(format!("line {number}\n"))),
                        };
                        if send.send(chunk).await.is_err() {
                            let _ = gone.send(()).await;
                            return;
                        }
                    }
                });
                ApiResponse { status: 200, content_type: "text/event-stream".into(), body }
            }
        };
        let _ = answer.send(response);
    }
}

#[tokio::test]
async fn any_node_answers_for_any_other() {
    let (one, two) = pair();
    let (to, addresses) = (two.id(), [two.address]);
    let (gone, mut left) = mpsc::channel(4);
    tokio::spawn(serve_api(two, gone));
    let ask = |request| one.transport.request(to, &addresses, request);

    let body: Vec<u8> = (0..500_000u32).map(|n| n as u8).collect();
    let echo = ApiRequest { method: "PUT".into(), path: "/echo".into(), body: body.clone() };
    let response = ask(echo).await.expect("answered");
    assert_eq!((response.status, response.content_type.as_str()), (200, "text/plain"));
    assert_eq!(response.collect(1 << 20).await.expect("whole"), body);

    let response = ask(get("/nothing")).await.expect("answered");
    assert_eq!(response.status, 204);
    assert_eq!(response.collect(0).await.expect("whole"), b"");

    let response = ask(get("/dropped")).await.expect("answered");
    assert_eq!(response.status, 500);
    assert_eq!(response.content_type, "application/problem+json");

    // What breaks off there breaks off here.
    let mut response = ask(get("/breaks")).await.expect("answered");
    let mut text = Vec::new();
    let error = loop {
        match response.body.recv().await.expect("an end that can be told from success") {
            Ok(chunk) => text.extend_from_slice(&chunk),
            Err(error) => break error,
        }
    };
    assert!(b"line 0\nline 1\nline 2\n".starts_with(&text), "{error}");

    // Who stops reading stops the other side.
    let mut response = ask(get("/follow")).await.expect("answered");
    let first = response.body.recv().await.expect("a chunk").expect("fine");
    assert_eq!(&first[..7], b"line 0\n");
    drop(response);
    timeout(PATIENCE, left.recv()).await.expect("the other side noticed");
}

#[tokio::test]
async fn requests_have_limits_and_errors_say_who() {
    let (one, two) = pair();
    let large = ApiRequest { body: vec![0; (1 << 20) + 1], ..get("/") };
    let error = one.transport.request(two.id(), &[two.address], large).await.expect_err("large");
    assert!(matches!(error, RequestError::TooLarge { .. }));
    let long = get(&"x".repeat(wire::FRAME_BYTES_MAX));
    let error = one.transport.request(two.id(), &[two.address], long).await.expect_err("long");
    assert!(matches!(error, RequestError::TooLarge { .. }));
    let stranger = identity().id();
    let error = one.transport.request(stranger, &[two.address], get("/")).await.expect_err("no");
    assert!(error.to_string().contains("does not belong"), "{error}");
    let error = one.transport.request(two.id(), &[], get("/")).await.expect_err("nowhere");
    assert!(error.to_string().contains("no address"), "{error}");
}

#[tokio::test]
async fn ports_come_in_pairs() {
    let sockets = Sockets::bind(localhost(0)).expect("free ports");
    assert_eq!(sockets.streams.local_addr().ok(), stream_address(sockets.address));
    let error = Sockets::bind(sockets.address).expect_err("taken").to_string();
    assert!(error.contains("another agent"), "{error}");
    assert!(Sockets::bind(localhost(65535)).is_err());
    assert_eq!(stream_address(localhost(65535)), None);
    let mapped: SocketAddr = "[::ffff:10.0.0.1]:7401".parse().expect("an address");
    assert_eq!(node_address(mapped), "10.0.0.1:7400".parse().expect("an address"));
    let v4 = localhost(7400);
    assert_eq!(for_socket(v4, localhost(1)), v4);
    let v6 = for_socket(v4, "[::]:1".parse().expect("an address"));
    assert_eq!(v6.to_string(), "[::ffff:127.0.0.1]:7400");
}

#[tokio::test]
async fn a_node_that_listens_everywhere_is_reached_over_both_families() {
    let (one, two, fabric) = (identity(), identity(), fabric());
    let roster = [one.id(), two.id()];
    let everywhere: SocketAddr = "[::]:0".parse().expect("an address");
    let one = start_at(one, &roster, fabric.clone(), everywhere);
    let mut two = start_at(two, &roster, fabric, everywhere);
    let port = two.address.port();
    one.transport.send(two.id(), &[localhost(port)], &held(1));
    let (_, address, _) = two.message().await;
    assert_eq!(address, localhost(one.address.port()));
    assert!(Message::decode(&Message::Want(vec![Key::Keyring]).encode()).is_ok());
}

#[tokio::test]
async fn an_agent_never_dials_itself_and_says_so_when_nothing_else_is_known() {
    let (one, mut two) = pair();
    let here = |address: SocketAddr| (0, address.ip());
    one.transport.answers_at(Own::new([here(one.address)], one.address.port()));
    // An address of ours among others: the others are tried.
    one.transport.send(two.id(), &[one.address, two.address], &held(1));
    assert_eq!(two.message().await.2, held(1));
    assert_eq!(one.transport.counters().dial_failures, 0);

    let third = identity();
    one.transport.trust([one.id(), two.id(), third.id()].into(), Default::default());
    let request = ApiRequest { method: "GET".into(), path: "/v1/status".into(), body: Vec::new() };
    let error = one.transport.request(third.id(), &[one.address], request).await.unwrap_err();
    let error = error.to_string();
    assert!(error.contains("addresses that this machine has itself"), "{error}");
    assert!(error.contains(&one.address.to_string()), "{error}");
}

#[test]
fn what_another_machine_calls_ours_is_ours_on_whichever_link() {
    let ip = |text: &str| text.parse().expect("an address");
    let own = Own::new([(2, ip("10.0.0.4")), (3, ip("fe80::1"))], 7400);
    let at = |text: &str| own.contains_on_any_link(text.parse().expect("an address and a port"));
    assert!(at("10.0.0.4:7400") && at("[::ffff:10.0.0.4]:7400"));
    assert!(at("[fe80::1%3]:7400") && at("[fe80::1%7]:7400") && at("[fe80::1]:7400"));
    assert!(!at("10.0.0.4:7401"), "another agent of this machine");
    assert!(!at("[fe80::2%3]:7400") && !at("10.0.0.5:7400"));
    assert!(!own.contains("[fe80::1%7]:7400".parse().expect("an address")), "that is another link");
}
