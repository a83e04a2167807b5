use super::*;
use crate::api::tests::node;
use fabric::clock::{Now, WallTime};
use fabric::io::{Input, Request};
use fabric::job::parse;

#[test]
fn it_is_counted_again_when_something_has_changed_or_it_is_old() {
    let state = tempfile::tempdir().unwrap();
    let mut node = node(&state);
    let mut standing = Standing::default();
    let at = |secs| Instant::at(Duration::from_secs(secs));
    let counted_at = |standing: &Standing| standing.counted.as_ref().map(|counted| counted.at);
    assert_eq!(standing.of(&node, at(1)).jobs, 0);
    assert_eq!(standing.of(&node, at(10)).jobs, 0);
    assert_eq!(counted_at(&standing), Some(at(1)), "nothing has changed");
    let spec = Box::new(parse("name = \"web\"\n[task]\ncommand = [\"/bin/true\"]\n").unwrap());
    let request = Request::Submit { spec, by: "someone".into(), expected_version: None };
    let now = Now { at: at(10), wall: WallTime(1_700_000_000_000) };
    node.handle(now, Input::Request { id: 1, request });
    assert_eq!(standing.of(&node, at(10)).jobs, 1);
    assert_eq!(counted_at(&standing), Some(at(10)));
    assert_eq!(*standing.of(&node, at(21)), node.status());
    assert_eq!(counted_at(&standing), Some(at(21)), "it was old");
}
#[test]
fn the_status_line_says_so_when_there_is_no_network() {
    let text = || "grove: 1 nodes alive, 2 of 2 slots healthy".to_owned();
    assert_eq!(status_line(text(), true), text());
    let alone = status_line(text(), false);
    assert!(alone.starts_with("no network: ") && alone.ends_with(&text()), "{alone}");
}
