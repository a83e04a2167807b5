use super::*;
use std::time::Duration;

const ME: NodeId = NodeId([7; 32]);

/// What a voter keeps: a floor, and a slot that is locked for so long.
fn kept(floor: u64, locked: &[(&str, u64)]) -> Handover {
    let slots: Vec<serde_json::Value> = locked
        .iter()
        .map(|(job, seconds)| {
            serde_json::json!({
                "slot": {"job": job, "index": 0},
                "highest": {"epoch": 3, "node": ME},
                "lock": [{"epoch": 3, "node": ME}, {"secs": seconds, "nanos": 0}, 9],
            })
        })
        .collect();
    let mute = serde_json::json!({"secs": 0, "nanos": 0});
    let voter = serde_json::json!({"floor": floor, "mute": mute, "slots": slots});
    serde_json::from_value(serde_json::json!({"generation": 1, "voter": voter})).unwrap()
}

fn line(kept: Handover) -> Line {
    Line { at: BootTime::now(), kept }
}

fn keeper(socket: &Path) -> Keeper {
    let mut keeper = Keeper::new(socket, ME, Some(5));
    keeper.write_all(&line(kept(3, &[]))).unwrap();
    keeper
}

/// Seconds that the slots are locked for, in the order of their names.
fn locks(kept: &Handover) -> Vec<u64> {
    let value = serde_json::to_value(kept).unwrap();
    let slots = value["voter"]["slots"].as_array().unwrap();
    slots.iter().map(|slot| slot["lock"][1]["secs"].as_u64().unwrap()).collect()
}

fn folder() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("weftd.sock");
    (folder, socket)
}

#[test]
fn it_is_taken_once_and_by_the_next_start_only() {
    let (folder, socket) = folder();
    assert_eq!(take(&socket, ME, Some(5)), None, "there is none");
    keeper(&socket);
    assert_eq!(take(&socket, ME, Some(5)).unwrap(), kept(3, &[]));
    assert_eq!(take(&socket, ME, Some(5)), None, "it was used");
    // A state directory that was put back counts otherwise, or not at all.
    for other in [Some(4), Some(6), None] {
        keeper(&socket);
        assert_eq!(take(&socket, ME, other), None, "{other:?}");
        assert_eq!(take(&socket, ME, Some(5)), None, "it is removed whatever it says");
    }
    assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 0, "nothing stays");
}

#[test]
fn changes_are_taken_in_and_what_is_not_whole_is_left_out() {
    let (_folder, socket) = folder();
    let mut kept_here = keeper(&socket);
    kept_here.append(&line(kept(4, &[("b", 100)]))).unwrap();
    kept_here.append(&line(kept(4, &[("a", 200)]))).unwrap();
    kept_here.append(&line(kept(6, &[("b", 300)]))).unwrap();
    // The agent died while it wrote this.
    kept_here.file.as_mut().unwrap().write_all(b"{\"at\": 12, \"kept\": {\"gener").unwrap();
    let all = take(&socket, ME, Some(5)).unwrap();
    let found = locks(&all);
    assert!((190..=200).contains(&found[0]) && (290..=300).contains(&found[1]), "{found:?}");
    assert_eq!(serde_json::to_value(&all).unwrap()["voter"]["floor"], 6);
    // What has become unreadable in the middle tells nothing any more.
    keeper(&socket);
    let mut text = std::fs::read(path(&socket)).unwrap();
    text.extend_from_slice(b"{}\n");
    std::fs::write(path(&socket), &text).unwrap();
    assert_eq!(take(&socket, ME, Some(5)), None);
}

/// `weftd farewell` counts as a start, and votes nothing.
#[test]
fn a_start_that_votes_nothing_passes_it_on() {
    let (_folder, socket) = folder();
    keeper(&socket).append(&line(kept(4, &[("a", 200)]))).unwrap();
    pass_on(&socket, ME, Some(5), 8).unwrap();
    assert_eq!(take(&socket, ME, Some(5)), None);
    keeper(&socket).append(&line(kept(4, &[("a", 200)]))).unwrap();
    pass_on(&socket, ME, Some(5), 8).unwrap();
    assert_eq!(locks(&take(&socket, ME, Some(8)).unwrap()).len(), 1);
    // There is nothing, or it is somebody else's: then nothing is passed on.
    pass_on(&socket, ME, Some(8), 9).unwrap();
    assert!(!path(&socket).exists());
}

/// Another machine speaks in this one's name: what is kept here is not all that was granted in it.
#[test]
fn what_was_kept_before_somebody_else_voted_is_not_used() {
    let (_folder, socket) = folder();
    let mut kept_here = keeper(&socket);
    kept_here.forget();
    assert!(kept_here.failed && !path(&socket).exists());
    assert_eq!(take(&socket, ME, Some(5)), None);
}

fn head_changed(socket: &Path, key: &str, value: serde_json::Value) {
    let text = std::fs::read_to_string(path(socket)).unwrap();
    let (head, rest) = text.split_once('\n').unwrap();
    let mut head: serde_json::Value = serde_json::from_str(head).unwrap();
    head[key] = value;
    std::fs::write(path(socket), format!("{head}\n{rest}")).unwrap();
}

#[test]
fn what_is_of_another_boot_machine_or_version_is_not_used() {
    let (_folder, socket) = folder();
    let other = serde_json::to_value(NodeId([8; 32])).unwrap();
    for (key, value) in [("boot", "another".into()), ("node", other), ("version", 1.into())] {
        keeper(&socket);
        head_changed(&socket, key, value);
        assert_eq!(take(&socket, ME, Some(5)), None, "{key}");
    }
    for nonsense in [&b""[..], b"{", b"null\n", b"\n\n", &[0xff; 100]] {
        std::fs::write(path(&socket), nonsense).unwrap();
        assert_eq!(take(&socket, ME, Some(5)), None);
    }
    // What happened meanwhile has taken its time.
    let mut kept_here = keeper(&socket);
    let at = BootTime::now().since_boot().saturating_sub(Duration::from_secs(3));
    let at: BootTime =
        serde_json::from_value(u64::try_from(at.as_nanos()).unwrap().into()).unwrap();
    kept_here.append(&Line { at, kept: kept(3, &[("a", 100)]) }).unwrap();
    let found = locks(&take(&socket, ME, Some(5)).unwrap());
    assert!((90..=97).contains(&found[0]), "{found:?}");
    // Not to be read by others, who learn nothing of it and write nothing into it.
    keeper(&socket);
    assert_eq!(path(&socket).metadata().unwrap().mode() & 0o777, 0o600);
}

#[test]
fn what_cannot_be_kept_is_taken_away() {
    let (folder, socket) = folder();
    let mut kept_here = keeper(&socket);
    // Nothing can be written to it any more.
    kept_here.file = Some(File::open(path(&socket)).unwrap());
    assert!(kept_here.append(&line(kept(4, &[]))).is_err());
    kept_here.give_up(&anyhow::anyhow!("no space left"));
    assert!(kept_here.failed && !path(&socket).exists());
    assert_eq!(take(&socket, ME, Some(5)), None);
    drop(folder);
}
