//! What a node can be asked about itself and its fabric. Reading only.

use std::borrow::Cow;
use std::cell::OnceCell;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use crate::alloc::{AllocRow, Ending, Phase};
use crate::api::{
    AllocView, Explanation, FabricStatus, Free, JobState, JobVersion, JobView, NodeState, NodeView,
    Plan, Problem, ProblemKind, SlotAction, SlotExplanation, SlotPlan, TokenView, VoterView,
    VotersView,
};
use crate::clock::{Now, WallTime};
use crate::cpuset::CpuSet;
use crate::id::{AllocId, JobName, NodeId, SlotId};
use crate::job::{Guarantee, JobKind, JobSpec, SpecHash};
use crate::lease::Verdict;
use crate::limits;
use crate::placement::{Fleet, Placer};
use crate::resources::Rejection;
use crate::table::{Entry, JobEntry, Key, Keyring, RosterEntry, Value};
use crate::voters::Member;

use super::requests::no_such_job;
use super::{Counters, Node};

/// What there is to say of a slot that is well.
const AS_WANTED: &str = "as wanted";

impl Node {
    /// This node's key.
    pub fn id(&self) -> NodeId {
        self.config.id
    }

    /// Whether `node` belongs to the fabric. Nobody else is listened to.
    pub fn is_member(&self, node: &NodeId) -> bool {
        self.replica.is_member(node)
    }

    /// The nodes that belong to the fabric.
    pub fn roster(&self) -> Vec<(NodeId, RosterEntry)> {
        self.replica.roster().map(|(node, entry)| (node, entry.clone())).collect()
    }

    /// The gossip keys.
    pub fn keyring(&self) -> Keyring {
        self.replica.keyring()
    }

    /// Where a member said it can be reached, best first.
    pub fn addresses(&self, node: &NodeId) -> Vec<SocketAddr> {
        self.replica.node(node).map(|info| info.addresses.clone()).unwrap_or_default()
    }

    /// Ports that jobs of the fabric ask for by number.
    pub fn fixed_ports(&self) -> BTreeSet<u16> {
        let jobs = self.replica.jobs().map(|(_, job, _)| job.effective().0);
        jobs.flat_map(|spec| spec.ports.iter().filter_map(|port| port.fixed)).collect()
    }

    /// Bytes of disk that claims on this node add up to.
    pub fn disk_claimed(&self) -> u64 {
        let claims = self.supervisor.ledger().claims();
        claims.fold(0, |sum, (_, claim)| sum.saturating_add(claim.disk))
    }

    /// CPUs of this node that allocations have for themselves.
    pub fn exclusive_cpus(&self) -> &CpuSet {
        self.supervisor.ledger().exclusive_cpus()
    }

    /// Counts since the start.
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// The whole table in one number: equal on nodes with equal views.
    pub fn fingerprint(&self) -> u64 {
        self.replica.fingerprint()
    }

    /// Entries in the table, and entries still being pushed: what the bounds are about.
    pub fn sizes(&self) -> (usize, usize) {
        (self.replica.len(), self.replica.to_push())
    }

    /// Whether so many members are gone at once that this node doubts itself before it places what they ran.
    pub fn doubts_itself(&self) -> bool {
        self.others.doubt.about().is_some()
    }

    /// Members that are alive and cannot be reached from here, as far as this node found out.
    pub fn cut_off_from(&self) -> Vec<NodeId> {
        self.others.detours.cut().collect()
    }

    /// At most so many members that may pass something on to `node`: alive, and to be reached from here.
    pub fn others_to_ask(&self, node: &NodeId, most: usize) -> Vec<NodeId> {
        let mut found = Vec::new();
        let _ = self.others.membership.find_other(|other| {
            let fits = other != *node && !self.others.detours.is_cut(&other);
            if fits && self.replica.is_member(&other) {
                found.push(other);
            }
            found.len() >= most
        });
        found
    }

    /// This node and a member that it cannot reach although both are alive, in words.
    pub fn broken_pair(&self, with: &NodeId) -> String {
        let (me, other) = (self.name_of(&self.config.id), self.name_of(with));
        format!("{me} and {other} are both alive and cannot reach each other")
    }

    /// How a node is doing.
    pub fn state_of(&self, node: &NodeId) -> NodeState {
        self.others.membership.state(node)
    }

    /// A node's name for people: its host name, with the first digits of its key where two share it.
    pub fn name_of(&self, node: &NodeId) -> String {
        let Some(name) = self.replica.name(node) else { return node.short() };
        let others = self
            .replica
            .members_named(name)
            .saturating_sub(u32::from(self.replica.is_member(node)));
        if others > 0 { node.with_name(name) } else { name.to_owned() }
    }

