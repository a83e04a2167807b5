//! Agents start, join, and find each other.

use fabric::id::NodeId;
use fabric::io::{Input, Request};
use fabric::level::LEVEL;
use fabric::node::{Config, Node, Origin};
use fabric::table::{Entry, TokenId};
use fabric::topology::NodeInfo;
use rand::RngExt;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::{Event, Purpose, World};
use crate::node::{Agent, fresh_identity};

/// How long a joining node waits before it asks again.
const JOIN_RETRY: Duration = Duration::from_secs(3);

impl World {
    pub(super) fn boot(&mut self, node: usize) {
        if self.nodes[node].agent.is_some() || !self.nodes[node].powered {
            return;
        }
        if self.nodes[node].disk.is_empty() {
            // It died before anything of its membership was on disk: nobody let it in.
            if self.nodes[node].joined {
                self.nodes[node].identity = fresh_identity(&mut self.random);
                self.nodes[node].joined = false;
            }
            return self.push(Duration::ZERO, Event::Join { node });
        }
        if self.nodes[node].level < LEVEL && self.random.random() {
            self.nodes[node].level = LEVEL;
            self.tell(|world| format!("agent of {} is upgraded", world.nodes[node].name));
        }
        let rows = self.nodes[node].disk.restore();
        let at = self.nodes[node].clock.read(self.time).at;
        let handover = self.nodes[node].handover.take();
        let handover = handover.map(|(mut handover, since)| {
            handover.age(at.since(since));
            handover
        });
        self.start_agent(node, Origin::Restored { rows, handover });
    }

    pub(super) fn start_agent(&mut self, node: usize, origin: Origin) {
        let seed = self.random.random();
        let now = self.nodes[node].clock.read(self.time);
        let signer = Arc::new(self.signer(self.nodes[node].identity));
        let starting = &mut self.nodes[node];
        // As the agent does: by its clock, or else far enough from the last life, which may have had several numbers.
        starting.generation = now.wall.0.max(starting.generation + 1000);
        starting.paused_until = Duration::ZERO;
        let config = Config {
            id: starting.identity,
            info: NodeInfo {
                name: starting.name.clone(),
                labels: starting.hardware.labels.clone(),
                topology: starting.hardware.topology.clone(),
                addresses: vec![starting.address],
                version: "0.1.0".into(),
                executor: "systemd".into(),
                draining: false,
                impaired: None,
                started: now.wall,
                witness: false,
                incarnation: 0,
                level: starting.level,
                reached: 0,
                seen: None,
            },
            fabric: self.fabric,
            fabric_name: "sim".into(),
            signer,
            generation: starting.generation,
            seed,
            canary: self.settings.canary,
            level: starting.level,
            bounds: starting.bounds,
        };
        let core = Node::new(now, config, origin);
        starting.agent = Some(Agent::new(core, self.time));
        let found = starting.units.list();
        self.book.started(self.time, node);
        self.tell(|world| format!("agent of {} starts", world.nodes[node].name));
        self.feed(node, Input::Units(found));
        if !self.nodes[node].connected {
            self.tell_link(node);
        }
        self.discover(node);
    }

    /// An agent announces itself and hears who else is there.
    fn discover(&mut self, node: usize) {
        for peer in self.running() {
            if peer == node {
                continue;
            }
            for (listener, heard) in [(node, peer), (peer, node)] {
                if !self.network.reaches(heard, listener) || !self.network.reaches(listener, heard)
                {
                    continue;
                }
                let (id, address) = (self.nodes[heard].identity, self.nodes[heard].address);
                let after = Duration::from_millis(self.random.random_range(100..3000));
                let (life, input) =
                    (self.life(listener), Box::new(Input::Found { node: id, address }));
                self.push(after, Event::Input { node: listener, life, input });
            }
        }
    }

    pub(super) fn rediscover(&mut self) {
        for node in self.running() {
            self.discover(node);
        }
        if let Some(every) = self.settings.rediscovery {
            self.push(every, Event::Rediscover);
        }
    }

    pub(super) fn join(&mut self, node: usize) {
        if self.nodes[node].joined || !self.nodes[node].powered {
            return;
        }
        self.push(JOIN_RETRY, Event::Join { node });
        let members: Vec<usize> = self
            .running()
            .into_iter()
            .filter(|member| self.network.connects(*member, node))
            .filter(|member| self.nodes[*member].is_awake(self.time))
            .collect();
        if members.is_empty() {
            return;
        }
        let member = members[self.random.random_range(0..members.len())];
        self.tokens += 1;
        let token = TokenId(format!("token{}", self.tokens));
        let request = Request::AddToken {
            id: token.clone(),
            secret_hash: [7; 32],
            lifetime: Duration::from_secs(3600),
            labels: BTreeMap::new(),
        };
        let purpose = Purpose::Token { newcomer: node, token };
        self.ask(member, "token create".into(), request, purpose);
    }

    pub(super) fn welcome(&mut self, node: usize, identity: NodeId, entries: Vec<Entry>) {
        let newcomer = &mut self.nodes[node];
        if newcomer.joined || !newcomer.powered || newcomer.identity != identity {
            return;
        }
        newcomer.joined = true;
        self.start_agent(node, Origin::Joined { entries });
    }
}
