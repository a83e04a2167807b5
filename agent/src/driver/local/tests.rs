use super::*;

#[test]
fn the_status_line_says_so_when_there_is_no_network() {
    let text = || "grove: 1 nodes alive, 2 of 2 slots healthy".to_owned();
    assert_eq!(status_line(text(), true), text());
    let alone = status_line(text(), false);
    assert!(alone.starts_with("no network: ") && alone.ends_with(&text()), "{alone}");
}