    /// Verdicts with the names that people are shown.
    fn named(&self, mut verdicts: Vec<crate::api::Verdict>) -> Vec<crate::api::Verdict> {
        for verdict in &mut verdicts {
            verdict.name = self.name_of(&verdict.node);
        }
        verdicts
    }

    /// The first few of these members by name, and how many more there are.
    pub fn names_of(&self, members: &[NodeId]) -> String {
        let names: Vec<String> =
            members.iter().take(limits::REASONS_MAX).map(|node| self.name_of(node)).collect();
        match members.len() - names.len() {
            0 => names.join(", "),
            more => format!("{} and {more} more", names.join(", ")),
        }
    }

    /// What people call the fabric.
    pub fn fabric_name(&self) -> &str {
        &self.config.fabric_name
    }

    /// How many nodes are in which state.
    pub fn node_states(&self) -> BTreeMap<NodeState, u32> {
        let mut nodes = BTreeMap::new();
        for (node, _) in self.replica.roster() {
            *nodes.entry(self.state_of(&node)).or_insert(0) += 1;
        }
        nodes
    }

    /// Members whose agents have stopped and will be back, as they said.
    fn stopped_agents(&self) -> impl Iterator<Item = NodeId> {
        let away = self.others.informed.away().map(|(node, _)| node);
        away.filter(|node| self.replica.is_member(node) && !self.is_up(node))
    }

    /// Whether what a job has on a node runs on although that node's agent has stopped. What needs a lease does not, or not
    /// for long: nobody renews it.
    fn runs_on_without_agent(&self, job: &JobName, node: &NodeId) -> bool {
        let needs_none = |job: &JobEntry| !needs_lease(job.effective().0);
        self.stopped_agents().any(|stopped| stopped == *node)
            && self.replica.job(job).is_some_and(needs_none)
    }

    /// The fabric at a glance.
    pub fn status(&self) -> FabricStatus {
        let nodes = self.node_states();
        let jobs = self.jobs();
        let stopped: Vec<NodeId> = self.stopped_agents().collect();
        let left = self.replica.allocs().filter(|(slot, node, row, _)| {
            let well = row.healthy && row.phase.is_live();
            well && self.runs_on_without_agent(&slot.job, node)
        });
        FabricStatus {
            name: self.config.fabric_name.clone(),
            key: self.config.fabric,
            nodes,
            jobs: jobs.len() as u32,
            wanted: jobs.iter().map(|job| job.wanted).sum(),
            healthy: jobs.iter().map(|job| job.healthy).sum(),
            unplaceable: jobs
                .iter()
                .filter(|job| job.state == JobState::Unplaceable)
                .map(|job| job.wanted.saturating_sub(job.running))
                .sum(),
            fingerprint: format!("{:016x}", self.replica.fingerprint()),
            local_health: self.others.membership.local_health(),
            level: self.level(),
            held_back_by: self.held_back_by().iter().map(|node| self.name_of(node)).collect(),
            voters: self.voters(),
            stopped_agents: stopped.iter().map(|node| self.name_of(node)).collect(),
            left_to_them: left.count() as u32,
            removed: self.is_removed(),
        }
    }

    /// Every node, by name.
    pub fn nodes(&self) -> Vec<NodeView> {
        let mut allocs: BTreeMap<NodeId, Vec<AllocView>> = BTreeMap::new();
        for (slot, node, row, _) in self.replica.allocs() {
            if row.phase.holds_claim() {
                allocs.entry(node).or_default().push(self.alloc_view(slot, node, row));
            }
        }
        let (members, fleet) = (self.replica.roster(), self.current_fleet());
        let mut nodes: Vec<NodeView> = members
            .map(|(node, _)| self.view_of(node, &fleet, allocs.remove(&node).unwrap_or_default()))
            .collect();
        nodes.sort_by(|a, b| (&a.name, a.id).cmp(&(&b.name, b.id)));
        nodes
    }

    /// One node.
    pub fn node_view(&self, node: NodeId) -> NodeView {
        let allocs = self
            .replica
            .allocs()
            .filter(|(_, owner, row, _)| *owner == node && row.phase.holds_claim())
            .map(|(slot, owner, row, _)| self.alloc_view(slot, owner, row))
            .collect();
        self.view_of(node, &self.current_candidate(node), allocs)
    }

