//! Starts and ends of processes.
//!
//! - Hooks in: `tp_btf/sched_process_fork`, `sched_process_exec`, `sched_process_exit`.
//! - Metrics out, by cgroup: [`Processes`].

mod metrics;

pub use metrics::Processes;

use crate::cgroup::{CgroupId, Cgroups};
use crate::hooks::{Hooks, object};
use crate::kernel::Kernel;
use crate::status::Status;
use crate::table::Table;
use std::collections::BTreeMap;

const PROGRAMS: [&str; 3] = ["sched_process_fork", "sched_process_exec", "sched_process_exit"];

pub(crate) struct Lives {
    pub(crate) hooks: Hooks,
    cgroups: Table<1>,
}

impl Lives {
    pub(crate) fn load(kernel: &Kernel, cgroups_max: u32) -> Result<Self, Status> {
        kernel.require(&PROGRAMS)?;
        let mut hooks = Hooks::load(object!("processes"), &PROGRAMS, &[("cgroups", cgroups_max)])?;
        let cgroups = Table::new(&hooks, "cgroups", &[[CgroupId::OTHER.0]])?;
        hooks.attach(&PROGRAMS)?;
        Ok(Self { hooks, cgroups })
    }

    pub(crate) fn read(
        &mut self,
        live: &mut Cgroups,
    ) -> Result<BTreeMap<CgroupId, Processes>, libbpf_rs::Error> {
        let rows = self.cgroups.read(live)?;
        Ok(rows.into_iter().map(|([id], row)| (CgroupId(id), Processes::from_row(&row))).collect())
    }
}
