//! What users ask of a node, and the answers.

use std::collections::{BTreeMap, BTreeSet};

use crate::api::{Problem, ProblemKind, Submitted};
use crate::clock::{Instant, Now};
use crate::id::{JobName, NodeId, SlotId};
use crate::io::{Answer, Request, RequestId};
use crate::job::JobSpec;
use crate::limits;
use crate::message::Message;
use crate::signature::{SIGNATURE_BYTES, Signature};
use crate::table::{
    Entry, JobEntry, Key, Keyring, Merge, Previous, RosterEntry, SharedEntry, TokenEntry, TokenId,
    Value,
};

use super::{Canary, Node};

/// Requests that wait for others.
#[derive(Debug, Default)]
pub(super) struct Requests {
    /// Submits that wait until others hold the job.
    waiting: BTreeMap<u64, Waiting>,
    last_ticket: u64,
    /// Entries of others that we confirm once they are on disk.
    owed: Vec<Owed>,
}

#[derive(Debug)]
struct Waiting {
    id: RequestId,
    submitted: Submitted,
    sequence: u64,
    asked: BTreeSet<NodeId>,
    held: BTreeSet<NodeId>,
    /// When it is looked whether anybody has it.
    deadline: Instant,
    /// When it is answered in any case.
    last: Instant,
}

/// In place of the number of a write that the disk has refused.
const REFUSED: u64 = u64::MAX;

#[derive(Debug)]
struct Owed {
    to: NodeId,
    ticket: u64,
    sequence: u64,
}

impl Requests {
    pub fn next_deadline(&self) -> Option<Instant> {
        self.waiting.values().map(|waiting| waiting.deadline).min()
    }
}

type Outcome = Result<Answer, Problem>;

impl Node {
    pub(super) fn handle_request(&mut self, now: Now, id: RequestId, request: Request) {
        if self.is_removed() {
            let problem = Problem::new(
                ProblemKind::Conflict,
                "this node was removed from the fabric",
                "ask a member; to use this one again, stop its agent, empty its state directory, start it, and join \
                 with a new token",
            );
            return self.answer(id, Answer::Refused(problem));
        }
        if self.is_too_old() {
            let problem = Problem::new(
                ProblemKind::Conflict,
                "this agent is too old for its fabric",
                "the fabric writes what it cannot read: upgrade it, or ask another member",
            );
            return self.answer(id, Answer::Refused(problem));
        }
        let outcome = match request {
            Request::Submit { spec, by, expected_version } => {
                match self.submit(now, *spec, by, expected_version) {
                    Ok(submitted) => return self.hold_elsewhere(now, id, submitted),
                    Err(Conclusion::Unchanged(submitted)) => Ok(Answer::Submitted(submitted)),
                    Err(Conclusion::Refused(problem)) => Err(problem),
                }
            }
            Request::Scale { job, count, by } => match self.scaled(&job, count) {
                Ok(spec) => {
                    let request =
                        Request::Submit { spec: Box::new(spec), by, expected_version: None };
                    return self.handle_request(now, id, request);
                }
                Err(problem) => Err(problem),
            },
            Request::RestartJob { job, by } => match self.restarted(&job, by) {
                Ok(entry) => match self.write_job(now, entry) {
                    Ok(submitted) => return self.hold_elsewhere(now, id, submitted),
                    Err(problem) => Err(problem),
                },
                Err(problem) => Err(problem),
            },
            Request::RestartSlot { job, index } => self.restart_slot(now, job, index),
            Request::Stop { job } => match self.job_or_problem(&job) {
                Ok(entry) => {
                    let (version, gone) = (entry.version, Value::Tombstone { rank: entry.version });
                    match self.write_wish(now, Key::Job(job.clone()), gone) {
                        Ok(()) => {
                            let submitted = self.submitted(&job, version, true);
                            return self.hold_elsewhere(now, id, submitted);
                        }
                        Err(problem) => Err(problem),
                    }
                }
                Err(problem) => Err(problem),
            },
            Request::Drain { node, on } => self.drain(now, node, on),
            Request::Rebalance { wish } => self.rebalance(now, &wish).map(Answer::Rebalanced),
            Request::AddToken { id, secret_hash, lifetime, labels } => {
                let expires =
                    crate::clock::WallTime(now.wall.0.saturating_add(lifetime.as_millis() as u64));
                let token = TokenEntry { secret_hash, expires, labels };
                self.write_wish(now, Key::Token(id), Value::Token(token)).map(|()| Answer::Done)
            }
            Request::RevokeToken { id } => self.revoke(now, id),
            Request::Enrol { node, name, token, secret_hash, level } => {
                match self.check_joiner(level) {
                    Ok(()) => self.enrol(now, node, name, token, secret_hash),
                    Err(problem) => Err(problem),
                }
            }
            Request::Remove { node, new_key, force } => self.remove(now, node, new_key, force),
            Request::SetQuota { namespace, quota, force } => {
                self.set_quota(now, namespace, quota, force)
            }
            Request::RemoveQuota { namespace } => self.remove_quota(now, namespace),
            Request::Reclock => self.reclock(now),
        };
        self.timers.soon = true;
        self.answer(id, outcome.unwrap_or_else(Answer::Refused));
    }

