//! Anyone on the link may send anything.

// Datagrams are paced.
#![allow(clippy::disallowed_methods)]

mod netns;
mod node;

use netns::{Bridge, Netns, Process};
use node::{FABRIC, is_found, is_lost, start};
use std::net::UdpSocket;
use std::time::Duration;

/// Three machines on one switch: two for nodes, one for the attacker.
fn machines(bridge: &Bridge) -> [Netns; 3] {
    [1, 2, 66].map(|number| {
        let place = Netns::new(&format!("machine{number}"));
        bridge.connect(&place, "eth0");
        place.exec(&format!("ip addr add 10.77.0.{number}/24 dev eth0"));
        place.exec("ip route add 224.0.0.0/4 dev eth0");
        place
    })
}

/// Sends each datagram to every mDNS speaker on the link, at a pace that their sockets can take.
fn shout(attacker: &Netns, datagrams: impl Iterator<Item = Vec<u8>> + Send) {
    attacker.within(|| {
        let socket = UdpSocket::bind("10.77.0.66:0").expect("a socket");
        for (number, datagram) in datagrams.enumerate() {
            socket.send_to(&datagram, "224.0.0.251:5353").expect("it is sent");
            if number % 8 == 7 {
                std::thread::sleep(Duration::from_millis(2));
            }
        }
    });
}

fn names(name: &str) -> Vec<u8> {
    let labels = name.split('.').flat_map(|label| {
        std::iter::once(u8::try_from(label.len()).expect("a label")).chain(label.bytes())
    });
    labels.chain([0]).collect()
}

/// A response with these answers: name, type and data of each.
fn response(answers: &[(String, u16, Vec<u8>)]) -> Vec<u8> {
    let count = u16::try_from(answers.len()).expect("few answers");
    let mut datagram = vec![0, 0, 0x84, 0, 0, 0];
    datagram.extend(count.to_be_bytes());
    datagram.extend([0, 0, 0, 0]);
    for (name, kind, data) in answers {
        datagram.extend(names(name));
        datagram.extend(kind.to_be_bytes());
        datagram.extend([0, 1]);
        datagram.extend(4500_u32.to_be_bytes());
        datagram.extend(u16::try_from(data.len()).expect("little data").to_be_bytes());
        datagram.extend(data);
    }
    datagram
}

/// An xorshift generator: the same garbage each time.
struct Garbage(u64);

impl Garbage {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() % end as u64).expect("a small number")
    }
}

fn pair(places: &[Netns; 3]) -> (Process, Process) {
    let mut first = start(&places[0], 1, &["--fabric", FABRIC]);
    let mut second = start(&places[1], 2, &["--fabric", FABRIC]);
    first.wait_for("it finds the other", |line| is_found(line, 2, FABRIC, "10.77.0.2:7002"));
    second.wait_for("it finds the other", |line| is_found(line, 1, FABRIC, "10.77.0.1:7001"));
    (first, second)
}

