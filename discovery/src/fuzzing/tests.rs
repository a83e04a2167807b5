use super::dns;

#[path = "../../../fuzz/replay.rs"]
mod replay;

/// A packet: names as labels, and records of `(name, type, data)`.
fn packet(records: &[(&str, u16, Vec<u8>)]) -> Vec<u8> {
    let mut bytes = vec![0, 0, 0x84, 0, 0, 0, 0, records.len() as u8, 0, 0, 0, 0];
    for (owner, kind, data) in records {
        bytes.extend(name(owner));
        bytes.extend(kind.to_be_bytes());
        bytes.extend([0x80, 1, 0, 0, 0x11, 0x94]);
        bytes.extend((data.len() as u16).to_be_bytes());
        bytes.extend(data);
    }
    bytes
}

fn name(text: &str) -> Vec<u8> {
    let labels =
        text.split('.').flat_map(|label| [&[label.len() as u8], label.as_bytes()].concat());
    labels.chain([0]).collect()
}

/// What an agent announces. Written anew with `WEFT_REWRITE=1 cargo test -p weft-discovery fuzzing`.
#[test]
fn the_corpus_has_what_an_agent_announces() {
    let (service, host) = ("_weft._udp.local", "weft-0011223344556677.local");
    let instance = format!("birch-0011223344556677.{service}");
    let mut texts = Vec::new();
    let node = "0011223344556677".repeat(4);
    for text in ["v=1".to_owned(), format!("node={node}"), "fabric=8899aabbccddeeff".to_owned()] {
        texts.push(text.len() as u8);
        texts.extend(text.bytes());
    }
    let srv = [vec![0, 0, 0, 0, 0x1c, 0xe8], name(host)].concat();
    let v6 = [[0xfd, 0, 0, 7].as_slice(), &[0; 11], &[2]].concat();
    let bytes = packet(&[
        (service, 12, name(&instance)),
        (&instance, 33, srv),
        (&instance, 16, texts),
        (host, 1, vec![10, 77, 0, 2]),
        (host, 28, v6),
        (host, 47, [name(host), vec![0, 4, 0x40, 0, 0, 8]].concat()),
    ]);
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../fuzz/corpus/dns/announcement");
    if std::env::var_os("WEFT_REWRITE").is_some() {
        std::fs::write(path, &bytes).expect("written");
    }
    assert_eq!(std::fs::read(path).expect("read"), bytes);
}

#[test]
fn packets_of_dns() {
    replay::replay("dns", 400, dns);
}
