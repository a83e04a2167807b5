//! Starts and ends of processes.
//!
//! - Hooks in: `tp_btf/sched_process_fork`, `sched_process_exec`, `sched_process_exit` (with or without saying
//!   which thread is the last, which Linux 6.16 added).
//! - Metrics out, by cgroup: [`Processes`].

mod metrics;

pub use metrics::Processes;

use crate::cgroup::{CgroupId, Cgroups};
use crate::hooks::{Hooks, object};
use crate::kernel::Kernel;
use crate::status::Status;
use crate::table::Table;
use std::collections::BTreeMap;

const TRACEPOINTS: [&str; 3] = ["sched_process_fork", "sched_process_exec", "sched_process_exit"];

pub(crate) struct Lives {
    pub(crate) hooks: Hooks,
    cgroups: Table<1>,
}

impl Lives {
    /// `old` takes the variant for kernels before 6.16 also where the new one would do.
    pub(crate) fn load(kernel: &Kernel, cgroups_max: u32, old: bool) -> Result<Self, Status> {
        kernel.require(&TRACEPOINTS)?;
        let tells_last = kernel.arguments(TRACEPOINTS[2]).is_some_and(|list| list.len() > 1);
        let exit = if tells_last && !old { "sched_process_exit_last" } else { TRACEPOINTS[2] };
        let programs = [TRACEPOINTS[0], TRACEPOINTS[1], exit];
        let mut hooks = Hooks::load(object!("processes"), &programs, &[("cgroups", cgroups_max)])?;
        let cgroups = Table::new(&hooks, "cgroups", &[[CgroupId::OTHER.0]])?;
        hooks.attach(&programs)?;
        Ok(Self { hooks, cgroups })
    }

    pub(crate) fn read(
        &mut self,
        live: &mut Cgroups,
    ) -> Result<BTreeMap<CgroupId, Processes>, libbpf_rs::Error> {
        let rows = self.cgroups.read(live)?;
        Ok(rows
            .into_iter()
            .map(|([id], row)| (CgroupId(id), Processes::from_row(&row.numbers)))
            .collect())
    }
}
