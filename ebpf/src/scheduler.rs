//! Run-queue latency, time on and off CPU, context switches.
//!
//! - Hooks in: `tp_btf/sched_switch`, `sched_process_fork`; `iter/task` once, and when a thread was seen that has no room;
//!   a `raw_tp` program run on each CPU before a reading.
//! - Metrics out, by cgroup: [`Scheduling`].

mod metrics;

pub use metrics::Scheduling;

use crate::cgroup::{CgroupId, Cgroups};
use crate::hooks::{Hooks, object};
use crate::kernel::Kernel;
use crate::status::Status;
use crate::table::{self, HISTOGRAMS, Table};
use libbpf_rs::{Iter, MapHandle};
use std::collections::BTreeMap;
use std::io::Read;

const SWITCHING: [&str; 2] = ["sched_process_fork", "sched_switch"];

pub(crate) struct Scheduler {
    pub(crate) hooks: Hooks,
    cgroups: Table<1>,
    strangers: MapHandle,
    strangers_seen: u64,
}

impl Scheduler {
    pub(crate) fn load(kernel: &Kernel, cgroups_max: u32) -> Result<Self, Status> {
        kernel.require(&SWITCHING)?;
        if !kernel.has_field("sched_info", "run_delay") {
            let reason = "this kernel keeps no books of how threads wait (CONFIG_SCHED_INFO)";
            return Err(Status::Unsupported(reason.into()));
        }
        let programs = [&SWITCHING[..], &["adopt", "settle"]].concat();
        let sizes = [("cgroups", cgroups_max), (HISTOGRAMS, cgroups_max)];
        let mut hooks = Hooks::load(object!("scheduler"), &programs, &sizes)?;
        let cgroups = Table::with_histograms(&hooks, "cgroups", &[[CgroupId::OTHER.0]])?;
        // Forks first: a thread is then either seen to be made, or there to be adopted.
        hooks.attach(&SWITCHING[..1])?;
        adopt(&hooks)?;
        hooks.attach(&SWITCHING[1..])?;
        let strangers = hooks.map("strangers")?;
        Ok(Self { hooks, cgroups, strangers, strangers_seen: 0 })
    }

    pub(crate) fn read(
        &mut self,
        live: &mut Cgroups,
    ) -> Result<BTreeMap<CgroupId, Scheduling>, libbpf_rs::Error> {
        let strangers = table::counter(&self.strangers)?;
        if strangers != self.strangers_seen {
            self.strangers_seen = strangers;
            // One that is refused now is asked for again when the thread is seen again.
            let _refused = adopt(&self.hooks);
        }
        self.hooks.run_on_every_cpu("settle");
        let rows = self.cgroups.read(live)?;
        Ok(rows.into_iter().map(|([id], row)| (CgroupId(id), Scheduling::from_row(row))).collect())
    }
}

/// Gives every thread that there is its room.
fn adopt(hooks: &Hooks) -> Result<(), Status> {
    let link = hooks
        .attach_with("adopt", |program| program.attach_iter_with_opts(libbpf_rs::IterOpts::None))?;
    let mut nothing = Vec::new();
    Iter::new(&link)
        .and_then(|mut threads| Ok(threads.read_to_end(&mut nothing)?))
        .map(drop)
        .map_err(|error| Status::refused("looking at the threads there are", &error, ""))
}
