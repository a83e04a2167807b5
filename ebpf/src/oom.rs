//! Processes killed for want of memory.
//!
//! - Hooks in: `tp_btf/mark_victim` where it names the victim (Linux 6.8); `tp_btf/sched_process_exit` before,
//!   which looks at the mark that the victim has got.
//! - Metrics out, by cgroup of the victim: [`OutOfMemory`].

mod metrics;

pub use metrics::OutOfMemory;

use crate::cgroup::{CgroupId, Cgroups};
use crate::hooks::{Hooks, object};
use crate::kernel::Kernel;
use crate::status::Status;
use crate::table::Table;
use libbpf_rs::btf::BtfKind;
use std::collections::BTreeMap;

pub(crate) struct Kills {
    pub(crate) hooks: Hooks,
    cgroups: Table<1>,
}

impl Kills {
    /// `old` takes the variant for kernels before 6.8 also where the new one would do.
    pub(crate) fn load(kernel: &Kernel, cgroups_max: u32, old: bool) -> Result<Self, Status> {
        let named =
            kernel.arguments("mark_victim").is_some_and(|list| list.first() == Some(&BtfKind::Ptr));
        let program = if named && !old { "mark_victim" } else { "sched_process_exit" };
        kernel.require(&[program])?;
        let mut hooks = Hooks::load(object!("oom"), &[program], &[("cgroups", cgroups_max)])?;
        let cgroups = Table::new(&hooks, "cgroups", &[[CgroupId::OTHER.0]])?;
        hooks.attach(&[program])?;
        Ok(Self { hooks, cgroups })
    }

    pub(crate) fn read(
        &mut self,
        live: &mut Cgroups,
    ) -> Result<BTreeMap<CgroupId, OutOfMemory>, libbpf_rs::Error> {
        let rows = self.cgroups.read(live)?;
        Ok(rows
            .into_iter()
            .map(|([id], row)| (CgroupId(id), OutOfMemory::from_row(&row)))
            .collect())
    }
}