    fn submit(
        &mut self,
        now: Now,
        spec: JobSpec,
        by: String,
        expected_version: Option<u64>,
    ) -> Result<Submitted, Conclusion> {
        if let Err(error) = spec.validate() {
            return Err(refused(ProblemKind::Invalid, "the job is not valid", error.to_string()));
        }
        if let Err(problem) = self.room_for_leases(&spec) {
            return Err(Conclusion::Refused(problem));
        }
        self.check_whole_job(&spec).map_err(Conclusion::Refused)?;
        let key = Key::Job(spec.name.clone());
        let before = self.replica.entry(&key).cloned();
        let (version, existing) = match before.as_ref().map(|entry| &entry.value) {
            Some(Value::Job(job)) => (job.version, Some(&**job)),
            Some(Value::Tombstone { rank }) => (*rank, None),
            _ => (self.last_version_of(&spec.name), None),
        };
        let seen = existing.map_or(0, |job| job.version);
        if expected_version.is_some_and(|expected| expected != seen) {
            return Err(refused(
                ProblemKind::Conflict,
                "the job has changed in the meantime",
                format!("it is at version {seen}: look at the plan again"),
            ));
        }
        if let Some(job) = existing
            && !job.reverted
            && job.spec == spec
        {
            return Err(Conclusion::Unchanged(self.submitted(&spec.name, version, false)));
        }
        let entry = JobEntry {
            generation: existing.map_or(0, |job| job.generation),
            previous: existing.and_then(|job| self.good_version(job)),
            spec,
            version: version + 1,
            reverted: false,
            by,
        };
        let room = Entry {
            key: key.clone(),
            stamp: crate::stamp::Stamp { reading: u64::MAX, node: self.config.id },
            value: Value::Job(Box::new(entry.clone())),
            signature: Some(Signature::new([0; SIGNATURE_BYTES])),
        };
        if room.encode().len() > limits::ENTRY_BYTES_MAX {
            return Err(refused(
                ProblemKind::TooLarge,
                "the job is too large",
                format!(
                    "with the version before it, it may take {} bytes",
                    limits::ENTRY_BYTES_MAX
                ),
            ));
        }
        self.write_job(now, entry).map_err(Conclusion::Refused)
    }

    /// The last version of a job that was deleted and whose tombstone has left, as far as rows of its allocations tell:
    /// theirs are not to be taken for the rows of a new one.
    fn last_version_of(&self, job: &JobName) -> u64 {
        self.replica.allocs_of(job).map(|(_, _, row, _)| row.version).max().unwrap_or(0)
    }

    fn write_job(&mut self, now: Now, entry: JobEntry) -> Result<Submitted, Problem> {
        let (name, version) = (entry.spec.name.clone(), entry.version);
        self.write_wish(now, Key::Job(name.clone()), Value::Job(Box::new(entry)))?;
        Ok(self.submitted(&name, version, true))
    }

    /// Writes what a user asked for, who is told if the table does not take it.
    pub(super) fn write_wish(&mut self, now: Now, key: Key, value: Value) -> Result<(), Problem> {
        self.check_level(&value)?;
        let full = match &key {
            Key::Job(_) => format!(
                "{} names of jobs are in use, those of deleted jobs included, and there is room for no more: a name \
                 that was used before can be used again{}",
                self.config.bounds.jobs,
                self.why_names_stay()
            ),
            Key::Quota(_) => format!(
                "{} namespaces have a quota or had one, and there is room for no more{}",
                self.config.bounds.quotas,
                self.why_names_stay()
            ),
            _ => format!("it has {} entries, and room for no more", self.config.bounds.entries),
        };
        let merge = match self.replica.has_room(&key) {
            true => self.write(now, key, value),
            false => Merge::Refused,
        };
        match merge {
            Merge::Taken => Ok(()),
            Merge::Refused if self.config.canary == Some(Canary::IgnoresFull) => Ok(()),
            Merge::Known => Err(Problem::new(
                ProblemKind::Conflict,
                "the table of the fabric has something newer",
                "it is dated ahead of this node's time: `weft doctor` says by whose clock, and `weft fabric \
                 reclock` dates it anew",
            )),
            Merge::Refused => Err(Problem::new(
                ProblemKind::Conflict,
                "the table of the fabric is full",
                format!("{full}; nothing was changed, and what runs runs on"),
            )),
        }
    }