    fn view_of(&self, node: NodeId, fleet: &Fleet, allocs: Vec<AllocView>) -> NodeView {
        NodeView {
            id: node,
            name: self.name_of(&node),
            state: self.state_of(&node),
            local: node == self.config.id,
            info: self.replica.node(&node).cloned(),
            free: fleet.get(&node).map_or_else(Free::default, |c| c.ledger().free()),
            allocs,
        }
    }

    /// Finds a node by name, key, or the first digits of its key.
    pub fn find_node(&self, name: &str) -> Result<NodeId, Problem> {
        let members: Vec<NodeId> = self.replica.roster().map(|(node, _)| node).collect();
        let named: Vec<NodeId> =
            members.iter().copied().filter(|node| self.name_of(node) == name).collect();
        if let [node] = named[..] {
            return Ok(node);
        }
        let keyed: Vec<NodeId> = members
            .iter()
            .copied()
            .filter(|node| name.len() >= 4 && node.to_string().starts_with(name))
            .collect();
        match keyed[..] {
            [node] => Ok(node),
            [] => Err(Problem::new(
                ProblemKind::NotFound,
                format!("there is no node {name:?}"),
                "`weft nodes` shows those that belong to the fabric",
            )),
            _ => Err(Problem::new(
                ProblemKind::NotFound,
                format!("{name:?} could be one of {} nodes", keyed.len()),
                "give more digits of the key",
            )),
        }
    }

    /// Every job, by name.
    pub fn jobs(&self) -> Vec<JobView> {
        let fleet = OnceCell::new();
        self.replica.jobs().map(|(_, job, entry)| self.job_view(job, entry, &fleet)).collect()
    }

    /// The names of all jobs.
    pub fn job_names(&self) -> impl Iterator<Item = &str> {
        self.replica.jobs().map(|(name, ..)| name.as_str())
    }

    /// One job.
    pub fn job(&self, name: &JobName) -> Result<JobView, Problem> {
        let entry = self.replica.entry(&Key::Job(name.clone()));
        match (self.replica.job(name), entry) {
            (Some(job), Some(entry)) => Ok(self.job_view(job, entry, &OnceCell::new())),
            _ => Err(no_such_job(name)),
        }
    }

    /// The versions of a job that the table has, the newest first: the one that was submitted last, and the last one before it
    /// that was healthy on all slots. At most two.
    pub fn versions(&self, name: &JobName) -> Result<Vec<JobVersion>, Problem> {
        let job = self.replica.job(name).ok_or_else(|| no_such_job(name))?;
        let (_, in_force, _) = job.effective();
        let previous = job.previous.as_ref().map(|it| (it.version, &it.spec));
        let versions = [(job.version, &job.spec)].into_iter().chain(previous);
        let view = |(version, spec): (u64, &JobSpec)| JobVersion {
            version,
            in_force: version == in_force,
            spec: spec.clone(),
        };
        Ok(versions.map(view).collect())
    }

