//! The files of a cgroup (Documentation/admin-guide/cgroup-v2.rst).

use crate::cgroup::{CgroupId, Cgroups};
use crate::pressure::Stalled;
use std::collections::BTreeMap;
use std::path::Path;

/// What `ask` finds in the folder of each cgroup; those where it finds nothing are left out.
pub(super) fn of_all<T>(
    cgroups: &mut Cgroups,
    ask: impl Fn(&Path) -> Option<T>,
) -> BTreeMap<CgroupId, T> {
    cgroups.all().filter_map(|(id, folder)| Some((id, ask(folder)?))).collect()
}

/// The value in a line `name value`.
pub(super) fn value(text: &str, name: &str) -> Option<u64> {
    let rest = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))?;
    rest.parse().ok()
}

/// Bytes read, bytes written, reads, writes, of all devices in `io.stat`:
/// `8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=5 dios=6`.
pub(super) fn io(text: &str) -> [u64; 4] {
    let mut sums = [0; 4];
    for field in text.split_ascii_whitespace() {
        let Some((name, value)) = field.split_once('=') else { continue };
        let place = match name {
            "rbytes" => 0,
            "wbytes" => 1,
            "rios" => 2,
            "wios" => 3,
            _ => continue,
        };
        sums[place] += value.parse().unwrap_or(0);
    }
    sums
}

/// The totals of a pressure file: `some avg10=0.00 avg60=0.00 avg300=0.00 total=17`.
pub(super) fn pressure(text: &str) -> Option<Stalled> {
    let total = |kind: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(kind))?;
        line.split(' ').find_map(|field| field.strip_prefix("total=")?.parse().ok())
    };
    Some(Stalled { some_us: total("some")?, full_us: total("full") })
}