    fn submitted(&self, job: &JobName, version: u64, changed: bool) -> Submitted {
        let members = self.replica.members() as u32;
        Submitted { job: job.clone(), version, changed, held_by: members.min(1), members }
    }

    /// The version to go back to: the one in force if all of its slots are healthy, else the one
    /// before.
    fn good_version(&self, job: &JobEntry) -> Option<Box<Previous>> {
        let (spec, version, generation) = job.effective();
        let hash = job.hash();
        let healthy: BTreeSet<u32> = self
            .replica
            .allocs_of(&spec.name)
            .filter(|(_, _, row, _)| row.spec == hash && row.healthy && row.phase.is_live())
            .map(|(slot, ..)| slot.index)
            .collect();
        if job.reverted || (healthy.len() as u32 >= spec.count && spec.count > 0) {
            Some(Box::new(Previous { spec: spec.clone(), version, generation }))
        } else {
            job.previous.clone()
        }
    }

    fn scaled(&self, job: &JobName, count: u32) -> Result<JobSpec, Problem> {
        let entry = self.job_or_problem(job)?;
        let mut spec = entry.effective().0.clone();
        spec.count = count;
        Ok(spec)
    }

    fn restarted(&self, job: &JobName, by: String) -> Result<JobEntry, Problem> {
        let entry = self.job_or_problem(job)?;
        let (spec, _, generation) = entry.effective();
        Ok(JobEntry {
            spec: spec.clone(),
            version: entry.version + 1,
            generation: generation.max(entry.generation) + 1,
            previous: self.good_version(entry),
            reverted: false,
            by,
        })
    }

    fn job_or_problem(&self, job: &JobName) -> Result<&JobEntry, Problem> {
        self.replica.job(job).ok_or_else(|| no_such_job(job))
    }

    fn restart_slot(&mut self, now: Now, job: JobName, index: u32) -> Outcome {
        self.job_or_problem(&job)?;
        let slot = SlotId { job, index };
        let live = self
            .replica
            .allocs_in(&slot)
            .filter(|(_, node, row, _)| row.phase.is_live() && self.is_up(node))
            .max_by_key(|(_, _, row, _)| row.epoch)
            .map(|(_, node, row, _)| (node, row.of(slot.clone())));
        let Some((node, alloc)) = live else {
            return Err(Problem::new(
                ProblemKind::NotFound,
                format!("{slot} is not running"),
                "nothing to restart: `weft explain` says why",
            ));
        };
        if node == self.config.id {
            self.supervisor.restart(now, &slot);
        } else {
            self.send_wish(now, node, Message::Restart { alloc });
        }
        Ok(Answer::Done)
    }

    fn drain(&mut self, now: Now, node: NodeId, on: bool) -> Outcome {
        if node == self.config.id {
            self.set_draining(now, on);
        } else if self.is_up(&node) {
            let by = self.config.id;
            self.send_wish(now, node, Message::Drain { on, by });
        } else {
            return Err(Problem::new(
                ProblemKind::Unreachable,
                format!("{} does not answer", self.name_of(&node)),
                "its work is placed elsewhere already; to keep it out for good, remove it",
            ));
        }
        Ok(Answer::Done)
    }

    fn revoke(&mut self, now: Now, id: TokenId) -> Outcome {
        let key = Key::Token(id.clone());
        match self.replica.entry(&key).map(|entry| &entry.value) {
            Some(Value::Token(_)) => {
                self.write(now, key, Value::Tombstone { rank: 0 });
                Ok(Answer::Done)
            }
            _ => Err(Problem::new(
                ProblemKind::NotFound,
                format!("there is no token {}", id.0),
                "`weft token list` shows those that work",
            )),
        }
    }