    /// `fleet` is filled when the view needs it, and serves the next one.
    fn job_view<'a>(
        &'a self,
        job: &JobEntry,
        entry: &Entry,
        fleet: &OnceCell<Cow<'a, Fleet>>,
    ) -> JobView {
        let (spec, version, _) = job.effective();
        let hash = job.hash();
        let live: Vec<(u32, NodeId, &AllocRow)> = self
            .replica
            .allocs_of(&spec.name)
            .filter(|(_, node, row, _)| row.phase.is_live() && self.is_up(node))
            .map(|(slot, node, row, _)| (slot.index, node, row))
            .collect();
        let count = |keep: &dyn Fn(&AllocRow) -> bool| match spec.kind {
            JobKind::Service => {
                let slots: BTreeSet<u32> = live
                    .iter()
                    .filter(|(index, _, row)| *index < spec.count && keep(row))
                    .map(|(index, ..)| *index)
                    .collect();
                slots.len() as u32
            }
            JobKind::System => live.iter().filter(|(_, _, row)| keep(row)).count() as u32,
        };
        let wanted = match spec.kind {
            JobKind::Service => spec.count,
            JobKind::System => self.matching_nodes(spec),
        };
        let running = count(&|row| row.phase == Phase::Running);
        let healthy = count(&|row| row.healthy && row.spec == hash);
        let filled = count(&|_| true);
        let trouble = self.trouble_of(spec, hash);
        let now = Now { at: self.time.looked, wall: self.time.own_wall };
        let (waiting, waits) = match spec.kind {
            JobKind::Service if filled < wanted => {
                let there: BTreeSet<u32> = live.iter().map(|(index, ..)| *index).collect();
                let empty = (0..spec.count).filter(|index| !there.contains(index));
                self.pending_slots(now, spec, empty)
            }
            _ => (0, None),
        };
        let (state, reason) = if self.is_removed() {
            (JobState::Progressing, Some(self.removed_in_words()))
        } else if job.reverted {
            let hash = job.spec.hash(job.generation);
            let failed = self.failure_of(job).or_else(|| self.trouble_of(&job.spec, hash));
            let unknown = || format!("{} has not seen why", self.name_of(&self.config.id));
            let failed = format!(" ({})", failed.unwrap_or_else(unknown));
            let reason = format!(
                "version {} failed{failed}: version {version} is in force again",
                job.version
            );
            (JobState::Reverted, Some(reason))
        } else if healthy >= wanted && live.len() as u32 == wanted {
            (JobState::Healthy, None)
        } else if trouble.is_none() && waiting > 0 && waiting == wanted - filled {
            (JobState::Progressing, waits)
        } else if let Some(refusal) = self.quota_refusal(spec).filter(|_| filled < wanted) {
            let reason = format!("{} of {wanted} slots wait: {refusal}", wanted - filled);
            (JobState::Unplaceable, Some(reason))
        } else if let Some((fit, of)) = self.gang_that_does_not_fit(spec).filter(|_| filled == 0) {
            let reason = format!("{fit} of {of} of the gang fit, none starts before all do");
            (JobState::Unplaceable, Some(reason))
        } else if filled < wanted
            && is_unplaceable(fleet.get_or_init(|| self.current_fleet()), spec)
        {
            let reason = format!("no node can take {} of {wanted} slots", wanted - filled);
            (JobState::Unplaceable, Some(reason))
        } else if let Some(reason) = live
            .iter()
            .any(|(.., row)| row.spec != hash)
            .then(|| fleet.get_or_init(|| self.current_fleet()))
            .and_then(|fleet| self.roll_out_without_a_place(job, fleet))
        {
            (JobState::Unplaceable, Some(reason))
        } else if trouble.is_some() {
            (JobState::Failing, trouble)
        } else {
            (JobState::Progressing, waits)
        };
        JobView {
            name: spec.name.clone(),
            kind: spec.kind,
            spec: spec.clone(),
            version,
            by: job.by.clone(),
            submitted: entry.stamp.wall(),
            wanted,
            running,
            healthy,
            coordinator: Some(self.coordinator_of(&spec.name)),
            state,
            reason,
            failed: self.failed_version(job),
            reverts_to: self.reverts_to(job, live.iter().map(|(.., row)| *row)),
        }
    }

    /// The version that comes back into force should the one that is there now fail: while another one still runs, or none
    /// of this one is healthy.
    fn reverts_to<'r>(
        &self,
        job: &JobEntry,
        mut live: impl Iterator<Item = &'r AllocRow> + Clone,
    ) -> Option<u64> {
        let previous = job.previous.as_ref().filter(|_| !job.reverted)?;
        let hash = job.hash();
        let under_way = live.clone().any(|row| row.spec != hash)
            || !live.any(|row| row.spec == hash && row.healthy);
        (job.spec.update.auto_revert && under_way).then_some(previous.version)
    }

    fn matching_nodes(&self, spec: &JobSpec) -> u32 {
        self.nodes_for(spec).count() as u32
    }

    /// The nodes that are up and of the kind that `spec` asks for, not draining.
    pub(super) fn nodes_for(&self, spec: &JobSpec) -> impl Iterator<Item = NodeId> {
        let matches = |node: &NodeId| {
            self.replica.node(node).is_some_and(|info| {
                !info.draining && crate::placement::check_kind(spec, *node, info).is_ok()
            })
        };
        let roster = self.replica.roster().map(|(node, _)| node);
        roster.filter(move |node| self.is_up(node) && matches(node))
    }

    /// The last thing that went wrong with any slot in which `hash` is not well. What runs on where nobody answers is well
    /// until something else is known, and its node's silence is no trouble of the job's.
    fn trouble_of(&self, spec: &JobSpec, hash: SpecHash) -> Option<String> {
        // Each copy of a system job is on its own.
        let place = |slot: &SlotId, node: NodeId| match spec.kind {
            JobKind::Service => (slot.index, None),
            JobKind::System => (slot.index, Some(node)),
        };
        let rows = || self.replica.allocs_of(&spec.name).filter(|(.., row, _)| row.spec == hash);
        let (mut well, mut newest) = (BTreeSet::new(), BTreeMap::new());
        for (slot, node, row, _) in rows() {
            let place = place(slot, node);
            let healthy = row.healthy && row.phase.is_live();
            if healthy && self.is_up(&node) {
                well.insert(place);
            }
            let known = newest.entry(place).or_insert((0, WallTime(0), false));
            *known = (*known).max((row.epoch, row.since, healthy));
        }
        well.extend(newest.into_iter().filter(|(_, (.., healthy))| *healthy).map(|(at, _)| at));
        rows()
            .filter(|(slot, node, ..)| {
                slot.index < spec.count && !well.contains(&place(slot, *node))
            })
            .filter_map(|(slot, node, row, written)| {
                let trouble = match (&row.ending, &row.trouble) {
                    (Some(Ending::Failed { reason }), _) => Some(reason),
                    // An old note of what was healthy afterwards.
                    (None, Some(trouble)) if !row.healthy && self.is_up(&node) => Some(trouble),
                    _ => None,
                }?;
                Some((written, format!("{slot} on {}: {trouble}", self.name_of(&node))))
            })
            .max()
            .map(|(_, trouble)| trouble)
    }

    /// Allocations: those that hold a claim, or with `ended` all that are still remembered.
    pub fn allocs(&self, job: Option<&JobName>, ended: bool) -> Vec<AllocView> {
        let of_one = job.into_iter().flat_map(|job| self.replica.allocs_of(job));
        let of_all = job.is_none().then(|| self.replica.allocs()).into_iter().flatten();
        of_one
            .chain(of_all)
            .filter(|(_, _, row, _)| ended || row.phase.holds_claim())
            .map(|(slot, node, row, _)| self.alloc_view(slot, node, row))
            .collect()
    }

    fn alloc_view(&self, slot: &SlotId, node: NodeId, row: &AllocRow) -> AllocView {
        let id = row.of(slot.clone());
        AllocView {
            unit: id.unit(),
            id,
            node,
            node_name: self.name_of(&node),
            node_state: self.state_of(&node),
            agent_stopped: self.runs_on_without_agent(&slot.job, &node),
            address: self.replica.node(&node).and_then(|info| info.addresses.first().copied()),
            current: self.replica.job(&slot.job).is_some_and(|job| job.hash() == row.spec),
            row: row.clone(),
        }
    }

    /// What a submit of `spec` would do. Changes nothing.
    pub fn plan(&self, now: Now, spec: &JobSpec) -> Result<Plan, Problem> {
        let now = self.time.timekeeper.fabric(now);
        spec.validate().map_err(|error| {
            Problem::new(ProblemKind::Invalid, "the job is not valid", error.to_string())
        })?;
        self.check_whole_job(spec)?;
        let existing = self.replica.job(&spec.name);
        let before = existing.map(|job| job.effective().0);
        let generation = existing.map_or(0, |job| job.effective().2);
        let hash = spec.hash(generation);
        let live: BTreeMap<(u32, NodeId), &AllocRow> = self
            .replica
            .allocs_of(&spec.name)
            .filter(|(_, node, row, _)| row.phase.is_live() && self.is_up(node))
            .map(|(slot, node, row, _)| ((slot.index, node), row))
            .collect();
        let mut plan = Plan {
            job: spec.name.clone(),
            version: existing.map_or(0, |job| job.version),
            changes: JobSpec::changes(before, spec),
            slots: Vec::new(),
            unplaceable: Vec::new(),
            warnings: self.lease_warnings(spec),
        };
        if existing.is_some() && spec.kind == JobKind::Service {
            let empty = (0..spec.count).filter(|at| !live.keys().any(|(index, _)| index == at));
            plan.warnings.extend(self.pending_in_a_plan(now, spec, empty, plan.changes.is_empty()));
        }
        let mut fleet = self.current_fleet().into_owned();
        // What is replaced frees its claim first.
        for ((index, node), row) in &live {
            if row.spec != hash {
                let slot = SlotId { job: spec.name.clone(), index: *index };
                fleet.release(node, &row.of(slot));
            }
        }
        if spec.kind == JobKind::System {
            self.plan_system(spec, &live, hash, &mut plan);
            return Ok(plan);
        }
        let mut kept: BTreeMap<NodeId, u32> = BTreeMap::new();
        for (_, node) in live.iter().filter(|(_, row)| row.spec == hash).map(|(key, _)| key) {
            *kept.entry(*node).or_default() += 1;
        }
        let mut placer = Placer::new(&fleet, spec, &kept);
        let mut rng = ChaCha8Rng::seed_from_u64(now.wall.0);
        let mut prospect = self.prospect(spec);
        let mut in_vain = false;
        for index in 0..spec.count {
            let of_slot = (index, NodeId([0; 32]))..=(index, NodeId([0xff; 32]));
            let here = live.range(of_slot).next();
            if let Some(((_, node), row)) = here
                && row.spec == hash
            {
                let node = Some(self.name_of(node));
                plan.slots.push(SlotPlan {
                    index,
                    action: SlotAction::Keep,
                    node,
                    displaces: Vec::new(),
                });
                continue;
            }
            let action = if here.is_some() { SlotAction::Replace } else { SlotAction::Start };
            let slot = SlotId { job: spec.name.clone(), index };
            let avoid = self.avoided(now, &slot);
            let home = self.home_of(spec, &slot);
            let back = home.and_then(|home| placer.choose_there(&fleet, &home, &avoid));
            let choice = back.or_else(|| placer.choose(&fleet, &avoid, &mut rng));
            let mut displaces = Vec::new();
            let choice = choice.map(|choice| (choice.node, choice.claim)).or_else(|| {
                // Where nobody makes room for one slot, with no node left out, nobody does for the next one.
                if here.is_some() || spec.gang || in_vain {
                    return None;
                }
                let found = self.look_for_victims(&fleet, spec, &avoid, |_| false);
                in_vain = found.is_none() && avoid.is_empty();
                let (node, victims) = found?;
                for victim in &victims.allocs {
                    fleet.release(&node, victim);
                }
                displaces = victims.allocs;
                placer.took(&fleet, &node, 1);
                Some((node, victims.claim))
            });
            let within = choice.map(|choice| match &mut prospect {
                Some(prospect) => prospect.take(&slot, &choice.1, choice.0).map(|()| choice),
                None => Ok(choice),
            });
            let (choice, refusal) = match within.transpose() {
                Ok(choice) => (choice, None),
                Err(refusal) => (None, Some(refusal)),
            };
            let node = choice.map(|(node, claim)| {
                let alloc = AllocId::first(slot, u64::MAX);
                fleet.propose(&node, &alloc, claim);
                self.name_of(&node)
            });
            if node.is_none() {
                displaces.clear();
            }
            if node.is_none() && plan.unplaceable.is_empty() {
                plan.unplaceable = self.named(placer.verdicts(&fleet, &[]));
                refuse_all(&mut plan.unplaceable, refusal);
            }
            plan.slots.push(SlotPlan { index, action, node, displaces });
        }
        for ((index, node), _) in live.iter().filter(|((index, _), _)| *index >= spec.count) {
            let node = Some(self.name_of(node));
            plan.slots.push(SlotPlan {
                index: *index,
                action: SlotAction::Stop,
                node,
                displaces: Vec::new(),
            });
        }
        Ok(plan)
    }

    fn plan_system(
        &self,
        spec: &JobSpec,
        live: &BTreeMap<(u32, NodeId), &AllocRow>,
        hash: SpecHash,
        plan: &mut Plan,
    ) {
        let fleet = &*self.current_fleet();
        for verdict in self.named(Placer::new(fleet, spec, &BTreeMap::new()).verdicts(fleet, &[])) {
            let node = Some(verdict.name.clone());
            let action = match live.get(&(0, verdict.node)) {
                Some(row) if row.spec == hash => SlotAction::Keep,
                Some(_) => SlotAction::Replace,
                None if verdict.rejection.is_none() => SlotAction::Start,
                None => {
                    plan.unplaceable.push(verdict);
                    continue;
                }
            };
            plan.slots.push(SlotPlan { index: 0, action, node, displaces: Vec::new() });
        }
    }

    /// Why each slot of `job` is where it is.
    pub fn explain(&self, now: Now, job: &JobName) -> Result<Explanation, Problem> {
        let now = self.time.timekeeper.fabric(now);
        let Some(entry) = self.replica.job(job) else { return Err(no_such_job(job)) };
        let (spec, ..) = entry.effective();
        let mut slots = Vec::new();
        for index in 0..spec.count {
            let slot = SlotId { job: job.clone(), index };
            let mut allocs: Vec<AllocView> = self
                .replica
                .allocs_in(&slot)
                .map(|(slot, node, row, _)| self.alloc_view(slot, node, row))
                .collect();
            allocs.sort_by_key(|alloc| {
                std::cmp::Reverse((alloc.row.epoch, alloc.row.phase.is_live()))
            });
            let mut doing = self.doing(now, spec, entry, &slot, &allocs);
            let there = allocs.iter().filter(|alloc| alloc.row.phase.holds_claim());
            let mut involved = there
                .map(|alloc| alloc.node)
                .chain(self.coordinator.asked_for(&slot))
                .chain([self.coordinator_of(job)]);
            if doing != AS_WANTED
                && let Some(node) = involved.find(|node| self.others.detours.is_cut(node))
            {
                let pair = self.broken_pair(&node);
                doing = format!("{doing}; {pair}, others pass on what they say");
            }
            slots.push(SlotExplanation { index, allocs, doing });
        }
        let mut taken = BTreeMap::new();
        for (_, node, row, _) in self.replica.allocs_of(job) {
            if row.phase.is_live() {
                *taken.entry(node).or_insert(0) += 1;
            }
        }
        let first = SlotId { job: job.clone(), index: 0 };
        let unfilled = slots.iter().find(|slot| !slot.allocs.iter().any(|a| a.row.phase.is_live()));
        let slot = unfilled.map_or(first, |slot| SlotId { job: job.clone(), index: slot.index });
        let fleet = self.current_fleet();
        let mut placer = Placer::new(&fleet, spec, &taken);
        let mut nodes = self.named(placer.verdicts(&fleet, &self.avoided(now, &slot)));
        if unfilled.is_some() {
            refuse_all(&mut nodes, self.check_quota_anywhere(spec, &slot).err());
        }
        Ok(Explanation {
            job: job.clone(),
            coordinator: Some(self.coordinator_of(job)),
            slots,
            nodes,
            voters: needs_lease(spec).then(|| self.voters()),
        })
    }

    pub(super) fn doing(
        &self,
        now: Now,
        spec: &JobSpec,
        entry: &JobEntry,
        slot: &SlotId,
        allocs: &[AllocView],
    ) -> String {
        if self.is_removed() {
            return self.removed_in_words();
        }
        let live = |alloc: &&AllocView| alloc.row.phase.is_live() && self.is_up(&alloc.node);
        let Some(alloc) = allocs.iter().find(live) else {
            let leaving =
                |alloc: &&AllocView| alloc.row.phase == Phase::Stopping && self.is_up(&alloc.node);
            let back_off = self.back_off(now, slot);
            return if let Some(alloc) = allocs.iter().find(leaving) {
                format!("waiting for {} on {} to stop", alloc.id, alloc.node_name)
            } else if let Some(pending) = self.pending(now, spec, slot) {
                self.pending_in_words(now, pending)
            } else if let Some((nodes, left)) = back_off {
                let left = crate::job::duration::display(left);
                format!("failed on {nodes} nodes, tried on another one in {left}")
            } else if let Some(refusal) = self.quota_refusal(spec) {
                format!("pending: {refusal}")
            } else if let Some((fit, of)) = self.gang_that_does_not_fit(spec) {
                format!("pending: {fit} of {of} of the gang fit, none starts before all do")
            } else if is_unplaceable(&self.current_fleet(), spec) {
                "pending: no node can take it".into()
            } else if needs_lease(spec) && !self.voters().can_decide() {
                format!("it does not run: {}", self.voters_in_words(now, None))
            } else if let Some((node, _)) = self.rows_elsewhere(slot).next() {
                let (name, state) = (self.name_of(&node), self.state_of(&node));
                format!("was on {name}, which is {state}: being placed elsewhere")
            } else {
                "being placed".into()
            };
        };
        if alloc.row.spec != entry.hash() {
            let nowhere = self.roll_out_without_a_place(entry, &self.current_fleet());
            return nowhere.unwrap_or_else(|| "runs another version, to be replaced".into());
        }
        let draining = self.replica.node(&alloc.node).is_some_and(|info| info.draining);
        match (alloc.row.phase, alloc.row.healthy) {
            _ if draining => {
                let fits = !is_unplaceable(&self.current_fleet(), spec);
                let when = if fits { "" } else { ", when a node can take it: none can now" };
                format!("to be moved off {}, which is draining{when}", alloc.node_name)
            }
            (Phase::Running, true) => AS_WANTED.into(),
            (Phase::Running, false) => match &alloc.row.trouble {
                Some(trouble) => format!("running, not healthy: {trouble}"),
                None => "running, not healthy yet".into(),
            },
            (Phase::Reserved, _) if needs_lease(spec) => {
                let voters = self.voters_in_words(now, Some(&alloc.id.slot));
                format!("waits on {} for a lease: {voters}", alloc.node_name)
            }
            (phase, _) => match &alloc.row.trouble {
                Some(trouble) => {
                    format!("{phase} on {}, where it was tried before: {trouble}", alloc.node_name)
                }
                None => format!("{phase} on {}", alloc.node_name),
            },
        }
    }

    /// What a node that was removed says of work: it hears of none any more.
    fn removed_in_words(&self) -> String {
        format!("{} was removed from the fabric: ask another node", self.name_of(&self.config.id))
    }

    /// How slow this node is to react: 0 is well.
    pub fn local_health(&self) -> u32 {
        self.others.membership.local_health()
    }

    /// Who grants leases.
    pub fn voters(&self) -> VotersView {
        let set = &self.leases.set;
        let member = |member: &Member| {
            let info = self.replica.node(&member.node);
            let same = info.is_none_or(|info| info.incarnation == member.incarnation);
            let state = match same && self.replica.is_member(&member.node) {
                true => self.state_of(&member.node),
                false => NodeState::Dead,
            };
            let witness = info.is_some_and(|info| info.witness);
            VoterView { node: member.node, name: self.name_of(&member.node), state, witness }
        };
        VotersView {
            generation: set.generation,
            majority: if set.members.is_empty() { 0 } else { set.majority() as u32 },
            members: set.members.iter().map(member).collect(),
        }
    }

    /// Which voters answer, and what they said of `slot` if this node asked them.
    fn voters_in_words(&self, now: Now, slot: Option<&SlotId>) -> String {
        let voters = self.voters();
        let standing = slot.and_then(|slot| self.standing_of(now, slot));
        let said = |node: &NodeId| match standing.as_ref()?.heard.get(node)? {
            Verdict::Held { by, .. } => Some(format!("granted to epoch {}", by.epoch)),
            Verdict::Below { at_least } => Some(format!("wants an epoch from {at_least} on")),
            Verdict::Mute { for_another } => {
                Some(format!("silent for {} s after its restart", for_another.as_secs()))
            }
            Verdict::Full => Some("has too many leases".into()),
            Verdict::Promised | Verdict::Accepted | Verdict::Released => None,
        };
        let each = voters.members.iter().map(|voter| {
            let said = said(&voter.node).map(|said| format!(", {said}")).unwrap_or_default();
            format!("{} {}{said}", voter.name, voter.state)
        });
        let each: Vec<String> = each.collect();
        let needed = match voters.can_decide() {
            true => String::new(),
            false => format!(", and nothing starts until {} do", voters.majority),
        };
        format!(
            "{} of {} voters answer{needed} ({})",
            voters.answering(),
            voters.members.len(),
            each.join("; ")
        )
    }

    /// What somebody who asks for leases should know of the voters.
    fn lease_warnings(&self, spec: &JobSpec) -> Vec<String> {
        if !needs_lease(spec) {
            return Vec::new();
        }
        let voters = self.voters();
        let mut warnings = Vec::new();
        if !voters.can_decide() {
            warnings.push(format!("it will not start: {}", self.voters_in_words_now()));
        }
        if voters.members.len() <= 2 {
            let names: Vec<&str> = voters.members.iter().map(|v| v.name.as_str()).collect();
            let lost = if names.len() == 1 { "it is lost" } else { "one of them is lost" };
            warnings.push(format!(
                "no majority of the voters ({}) survives when {lost}: this job stops then and starts nowhere. \
                 A third node makes it safe; it may be a witness, which votes and runs nothing",
                names.join(", ")
            ));
        }
        warnings
    }

    fn voters_in_words_now(&self) -> String {
        self.voters_in_words(Now::default(), None)
    }

    /// Tokens that still work.
    pub fn tokens(&self, now: Now) -> Vec<TokenView> {
        let now = self.time.timekeeper.fabric(now);
        self.replica
            .entries()
            .filter_map(|entry| match (&entry.key, &entry.value) {
                (Key::Token(id), Value::Token(token)) if now.wall <= token.expires => {
                    Some(TokenView {
                        id: id.clone(),
                        expires: token.expires,
                        labels: token.labels.clone(),
                    })
                }
                _ => None,
            })
            .collect()
    }

    /// What this node tells the others of itself.
    pub fn info(&self) -> &crate::topology::NodeInfo {
        &self.info
    }
}

/// What the nodes would take, the namespace may not have.
fn refuse_all(verdicts: &mut [crate::api::Verdict], refusal: Option<Rejection>) {
    let Some(refusal) = refusal else { return };
    for verdict in verdicts.iter_mut().filter(|verdict| verdict.rejection.is_none()) {
        verdict.rejection = Some(refusal.clone());
        verdict.score = None;
    }
}

/// Whether no node could take one more slot, by this node's own view: any node can be asked.
fn is_unplaceable(fleet: &Fleet, spec: &JobSpec) -> bool {
    !fleet.iter().any(|candidate| candidate.check(spec).is_ok())
}

/// Whether a job runs under leases.
fn needs_lease(spec: &JobSpec) -> bool {
    spec.guarantee == Guarantee::AtMostOne
}
