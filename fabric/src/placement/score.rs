//! What a job asks for, reduced to numbers: a first look that says no quickly, and a score.

use super::fleet::Glance;
use crate::admission::{Summary, mib, name_bit};
use crate::job::{Affinity, CpuRequest, JobSpec, NumaPolicy, Smt, Strategy};
use crate::limits;

// The parts of a score. Each outweighs everything below it: how full a node is decides among nodes that
// are equally good for what the user asked for.

/// How full the node is, in ten-thousandths of its scarcest resource.
pub(super) const LOAD: i64 = 10_000;
/// The job would prefer one memory node, and here it gets one.
const ONE_MEMORY_NODE: i64 = 2 * LOAD;
/// The node has free devices of a class that few nodes have, and the job needs none.
const SCARCE_DEVICES: i64 = -4 * LOAD;
/// An affinity of the job holds: for each unit of its weight.
const AFFINITY: i64 = 8 * LOAD;
/// One slot of the job is on the node already.
const SAME_NODE: i64 = -(1 << 19) * LOAD;
/// How much one more slot beside others on a level counts in the number that is shown. The order of
/// nodes goes level by level and does not depend on it.
const SHOWN_LEVEL: [i64; limits::SPREAD_LEVELS_MAX] =
    [SAME_NODE << 12, SAME_NODE << 9, SAME_NODE << 6, SAME_NODE << 3];

// The weights stay apart, and the sum stays a number.
const AFFINITIES: i64 = AFFINITY * Affinity::WEIGHT_MAX as i64 * limits::JOB_LIST_MAX as i64;
const _: () = assert!(2 * AFFINITIES - SCARCE_DEVICES + ONE_MEMORY_NODE + LOAD < -SAME_NODE);
const _: () = assert!(limits::COUNT_MAX as i64 <= i64::MAX / (-SHOWN_LEVEL[0] * 2));

/// Slots of the job with the same value, level by level, the first level first: fewer is better.
pub(super) type Crowd = [u32; limits::SPREAD_LEVELS_MAX];

/// The order of nodes in one number, for people: levels far apart could be, but hardly are, out of it.
pub(super) fn shown(crowd: Crowd, score: i64) -> i64 {
    let levels = crowd.iter().zip(SHOWN_LEVEL);
    levels.fold(score, |sum, (slots, level)| {
        sum.saturating_add(i64::from(*slots).saturating_mul(level))
    })
}

/// What a job needs, as numbers in the units of [`Summary`].
#[derive(Clone, Copy, Debug)]
pub(super) struct Needs {
    is_exclusive: bool,
    shared_millis: u32,
    cores: u32,
    threads: u32,
    memory_mib: u32,
    disk_mib: u32,
    numa: NumaPolicy,
    device_names: u64,
    strategy: Strategy,
}

/// What the job's own slots and wishes say about a node.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Standing {
    /// Slots of the job on the node.
    pub same_node: u32,
    /// Slots of the job that share the node's values of the attributes to spread over.
    pub crowd: Crowd,
    /// Sum of the weights of affinities that hold.
    pub affinity: i32,
}

impl Needs {
    pub fn new(spec: &JobSpec) -> Self {
        let resources = &spec.resources;
        let (is_exclusive, shared_millis, cores, threads) = match resources.cpu {
            CpuRequest::Shared { millis, .. } => (false, millis, 0, 0),
            CpuRequest::Exclusive { cores, smt: Smt::Whole } => (true, 0, u32::from(cores), 0),
            CpuRequest::Exclusive { cores, smt: Smt::Share } => (true, 0, 0, u32::from(cores)),
        };
        Self {
            is_exclusive,
            shared_millis,
            cores,
            threads,
            memory_mib: mib(resources.memory),
            disk_mib: mib(resources.disk),
            numa: resources.numa,
            device_names: resources.devices.iter().fold(0, |bits, name| bits | name_bit(name)),
            strategy: spec.placement.strategy,
        }
    }

    /// False: the node cannot take it, as [`Candidate::check`](super::Candidate::check) would find out
    /// at more expense. True: it is worth asking.
    pub fn may_fit(&self, glance: &Glance) -> bool {
        let (node, switches) = (&glance.summary, &glance.switches);
        let cpu = if self.is_exclusive {
            switches.pinning
                && self.cores <= u32::from(node.cores)
                && self.threads <= u32::from(node.threads)
                && self.cpus(node) <= u32::from(node.spare_cpus)
        } else {
            self.shared_millis <= node.shared_free_millis && node.threads > 0
        };
        glance.open
            && !switches.full
            && cpu
            && self.memory_mib <= node.memory_mib
            && self.disk_mib <= node.disk_mib
            && self.device_names & !node.device_names == 0
            && (self.numa != NumaPolicy::Require
                || switches.numa_binding && self.fits_one_memory_node(node))
    }

    /// CPUs that an exclusive claim takes at least.
    fn cpus(&self, node: &Summary) -> u32 {
        self.cores * u32::from(node.core_threads) + self.threads
    }

    fn fits_one_memory_node(&self, node: &Summary) -> bool {
        self.cores <= u32::from(node.cores_of_one_node)
            && self.threads <= u32::from(node.threads_of_one_node)
            && self.memory_mib <= node.memory_of_one_node_mib
    }

    /// Whether the score needs `Ledger::cores_left_over`.
    pub fn minds_holes(&self) -> bool {
        self.is_exclusive && self.strategy == Strategy::BestFit
    }

    /// How good a node is, among those that are equally crowded; more is better. `left_over`: what
    /// `Ledger::cores_left_over` says, where [`Needs::minds_holes`].
    pub fn score(
        &self,
        node: &Summary,
        left_over: Option<u32>,
        scarce_classes: u32,
        standing: Standing,
    ) -> i64 {
        let millis = u64::from(self.cpus(node)) * 1000 + u64::from(self.shared_millis);
        let cpu = share(u64::from(node.cpu_millis_used) + millis, node.cpu_millis_total);
        let memory = u64::from(node.memory_used_mib) + u64::from(self.memory_mib);
        let memory = share(memory, node.memory_total_mib);
        let load = cpu.max(memory);
        let mut score = match self.strategy {
            Strategy::LeastLoaded => LOAD - load,
            // A hole that is filled exactly is best. Of large ones it matters little which is opened,
            // so the steps get smaller, and the fuller machine counts instead.
            Strategy::BestFit if self.is_exclusive => {
                let hole = left_over.map_or(0, |left| LOAD * 8 / 10 / (1 + i64::from(left)));
                hole + load * 2 / 10
            }
            Strategy::BestFit => load,
        };
        if self.numa == NumaPolicy::Prefer && self.fits_one_memory_node(node) {
            score += ONE_MEMORY_NODE;
        }
        if self.device_names == 0 && node.device_classes & scarce_classes != 0 {
            score += SCARCE_DEVICES;
        }
        score + i64::from(standing.affinity) * AFFINITY + i64::from(standing.same_node) * SAME_NODE
    }
}

/// Ten-thousandths of `total` that are used.
fn share(used: u64, total: u32) -> i64 {
    let total = u64::from(total);
    (used.min(total) * LOAD as u64).checked_div(total).unwrap_or(0) as i64
}
