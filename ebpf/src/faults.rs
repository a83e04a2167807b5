//! Page faults.
//!
//! - Hooks in: `tp_btf/page_fault_user` and `page_fault_kernel` where the architecture has them (x86, RISC-V);
//!   elsewhere the software event `PERF_COUNT_SW_PAGE_FAULTS` on every CPU.
//! - Metrics out, by cgroup: [`Faults`].

mod metrics;
mod sampled;

pub use metrics::Faults;

use crate::cgroup::{CgroupId, Cgroups};
use crate::hooks::{Hooks, object};
use crate::kernel::Kernel;
use crate::status::Status;
use crate::table::Table;
use std::collections::BTreeMap;

const TRACED: [&str; 2] = ["page_fault_user", "page_fault_kernel"];

pub(crate) struct PageFaults {
    pub(crate) hooks: Hooks,
    cgroups: Table<1>,
}

impl PageFaults {
    /// `sampled` takes the variant for architectures without tracepoints also where there are some.
    pub(crate) fn load(kernel: &Kernel, cgroups_max: u32, sampled: bool) -> Result<Self, Status> {
        let traced = !sampled && kernel.require(&TRACED).is_ok();
        let programs: &[&str] = if traced { &TRACED } else { &["sampled"] };
        let mut hooks = Hooks::load(object!("faults"), programs, &[("cgroups", cgroups_max)])?;
        let cgroups = Table::new(&hooks, "cgroups", &[[CgroupId::OTHER.0]])?;
        if traced {
            hooks.attach(programs)?;
        } else {
            sampled::attach(&mut hooks, "sampled")?;
        }
        Ok(Self { hooks, cgroups })
    }

    pub(crate) fn read(
        &mut self,
        live: &mut Cgroups,
    ) -> Result<BTreeMap<CgroupId, Faults>, libbpf_rs::Error> {
        let rows = self.cgroups.read(live)?;
        Ok(rows
            .into_iter()
            .map(|([id], row)| (CgroupId(id), Faults::from_row(&row.numbers)))
            .collect())
    }
}
