use super::*;

#[test]
fn confirmations_shorten_a_suspicion_down_to_the_minimum() {
    let millis = |members, confirmed_by| suspicion_timeout(members, confirmed_by).as_millis();
    // (members, failed probes reported, our own among them) -> milliseconds
    let table = [
        ((2, 1), 600),
        ((3, 1), 1800),
        ((3, 2), 600),
        ((10, 1), 1800),
        ((10, 2), 1042),
        ((10, 4), 600),
        ((10, 9), 600),
        ((100, 1), 3600),
        ((100, 4), 1200),
    ];
    for ((members, confirmed_by), expected) in table {
        assert_eq!(millis(members, confirmed_by), expected, "{members} members, {confirmed_by}");
    }
}

/// Members that hear each other after a millisecond, except those that are `dead`.
struct Wire {
    members: BTreeMap<NodeId, Membership>,
    dead: BTreeSet<NodeId>,
    now: Instant,
    downs: Vec<(Instant, NodeId, NodeId)>,
}

impl Wire {
    fn new(count: u8) -> Self {
        let mut wire = Wire {
            members: BTreeMap::new(),
            dead: BTreeSet::new(),
            now: Instant::default(),
            downs: Vec::new(),
        };
        let identity = |n| Identity {
            node: NodeId([n; 32]),
            generation: 1,
            address: SocketAddr::from(([127, 0, 0, n], 7400)),
        };
        for n in 1..=count {
            wire.members
                .insert(NodeId([n; 32]), Membership::new(wire.now, identity(n), u64::from(n)));
        }
        for n in 2..=count {
            let member = wire.members.get_mut(&NodeId([n; 32])).unwrap();
            member.announce(wire.now, identity(1));
        }
        wire.run(Duration::from_secs(10));
        wire
    }

    fn run(&mut self, time: Duration) {
        let end = self.now + time;
        while self.now < end {
            self.now = self.now + Duration::from_millis(1);
            let mut sent = Vec::new();
            for (node, member) in &mut self.members {
                if self.dead.contains(node) {
                    continue;
                }
                member.handle_timeout(self.now);
                while let Some((to, _, datagram)) = member.poll_datagram() {
                    sent.push((to, datagram));
                }
                while let Some(change) = member.poll_change() {
                    if let Change::Down(gone) = change {
                        self.downs.push((self.now, *node, gone));
                    }
                }
            }
            for (to, datagram) in sent {
                let Datagram::Swim { packet, confirms } = datagram else { panic!("{datagram:?}") };
                assert!(
                    Datagram::Swim { packet: packet.clone(), confirms: confirms.clone() }
                        .encode()
                        .len()
                        <= limits::DATAGRAM_BYTES_MAX
                );
                if !self.dead.contains(&to) {
                    let member = self.members.get_mut(&to).unwrap();
                    assert!(member.handle_packet(self.now, &packet, &confirms));
                }
            }
        }
    }
}

#[test]
fn a_dead_member_is_seen_by_all_and_nobody_else_is_blamed() {
    let mut wire = Wire::new(20);
    assert!(wire.members.values().all(|member| member.others().count() == 19));
    assert!(wire.downs.is_empty(), "{:?}", wire.downs);
    let victim = NodeId([7; 32]);
    wire.dead.insert(victim);
    let killed = wire.now;
    wire.run(Duration::from_secs(6));
    assert_eq!(wire.downs.len(), 19);
    assert!(wire.downs.iter().all(|(_, _, gone)| *gone == victim));
    let last = wire.downs.iter().map(|(at, ..)| at.since(killed)).max().unwrap();
    assert!(last <= Duration::from_secs(4), "{last:?} of virtual time");
    for (node, member) in &wire.members {
        assert_eq!(
            member.state(&victim),
            if *node == victim { NodeState::Alive } else { NodeState::Dead }
        );
    }
}

#[test]
fn a_member_that_comes_back_from_the_dead_is_taken_in_again() {
    let mut wire = Wire::new(3);
    let away = NodeId([3; 32]);
    wire.dead.insert(away);
    wire.run(Duration::from_secs(5));
    assert_eq!(wire.members[&NodeId([1; 32])].state(&away), NodeState::Dead);
    wire.dead.clear();
    wire.run(Duration::from_secs(20));
    for member in wire.members.values() {
        assert_eq!(member.others().count(), 2, "{member:?}");
    }
}

#[test]
fn rubbish_changes_nothing() {
    let mut wire = Wire::new(2);
    let now = wire.now;
    let member = wire.members.get_mut(&NodeId([1; 32])).unwrap();
    for length in 0..200 {
        let packet: Vec<u8> = (0..length).map(|byte| (byte as u8).wrapping_mul(31)).collect();
        member.handle_packet(now, &packet, &[]);
    }
    assert_eq!(member.others().count(), 1);
}
