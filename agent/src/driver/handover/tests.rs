use super::*;

const ME: NodeId = NodeId([7; 32]);

fn handover() -> Handover {
    let text =
        r#"{"generation": 1, "voter": {"floor": 3, "mute": {"secs": 0, "nanos": 0}, "slots": []}}"#;
    serde_json::from_str(text).unwrap()
}

fn changed(socket: &Path, key: &str, value: serde_json::Value) {
    let text = std::fs::read(path(socket)).unwrap();
    let mut file: serde_json::Value = serde_json::from_slice(&text).unwrap();
    file[key] = value;
    std::fs::write(path(socket), serde_json::to_vec(&file).unwrap()).unwrap();
}

#[test]
fn it_is_taken_once_and_by_the_next_start_only() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("weftd.sock");
    assert_eq!(take(&socket, ME, Some(5)), None, "there is none");
    leave(&socket, ME, 5, handover()).unwrap();
    let (found, elapsed) = take(&socket, ME, Some(5)).unwrap();
    assert_eq!(found, handover());
    assert!(elapsed < Duration::from_secs(600));
    assert_eq!(take(&socket, ME, Some(5)), None, "it was used");
    // A state directory that was put back counts otherwise, or not at all.
    for other in [Some(4), Some(6), None] {
        leave(&socket, ME, 5, handover()).unwrap();
        assert_eq!(take(&socket, ME, other), None, "{other:?}");
        assert_eq!(take(&socket, ME, Some(5)), None, "it is removed whatever it says");
    }
    assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 0, "nothing stays");
}

#[test]
fn what_is_of_another_boot_machine_or_version_is_not_used() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("weftd.sock");
    let other = serde_json::to_value(NodeId([8; 32])).unwrap();
    for (key, value) in [("boot", "another".into()), ("node", other), ("version", 2.into())] {
        leave(&socket, ME, 5, handover()).unwrap();
        changed(&socket, key, value);
        assert_eq!(take(&socket, ME, Some(5)), None, "{key}");
    }
    for nonsense in [&b""[..], b"{", b"null", &[0xff; 100]] {
        std::fs::write(path(&socket), nonsense).unwrap();
        assert_eq!(take(&socket, ME, Some(5)), None);
    }
    // What happened meanwhile has taken its time.
    leave(&socket, ME, 5, handover()).unwrap();
    let at = BootTime::now().since_boot().saturating_sub(Duration::from_secs(3));
    changed(&socket, "at", u64::try_from(at.as_nanos()).unwrap().into());
    let (_, elapsed) = take(&socket, ME, Some(5)).unwrap();
    assert!(elapsed >= Duration::from_secs(3), "{elapsed:?}");
    // Not to be read by others, who learn nothing of it and write nothing into it.
    leave(&socket, ME, 5, handover()).unwrap();
    assert_eq!(path(&socket).metadata().unwrap().mode() & 0o777, 0o600);
}