    /// Lets a stranger in who shows a good token.
    fn enrol(
        &mut self,
        now: Now,
        node: NodeId,
        name: String,
        token: TokenId,
        secret_hash: [u8; 32],
    ) -> Outcome {
        // One answer for every wrong token: a stranger learns nothing from it.
        let no = || {
            Problem::new(
                ProblemKind::Forbidden,
                "the token is wrong or expired",
                "ask for a new one: `weft token create`",
            )
        };
        let labels = match self.replica.entry(&Key::Token(token)).map(|entry| &entry.value) {
            Some(Value::Token(entry)) if now.wall <= entry.expires => {
                if !same(&entry.secret_hash, &secret_hash) {
                    return Err(no());
                }
                entry.labels.clone()
            }
            _ => return Err(no()),
        };
        // Whoever is a member has lost its welcome on the way.
        if self.replica.members() >= limits::MEMBERS_MAX && !self.replica.is_member(&node) {
            return Err(Problem::new(
                ProblemKind::Conflict,
                "the fabric is full",
                format!("it has {} nodes", limits::MEMBERS_MAX),
            ));
        }
        if !self.replica.has_room(&Key::Roster(node)) {
            return Err(Problem::new(
                ProblemKind::Conflict,
                "the table of the fabric is full",
                format!("it has {} entries, and room for no more", self.config.bounds.entries),
            ));
        }
        if !self.replica.is_member(&node) {
            let name: String = name.chars().take(limits::NODE_NAME_CHARS_MAX).collect();
            let entry = RosterEntry { name, vouched_by: self.config.id, joined: now.wall };
            self.write(now, Key::Roster(node), Value::Roster(entry));
        }
        let entries = self
            .replica
            .entries()
            .filter(|e| {
                // Tokens too: the newcomer may be asked to let in the next one at once.
                matches!(e.key, Key::Roster(_) | Key::Keyring | Key::Node(_) | Key::Token(_))
            })
            .map(|entry| Entry::clone(entry))
            .collect();
        Ok(Answer::Enrolled { labels, entries })
    }

    /// Locks a node out. The tombstone and the new gossip key go out together, over streams; tokens that
    /// it may have seen stop working.
    fn remove(&mut self, now: Now, node: NodeId, new_key: [u8; 32], force: bool) -> Outcome {
        if !self.replica.is_member(&node) {
            return Err(Problem::new(
                ProblemKind::NotFound,
                "no such node",
                "`weft nodes` shows those that belong to the fabric",
            ));
        }
        if node == self.config.id {
            return Err(Problem::new(
                ProblemKind::Conflict,
                "a node cannot remove itself",
                "ask another node to remove it",
            ));
        }
        let declared = self.voters_without(&node, force)?;
        // Told while it is still spoken to: it ends what it runs. Whoever is away now is told when it comes back.
        let stamp = self.time.clock.tick(now.wall);
        let removal = self.written(stamp, Key::Roster(node), Value::Tombstone { rank: 0 });
        let removal = SharedEntry::from(removal);
        self.send(node, Message::News { entries: vec![removal.clone()] });
        self.merge_in(now, removal, true);
        if let Some(set) = declared {
            tracing::warn!(generation = set.generation, "the voters are declared by force");
            self.write(now, Key::Voters, Value::Voters(set));
        }
        let mut keys: BTreeMap<u32, [u8; 32]> = self.replica.keyring().keys;
        let newest = keys.last_key_value().map_or(0, |(id, _)| *id);
        keys.retain(|id, _| *id == newest);
        keys.insert(newest + 1, new_key);
        self.write(now, Key::Keyring, Value::Keyring(Keyring { keys }));
        let tokens: Vec<Key> = self
            .replica
            .entries()
            .filter(|entry| matches!(entry.value, Value::Token(_)))
            .map(|entry| entry.key.clone())
            .collect();
        for token in tokens {
            self.write(now, token, Value::Tombstone { rank: 0 });
        }
        Ok(Answer::Done)
    }

    /// Asks others to hold a job before the user is told that it is accepted.
    fn hold_elsewhere(&mut self, now: Now, id: RequestId, submitted: Submitted) {
        self.timers.soon = true;
        if self.requests.waiting.len() >= limits::HOLDS_MAX {
            return self.answer(id, Answer::Submitted(submitted));
        }
        let cut = self.others.detours.cut().count();
        let asked = self.some_peers(limits::HOLDERS + cut).into_iter();
        let asked = asked.filter(|node| !self.others.detours.is_cut(node)).take(limits::HOLDERS);
        let asked: BTreeSet<NodeId> = asked.collect();
        self.requests.last_ticket += 1;
        let ticket = self.requests.last_ticket;
        let key = Key::Job(submitted.job.clone());
        let entries: Vec<SharedEntry> = self.replica.entry(&key).cloned().into_iter().collect();
        for node in &asked {
            self.send(*node, Message::Hold { ticket, entries: entries.clone() });
        }
        let waiting = Waiting {
            id,
            submitted,
            sequence: self.replica.disk().next_sequence(),
            asked,
            held: BTreeSet::new(),
            deadline: now.at + limits::HOLD_TIMEOUT,
            last: now.at + limits::HOLD_TIMEOUT_MAX,
        };
        self.requests.waiting.insert(ticket, waiting);
    }

