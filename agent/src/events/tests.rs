use super::*;
use fabric::api::EventKind;
use fabric::clock::WallTime;
use fabric::id::{JobName, NodeId};

fn event(version: u64) -> Event {
    Event {
        at: WallTime(1),
        node: NodeId([7; 32]),
        what: EventKind::Job {
            job: JobName::new("web").unwrap(),
            version,
            message: "submitted".into(),
        },
    }
}

async fn all(mut stream: mpsc::Receiver<Bytes>) -> String {
    let mut text = String::new();
    while let Some(chunk) = stream.recv().await {
        text.push_str(std::str::from_utf8(&chunk).unwrap());
    }
    text
}

#[tokio::test]
async fn without_follow_the_stream_ends_after_what_is_remembered() {
    let mut events = Events::default();
    for version in 1..=RECENT_MAX as u64 + 10 {
        events.push(&event(version));
    }
    let text = all(events.stream(false)).await;
    let data: Vec<&str> = text.lines().filter(|line| line.starts_with("data: ")).collect();
    assert_eq!(data.len(), RECENT_MAX);
    let first: Event = serde_json::from_str(&data[0][6..]).unwrap();
    assert_eq!(first, event(11));
    assert!(text.contains("id: 11\n"));
}

#[tokio::test]
async fn a_listener_that_follows_sees_later_events_and_how_many_it_missed() {
    let mut events = Events::default();
    let mut stream = events.stream(true);
    assert_eq!(stream.recv().await.unwrap(), Bytes::from_static(b": weft events\n\n"));
    events.push(&event(1));
    let chunk = stream.recv().await.unwrap();
    assert!(chunk.starts_with(b"id: 1\ndata: {"));
    // Far more than its queues hold, while it does not read.
    for version in 2..2000 {
        events.push(&event(version));
    }
    let mut seen = 0;
    let mut missed = 0;
    while seen + missed < 1998 {
        let chunk = stream.recv().await.unwrap();
        let text = std::str::from_utf8(&chunk).unwrap();
        match text.strip_prefix(": ").and_then(|rest| rest.strip_suffix(" events missed\n\n")) {
            Some(count) => missed += count.parse::<u64>().unwrap(),
            None => seen += 1,
        }
    }
    assert!(missed > 0 && seen > 0, "{seen} seen, {missed} missed");
}

#[tokio::test]
async fn a_listener_that_went_away_costs_nothing() {
    let mut events = Events::default();
    drop(events.stream(true));
    tokio::task::yield_now().await;
    events.push(&event(1));
    tokio::task::yield_now().await;
    assert_eq!(events.count(), 1);
}
