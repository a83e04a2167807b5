//! Bytes and packets of the network.
//!
//! - Hooks in: `cgroup_skb/ingress` and `cgroup_skb/egress` at the root of the version 2 hierarchy, beside whatever
//!   else is attached there. They let everything pass.
//! - Metrics out, by cgroup: [`Network`].

mod metrics;

pub use metrics::Network;

use crate::cgroup::{CgroupId, Cgroups};
use crate::hooks::{Hooks, object};
use crate::status::Status;
use crate::table::Table;
use std::collections::BTreeMap;
use std::fs::File;
use std::os::fd::AsRawFd;

pub(crate) struct Packets {
    pub(crate) hooks: Hooks,
    cgroups: Table<1>,
}

impl Packets {
    pub(crate) fn load(live: &Cgroups, cgroups_max: u32) -> Result<Self, Status> {
        let Some(root) = live.root() else {
            let reason = "no cgroup hierarchy of version 2 is mounted to count at";
            return Err(Status::Unsupported(reason.into()));
        };
        let root = File::open(root).map_err(|error| {
            Status::Failed(format!("{} cannot be opened: {error}", root.display()))
        })?;
        let programs = ["received", "sent"];
        let mut hooks = Hooks::load(object!("network"), &programs, &[("cgroups", cgroups_max)])?;
        let cgroups = Table::new(&hooks, "cgroups", &[[CgroupId::OTHER.0]])?;
        for program in programs {
            hooks.attach_as(program, |program| program.attach_cgroup(root.as_raw_fd()))?;
        }
        Ok(Self { hooks, cgroups })
    }

    pub(crate) fn read(
        &mut self,
        live: &mut Cgroups,
    ) -> Result<BTreeMap<CgroupId, Network>, libbpf_rs::Error> {
        let rows = self.cgroups.read(live)?;
        Ok(rows
            .into_iter()
            .map(|([id], row)| (CgroupId(id), Network::from_row(&row.numbers)))
            .collect())
    }
}
