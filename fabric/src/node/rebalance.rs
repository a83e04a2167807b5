//! Rebalancing when somebody asks for it: what may be moved by this node's own view, the moves that the pure function
//! finds, and how a coordinator makes them: a second allocation there, and the first ends when that is healthy.

use crate::alloc::Phase;
use crate::api::{self, HolesView, MoveView, Problem, ProblemKind, Rebalance, RebalanceBody};
use crate::clock::{Instant, Now};
use crate::id::{AllocId, NodeId};
use crate::job::{Guarantee, JobKind, JobSpec};
use crate::limits;
use crate::message::Message;
use crate::placement::Placer;
use crate::placement::rebalance::{Holes, Movable, holes, rebalance};
use crate::table::SharedEntry;

use super::Node;
use super::slots::{Slot, taken};

/// A move that a coordinator was asked to make.
#[derive(Clone, Debug)]
pub(super) struct Relocation {
    /// What is to go.
    alloc: AllocId,
    from: NodeId,
    /// Where the slot is to be next.
    pub to: NodeId,
    /// After this nothing comes of it any more.
    pub until: Instant,
}

impl Node {
    /// Finds moves and, if that is wished for, asks the jobs' coordinators to make them.
    pub(super) fn rebalance(
        &mut self,
        now: Now,
        body: &RebalanceBody,
    ) -> Result<Rebalance, Problem> {
        if body.max_moves == 0 || body.max_moves > limits::MOVES_MAX {
            return Err(Problem::new(
                ProblemKind::Invalid,
                "that many moves at a time are not made",
                format!("max_moves is 1 to {}, not {}", limits::MOVES_MAX, body.max_moves),
            ));
        }
        let mut fleet = self.current_fleet().into_owned();
        let before = holes(&fleet);
        let movable = self.movable(body.at_most_one);
        let moves = rebalance(&mut fleet, &movable, body.max_moves as usize);
        let after = holes(&fleet);
        let shown = moves.iter().map(|made| MoveView {
            slot: made.alloc.slot.clone(),
            from: made.from,
            from_name: self.name_of(&made.from),
            to: made.to,
            to_name: self.name_of(&made.to),
            gain: made.gain.to_string(),
        });
        let answer = Rebalance {
            applied: body.apply,
            moves: shown.collect(),
            before: view(before),
            after: view(after),
        };
        if body.apply {
            for made in moves {
                let coordinator = self.coordinator_of(&made.alloc.slot.job);
                let (alloc, from, to) = (made.alloc, made.from, made.to);
                self.send_wish(now, coordinator, Message::Move { alloc, from, to });
            }
        }
        Ok(answer)
    }

    /// What is well where it is and may nevertheless go: one healthy allocation of the version in force, of a
    /// service that is no gang and, unless that is wished for, not at-most-one.
    fn movable(&self, at_most_one: bool) -> Vec<Movable<'_>> {
        let mut movable = Vec::new();
        for (name, job, _) in self.replica.jobs() {
            let (spec, ..) = job.effective();
            let is_bound = spec.guarantee == Guarantee::AtMostOne && !at_most_one;
            if spec.kind != JobKind::Service || spec.gang || is_bound {
                continue;
            }
            let hash = job.hash();
            let live = self
                .replica
                .allocs_of(name)
                .filter(|(_, node, row, _)| row.phase.holds_claim() && self.is_up(node));
            let live: Vec<_> = live.collect();
            for (slot, node, row, _) in &live {
                let alone = live.iter().filter(|(other, ..)| other == slot).count() == 1;
                let is_well = row.phase == Phase::Running && row.healthy && row.spec == hash;
                let stays = self.replica.node(node).is_some_and(|info| !info.draining);
                if alone && is_well && stays && slot.index < spec.count {
                    let alloc = row.of((*slot).clone());
                    movable.push(Movable { alloc, node: *node, spec });
                }
            }
        }
        movable
    }

    /// A member passes on a user's wish: a slot is to move.
    pub(super) fn handle_move(&mut self, now: Now, alloc: AllocId, from: NodeId, to: NodeId) {
        let is_known = self.replica.alloc(&alloc.slot, &from).is_some_and(|row| row.is_of(&alloc));
        if !is_known || self.coordinator.moves.len() >= limits::MOVES_KEPT_MAX {
            return;
        }
        let slot = alloc.slot.clone();
        self.replica.look_at(slot.job.clone());
        self.timers.soon = true;
        let until = now.at + limits::MOVE_WITHIN;
        self.coordinator.moves.insert(slot, Relocation { alloc, from, to, until });
    }

    /// Moves of a job's slots that were asked for: at most `max_parallel` slots are on their way at a time.
    pub(super) fn make_moves(
        &mut self,
        now: Now,
        spec: &JobSpec,
        job: &SharedEntry,
        slots: &[Slot],
    ) {
        let moving = slots.iter().filter(|slot| slot.current.len() > 1 || slot.proposed).count();
        let mut room = (spec.update.max_parallel as usize).saturating_sub(moving);
        let mut placer = None;
        for slot in slots {
            let Some(wish) = self.coordinator.moves.get(&slot.id).cloned() else { continue };
            let is_there = slot.current.iter().any(|(node, _)| *node == wish.to);
            let to_go = |(node, row): &(NodeId, crate::alloc::AllocRow)| {
                *node == wish.from && row.is_of(&wish.alloc)
            };
            let can_go = slot.outdated.is_empty() && slot.current.iter().any(to_go);
            let is_between = spec.guarantee == Guarantee::AtMostOne && !can_go;
            if is_there || wish.until <= now.at || !can_go && !is_between {
                self.coordinator.moves.remove(&slot.id);
                continue;
            }
            if slot.proposed || slot.current.len() > 1 || room == 0 || is_between {
                continue;
            }
            if placer.is_none() {
                self.ensure_fleet(now);
            }
            let placer: &mut Placer<'_> = placer
                .get_or_insert_with(|| Placer::new(self.replica.fleet(), spec, &taken(slots)));
            let avoid = self.avoided(now, &slot.id);
            let Some(choice) = placer.choose_there(self.replica.fleet(), &wish.to, &avoid) else {
                continue;
            };
            room -= 1;
            let (from, to) = (self.name_of(&wish.from), self.name_of(&wish.to));
            let message = format!("{} moves from {from} to {to}", slot.id);
            let version = self.replica.job(&slot.id.job).map_or(0, |job| job.effective().1);
            self.event(now, api::EventKind::Job { job: slot.id.job.clone(), version, message });
            if spec.guarantee == Guarantee::AtMostOne {
                self.ask_to_retire(now, wish.from, wish.alloc, "it moves to another node");
            } else {
                self.offer(now, spec, choice, slot, job);
            }
        }
    }
}

fn view(holes: Holes) -> HolesView {
    HolesView { cores: holes.cores, memory: holes.memory << 20 }
}
