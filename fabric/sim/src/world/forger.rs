//! Somebody who has got hold of the gossip keys, and of no node's own: a leak, or a node that was removed a moment ago. It
//! seals datagrams in any member's name, and writes rows in theirs.

use fabric::id::{JobName, NodeId};
use fabric::message::Datagram;
use fabric::signature::HashSigner;
use fabric::stamp::Stamp;
use fabric::table::{Entry, JobEntry, Key, RosterEntry, Value};
use fabric::voters::{Member, VoterSet};
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::time::Duration;

use super::{Event, World};
use crate::clock::true_wall;
use crate::gate::Sealed;
use crate::node::fresh_identity;
use crate::workload;

/// Between two rows.
const PAUSE: Duration = Duration::from_millis(700);
/// Nodes that get each row: what they took, they would push.
const RECEIVERS: usize = 3;
/// Its stamps have counters from here on, which no node's clock comes to: a row is known by its stamp.
const COUNTER: u64 = 0xf000;

/// It draws from numbers of its own, so that a world without it is the same world.
#[derive(Debug)]
pub(super) struct Forger {
    random: ChaCha8Rng,
    /// A key that nobody was let in with.
    own: NodeId,
    active: bool,
    rows: u64,
}

impl Forger {
    /// Nothing is heard of it yet.
    pub fn new(seed: u64) -> Self {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        random.set_stream(3);
        let own = fresh_identity(&mut random);
        Self { random, own, active: false, rows: 0 }
    }
}

impl World {
    /// Somebody with the gossip keys begins to write rows in others' names, or stops.
    pub fn set_forger(&mut self, writes: bool) {
        if self.forger.active != writes {
            let does = if writes { "writes rows in others' names" } else { "is gone" };
            self.tell(|_| format!("somebody with the gossip keys {does}"));
            self.forger.active = writes;
            if writes {
                self.push(PAUSE, Event::Forge);
            }
        }
    }

    /// What a node signs with. Nobody gets another node's.
    pub(super) fn signer(&self, node: NodeId) -> HashSigner {
        let [a, b, c, d, e, f, g, h, ..] = self.fabric.0;
        HashSigner::new(u64::from_le_bytes([a, b, c, d, e, f, g, h]), node)
    }

    pub(super) fn forge(&mut self) {
        if !self.forger.active {
            return;
        }
        self.push(PAUSE, Event::Forge);
        let running = self.running();
        let members: Vec<NodeId> = running.iter().map(|node| self.nodes[*node].identity).collect();
        let Some(sender) = running.choose(&mut self.forger.random).copied() else { return };
        let Some(name) = members.choose(&mut self.forger.random).copied() else { return };
        let Some(entry) = self.forged_row(sender, name, &members) else { return };
        self.book.forged.insert(entry.stamp, entry.key.clone());
        let (from, start) = (self.nodes[sender].identity, self.life(sender));
        let payload = Datagram::Push(vec![entry.into()]).encode();
        for to in running.sample(&mut self.forger.random, RECEIVERS) {
            let Some(key) = self.nodes[*to].agent.as_ref().and_then(|agent| agent.sealing_key())
            else {
                continue;
            };
            let receiver = self.nodes[*to].identity;
            let sealed = Sealed { receiver, start, counter: 0, copied: false };
            let after = Duration::from_micros(self.forger.random.random_range(200..5_000));
            let payload = payload.clone();
            self.push(after, Event::Datagram { to: *to, from, key, sealed, payload });
        }
    }

    /// A row that a node would act upon, in the name of `name`; once in a while in a name that is nobody's. `seen` is a
    /// node whose table the forger has read.
    fn forged_row(&mut self, seen: usize, name: NodeId, members: &[NodeId]) -> Option<Entry> {
        let (time, fabric, own) = (true_wall(self.time), self.fabric, self.forger.own);
        let signer = self.signer(own);
        let core = self.nodes[seen].core()?;
        let forger = &mut self.forger;
        forger.rows += 1;
        let kind = forger.random.random_range(0..6u8);
        let jobs: Vec<&Key> = {
            let entries = core.entries().filter(|entry| matches!(entry.value, Value::Job(_)));
            entries.map(|entry| &entry.key).collect()
        };
        let (key, value) = match (kind, jobs.choose(&mut forger.random)) {
            (0, Some(job)) => ((*job).clone(), Value::Tombstone { rank: forger.rows }),
            (1, _) => {
                let set = core.entries().find_map(|entry| match &entry.value {
                    Value::Voters(set) => Some(set),
                    _ => None,
                })?;
                let members = vec![Member { node: name, incarnation: 1 }];
                let set = VoterSet { generation: set.generation + 1, members, ..*set };
                (Key::Voters, Value::Voters(set))
            }
            (2, _) => {
                let me = RosterEntry { name: "me".into(), vouched_by: name, joined: time };
                (Key::Roster(own), Value::Roster(me))
            }
            (3, _) => {
                let victim = members.choose(&mut forger.random)?;
                (Key::Roster(*victim), Value::Tombstone { rank: 0 })
            }
            _ => {
                let spec = workload::service(JobName::new("forged").expect("a job's name"));
                let (version, generation, previous) = (forger.rows, 0, None);
                let by = "nobody".into();
                let job = JobEntry { spec, version, generation, previous, reverted: false, by };
                (Key::Job(job.spec.name.clone()), Value::Job(Box::new(job)))
            }
        };
        let node = if kind == 5 { own } else { name };
        let reading = time.0 << 16 | COUNTER | (forger.rows & 0xfff);
        // It can sign with a key of its own, or take the signature of a row that was really written.
        let mut entry = Entry::written(&fabric, &signer, key, Stamp { reading, node }, value);
        if kind != 5 && forger.random.random() {
            let real = core.entries().filter(|entry| entry.stamp.node == name);
            entry.signature = real.filter_map(|entry| entry.signature.clone()).last();
        }
        Some(entry)
    }
}