#[test]
fn garbage_does_not_stop_discovery() {
    if !netns::can_run(&[]) {
        return;
    }
    let bridge = Bridge::new("garbage");
    let places = machines(&bridge);
    let (mut first, mut second) = pair(&places);

    let mut garbage = Garbage(0x5eed);
    let service = "_weft._udp.local";
    let fine = response(&[
        (service.into(), 12, names(&format!("evil.{service}"))),
        (
            format!("evil.{service}"),
            33,
            [vec![0, 0, 0, 0, 0x1b, 0x58], names("evil.local")].concat(),
        ),
        (format!("evil.{service}"), 16, b"\x03v=1\x08node=xyz\x07fabric=".to_vec()),
        ("evil.local".into(), 1, vec![127, 0, 0, 1]),
    ]);
    let datagrams = (0..6000).map(|number| match number % 3 {
        // Noise.
        0 => (0..garbage.below(700)).map(|_| garbage.next() as u8).collect(),
        // A header that promises more than there is.
        1 => {
            let mut datagram = vec![0, 0, 0x84, 0];
            datagram.extend((0..garbage.below(300)).map(|_| garbage.next() as u8 & 0xc3));
            datagram
        }
        // A good message with some bytes changed, perhaps cut.
        _ => {
            let mut datagram = fine.clone();
            for _ in 0..=garbage.below(4) {
                let at = garbage.below(datagram.len());
                datagram[at] = garbage.next() as u8;
            }
            datagram.truncate(1 + garbage.below(2 * datagram.len()));
            datagram
        }
    });
    shout(&places[2], datagrams);

    let mut third = start(&places[2], 3, &["--fabric", FABRIC]);
    for node in [&mut first, &mut second] {
        node.wait_for("the newcomer is found", |line| is_found(line, 3, FABRIC, "10.77.0.66:7003"));
    }
    for number in [1, 2] {
        netns::wait_until("the newcomer finds both", || {
            third.seen().iter().find(|line| is_found(line, number, FABRIC, "10.77.0.")).map(|_| ())
        });
    }
    for line in first.seen() {
        assert!(!line.contains("127.0.0.1"), "loopback is nobody's address: {line}");
    }
    assert!(first.terminate().success() && second.terminate().success());
}

#[test]
fn a_flood_of_records_is_forgotten() {
    if !netns::can_run(&[]) {
        return;
    }
    let bridge = Bridge::new("flood");
    let places = machines(&bridge);
    let (mut first, _second) = pair(&places);
    // Records that belong to no instance cause no event: only their number gives them away.
    let datagrams = (0..1500).map(|datagram| {
        let answers: Vec<_> = (0..20)
            .map(|record| {
                (format!("x{datagram}-{record}._weft._udp.local"), 16, b"\x03v=1".to_vec())
            })
            .collect();
        response(&answers)
    });
    shout(&places[2], datagrams);
    // Everything is forgotten, and what is real is found again.
    first.wait_for("the cache is thrown away", |line| is_lost(line, 2));
    first.wait_for("the other is found again", |line| is_found(line, 2, FABRIC, "10.77.0.2:7002"));
}

#[test]
fn more_instances_than_are_kept_do_no_harm() {
    if !netns::can_run(&[]) {
        return;
    }
    let bridge = Bridge::new("crowd");
    let places = machines(&bridge);
    let (mut first, _second) = pair(&places);
    // Each is complete, and of our fabric by its own account.
    let datagrams = (0..6000_u32).map(|number| {
        let service = "_weft._udp.local";
        let (instance, host) = (format!("evil{number}.{service}"), format!("evil{number}.local"));
        let mut texts = vec![3];
        texts.extend(b"v=1\x45node=");
        texts.extend(format!("{number:064x}").bytes());
        texts.extend(b"\x17fabric=");
        texts.extend(FABRIC.bytes());
        response(&[
            (service.into(), 12, names(&instance)),
            (instance.clone(), 33, [vec![0, 0, 0, 0, 0x1b, 0x58], names(&host)].concat()),
            (instance, 16, texts),
            (host, 1, vec![10, 77, 0, 66]),
        ])
    });
    shout(&places[2], datagrams);
    // 24,000 records: forgotten too, sooner or later, and then only what is real comes back.
    first.wait_for("the cache is thrown away", |line| is_lost(line, 2));
    first.wait_for("the other is found again", |line| is_found(line, 2, FABRIC, "10.77.0.2:7002"));
    let (mut kept, mut most) = (0_usize, 0);
    for line in first.seen() {
        match line.split(' ').next() {
            Some("found") => kept += 1,
            Some("lost") => kept = kept.saturating_sub(1),
            _ => {}
        }
        most = most.max(kept);
    }
    assert!(most > 100, "the crowd was seen: {most}");
    assert!(most <= discovery::limits::INSTANCES_MAX + 10, "{most} instances were kept");
    assert!(first.terminate().success());
}