    pub(super) fn owe_held(&mut self, to: NodeId, ticket: u64) {
        if self.requests.owed.len() < limits::HOLDS_MAX {
            let sequence = self.replica.disk().next_sequence();
            self.requests.owed.push(Owed { to, ticket, sequence });
            // Also when it was known already, there is a write that it can wait for.
            self.replica.remember(&Key::Roster(self.config.id));
        }
    }

    pub(super) fn handle_held(&mut self, from: NodeId, ticket: u64) {
        if let Some(waiting) = self.requests.waiting.get_mut(&ticket)
            && waiting.asked.contains(&from)
        {
            waiting.held.insert(from);
            self.answer_held();
        }
    }

    /// The disk refused what these wait for.
    pub(super) fn disown(&mut self, sequence: u64) {
        self.requests.owed.retain(|owed| owed.sequence < sequence);
        for waiting in self.requests.waiting.values_mut() {
            if waiting.sequence >= sequence {
                waiting.sequence = REFUSED;
            }
        }
    }

    /// Answers and confirms what is on disk by now.
    pub(super) fn answer_held(&mut self) {
        let mut due = Vec::new();
        let disk = &self.replica.disk_mut();
        self.requests.owed.retain(|owed| {
            // What it confirms may have been known already, and be among what the disk refused.
            let held = disk.holds(owed.sequence) && disk.is_whole();
            if held {
                due.push((owed.to, owed.ticket));
            }
            !held
        });
        for (to, ticket) in due {
            self.send(to, Message::Held { ticket });
        }
        let complete = |waiting: &Waiting| {
            self.replica.disk().holds(waiting.sequence) && waiting.held.len() == waiting.asked.len()
        };
        let complete: Vec<u64> = self
            .requests
            .waiting
            .iter()
            .filter(|(_, waiting)| complete(waiting))
            .map(|(ticket, _)| *ticket)
            .collect();
        for ticket in complete {
            self.conclude(ticket);
        }
    }

    /// Submits that waited long enough are answered with the holders that there are. Where nobody has it yet, and this disk has
    /// not refused it, they wait on.
    pub(super) fn expire_requests(&mut self, now: Now) {
        let (mut expired, mut silent) = (Vec::new(), Vec::new());
        for (ticket, waiting) in &mut self.requests.waiting {
            if waiting.deadline > now.at {
                continue;
            }
            let has_none = waiting.held.is_empty() && !self.replica.disk().holds(waiting.sequence);
            if has_none && waiting.sequence != REFUSED && now.at < waiting.last {
                waiting.deadline = waiting.last.min(now.at + limits::HOLD_LOOK);
            } else {
                silent.extend(waiting.asked.difference(&waiting.held));
                expired.push(*ticket);
            }
        }
        for node in silent {
            self.miss(now, node);
        }
        for ticket in expired {
            self.conclude(ticket);
        }
    }

    fn conclude(&mut self, ticket: u64) {
        let Some(waiting) = self.requests.waiting.remove(&ticket) else { return };
        let here = u32::from(self.replica.disk().holds(waiting.sequence));
        let held_by = here + waiting.held.len() as u32;
        let answer = if held_by == 0 {
            Answer::Refused(Problem::new(
                ProblemKind::Unavailable,
                "no disk took the job",
                "it may run, but a power cut would lose it: look at `weft doctor`, then submit again",
            ))
        } else {
            Answer::Submitted(Submitted { held_by, ..waiting.submitted })
        };
        self.answer(waiting.id, answer);
    }
}

enum Conclusion {
    /// The job is like that already.
    Unchanged(Submitted),
    Refused(Problem),
}

fn refused(kind: ProblemKind, title: &str, detail: String) -> Conclusion {
    Conclusion::Refused(Problem::new(kind, title, detail))
}

pub(super) fn no_such_job(job: &JobName) -> Problem {
    Problem::new(
        ProblemKind::NotFound,
        format!("there is no job {job}"),
        "`weft jobs` shows those that there are",
    )
}

/// Compares without telling by the time it takes where the difference is.
fn same(a: &[u8; 32], b: &[u8; 32]) -> bool {
    a.iter().zip(b).fold(0, |difference, (a, b)| difference | (a ^ b)) == 0
}

#[cfg(test)]
mod tests;
