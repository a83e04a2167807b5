//! Latency and bytes of block devices.
//!
//! - Hooks in: `tp_btf/block_io_start` (Linux 6.5), or `block_rq_insert` and `block_rq_issue` before;
//!   `block_rq_complete`.
//! - Metrics out, by cgroup: [`Block`].

mod metrics;

pub use metrics::{Block, Traffic};

use crate::cgroup::{CgroupId, Cgroups};
use crate::hooks::{Hooks, object};
use crate::kernel::{Kernel, possible_cpus};
use crate::limits::{REQUESTS, REQUESTS_PER_CPU};
use crate::status::Status;
use crate::table::{HISTOGRAMS, Table};
use std::collections::BTreeMap;

const NEW: [&str; 2] = ["block_io_start", "block_rq_complete"];
const OLD: [&str; 3] = ["block_rq_insert", "block_rq_issue", "block_rq_complete"];

pub(crate) struct BlockDevices {
    pub(crate) hooks: Hooks,
    cgroups: Table<2>,
}

impl BlockDevices {
    /// `old` takes the variant for kernels before 6.5 also where the new one would do.
    pub(crate) fn load(kernel: &Kernel, cgroups_max: u32, old: bool) -> Result<Self, Status> {
        let programs: &[&str] = if kernel.has(NEW[0]) && !old { &NEW } else { &OLD };
        kernel.require(programs)?;
        let requests = (possible_cpus() as u32).saturating_mul(REQUESTS_PER_CPU);
        let requests = requests.clamp(REQUESTS.0, REQUESTS.1);
        let sizes = [("cgroups", cgroups_max), (HISTOGRAMS, cgroups_max), ("requests", requests)];
        let mut hooks = Hooks::load(object!("block"), programs, &sizes)?;
        let others = [0, 1, 2].map(|operation| [CgroupId::OTHER.0, operation]);
        let cgroups = Table::with_histograms(&hooks, "cgroups", &others)?;
        hooks.attach(programs)?;
        Ok(Self { hooks, cgroups })
    }

    pub(crate) fn read(
        &mut self,
        live: &mut Cgroups,
    ) -> Result<BTreeMap<CgroupId, Block>, libbpf_rs::Error> {
        let mut found = BTreeMap::new();
        for ([id, operation], row) in self.cgroups.read(live)? {
            let block: &mut Block = found.entry(CgroupId(id)).or_insert_with(Block::none);
            *block.operation(operation) = Traffic::from_row(row);
        }
        Ok(found)
    }
}
