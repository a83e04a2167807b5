use super::*;
use crate::api::ROUTES;
use std::os::unix::fs::MetadataExt;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// What whoever reaches the TCP port may ask for.
const TOLD: [&str; 11] = [
    "/api/v1/format_query",
    "/api/v1/label/{name}/values",
    "/api/v1/labels",
    "/api/v1/metadata",
    "/api/v1/query",
    "/api/v1/query_range",
    "/api/v1/series",
    "/api/v1/status/buildinfo",
    "/healthz",
    "/metrics",
    "/readyz",
];

/// The status of an answer over TCP.
async fn status(address: std::net::SocketAddr, method: &str, path: &str) -> u16 {
    let mut stream = TcpStream::connect(address).await.expect("somebody listens");
    let text = format!("{method} {path} HTTP/1.0\r\ncontent-length: 0\r\n\r\n");
    stream.write_all(text.as_bytes()).await.expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("text");
    answer.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status")
}

#[tokio::test]
async fn over_tcp_every_path_but_measurements_and_health_is_refused() {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
    let address = listener.local_addr().expect("its address");
    let (sender, mut calls) = mpsc::channel::<Call>(1);
    tokio::spawn(serve_readers(listener, sender));
    // Who is let through gets no answer from this agent, and is told so.
    let reached = Arc::new(AtomicU32::new(0));
    let agent = reached.clone();
    tokio::spawn(async move {
        while calls.recv().await.is_some() {
            agent.fetch_add(1, Relaxed);
        }
    });
    for route in ROUTES.iter().copied().flatten() {
        let path = route.path.replace(['{', '}'], "");
        let before = reached.load(Relaxed);
        let status = status(address, route.method, &path).await;
        let refused = status == StatusCode::FORBIDDEN;
        assert_eq!(refused, !TOLD.contains(&route.path), "{} {path}: {status}", route.method);
        let reached = reached.load(Relaxed) > before;
        assert!(!(refused && reached), "{} {path} reached the agent", route.method);
    }
    assert!(reached.load(Relaxed) > 0, "the others do reach it");
    for path in TOLD {
        assert!(ROUTES.iter().copied().flatten().any(|route| route.path == path), "{path}");
    }
}

#[tokio::test]
async fn the_socket_is_for_its_owner_and_one_group_and_nobody_else() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("weft.sock");
    let mode = || std::fs::metadata(&path).expect("there").permissions().mode() & 0o777;
    let closed = bind(&path, "no-such-group-here").await.expect("bound");
    assert_eq!(mode(), 0o600);

    // Whatever this test runs as belongs to a group; which one is in its list of them.
    let own = nix::unistd::getegid().as_raw();
    let groups = std::fs::read_to_string("/etc/group").expect("a list of groups");
    let name = groups.lines().find_map(|line| {
        let fields: Vec<&str> = line.split(':').collect();
        (fields.get(2)?.parse::<u32>().ok()? == own).then(|| fields[0].to_owned())
    });
    let Some(name) = name else { return eprintln!("skipped: group {own} has no name here") };
    drop(closed);
    let _open = bind(&path, &name).await.expect("in place of the stale one");
    assert_eq!((mode(), std::fs::metadata(&path).expect("there").gid()), (0o660, own));
}
