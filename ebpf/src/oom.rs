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
use crate::table::{Table, words};
use libbpf_rs::btf::BtfKind;
use libbpf_rs::{MapCore, MapFlags, MapHandle};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// Bytes of `struct level` in `program.bpf.c`: a number, and a name that ends with a zero.
const LEVEL: usize = 128;

pub(crate) struct Kills {
    pub(crate) hooks: Hooks,
    cgroups: Table<1>,
    /// The folders of victims' cgroups.
    names: MapHandle,
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
        let names = hooks.map("names")?;
        hooks.attach(&[program])?;
        Ok(Self { hooks, cgroups, names })
    }

    pub(crate) fn read(
        &mut self,
        live: &mut Cgroups,
    ) -> Result<BTreeMap<CgroupId, OutOfMemory>, libbpf_rs::Error> {
        self.tell_names(live)?;
        let rows = self.cgroups.read(live)?;
        Ok(rows
            .into_iter()
            .map(|([id], row)| (CgroupId(id), OutOfMemory::from_row(&row.numbers)))
            .collect())
    }
    /// A process that takes too much at once is killed, and its cgroup gone, before anybody has looked for its folder.
    fn tell_names(&self, live: &mut Cgroups) -> Result<(), libbpf_rs::Error> {
        let Some(root) = live.root_id() else { return Ok(()) };
        for key in self.names.keys().collect::<Vec<_>>() {
            let Some(levels) = self.names.lookup(&key, MapFlags::ANY)? else { continue };
            self.names.delete(&key)?;
            if let (Some(id), Some(folder)) = (words(&key).next(), folder(&levels, root)) {
                live.was(CgroupId(id), &folder);
            }
        }
        Ok(())
    }
}

/// The path from the cgroup numbered `root` to the innermost; `None` if it does not lead there.
fn folder(levels: &[u8], root: CgroupId) -> Option<PathBuf> {
    let mut names = Vec::new();
    for level in levels.chunks_exact(LEVEL) {
        let (id, name) = level.split_at(8);
        if words(id).next() == Some(root.0) {
            return Some(names.iter().rev().collect());
        }
        let name = name.split(|byte| *byte == 0).next().unwrap_or_default();
        names.push(std::str::from_utf8(name).ok()?.to_owned());
    }
    None
}

#[cfg(test)]
mod tests;
