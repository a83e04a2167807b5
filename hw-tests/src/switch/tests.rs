use super::*;
use std::time::Duration;

/// A machine's network card, on its end of a cable.
fn card(cable: &str) -> (UnixDatagram, PathBuf) {
    let path = |key: &str| {
        let word = cable.split(',').find_map(|word| word.strip_prefix(key));
        PathBuf::from(word.expect("the cable has two ends"))
    };
    let card = UnixDatagram::bind(path("local.path=")).expect("the end is free");
    card.set_read_timeout(Some(Duration::from_millis(300))).expect("a timeout");
    (card, path("remote.path="))
}

fn frame(to: u8, from: u8) -> Vec<u8> {
    [[to; 6], [from; 6], *b"hello!"].concat()
}

fn heard(card: &UnixDatagram) -> Option<Vec<u8>> {
    let mut bytes = [0; 64];
    card.recv(&mut bytes).ok().map(|length| bytes[..length].to_vec())
}

#[test]
fn a_frame_reaches_all_others_until_it_is_known_where_it_belongs() {
    let bench = Bench::in_folder(&std::env::temp_dir().join("weft-switch-test")).expect("a folder");
    let switch = Switch::new(&bench, 3).expect("a switch");
    let cards: Vec<_> = (0..3).map(|port| card(&switch.cable(port))).collect();
    let send = |port: usize, frame: &[u8]| {
        let (card, to) = &cards[port];
        card.send_to(frame, to).expect("the switch listens");
    };

    send(0, &frame(0xff, 1));
    assert_eq!(heard(&cards[1].0), Some(frame(0xff, 1)));
    assert_eq!(heard(&cards[2].0), Some(frame(0xff, 1)));
    assert_eq!(heard(&cards[0].0), None, "nobody hears himself");
    // Too short to say where it goes.
    send(2, b"short");
    send(2, &frame(1, 3));
    assert_eq!(heard(&cards[0].0), Some(frame(1, 3)));
    assert_eq!(heard(&cards[1].0), None, "it was not for this one");
    drop(switch);
    bench.clear();
}
