//! The kernel's software event for page faults, sampled every time.

use crate::hooks::Hooks;
use crate::perf;
use crate::status::Status;

pub(crate) fn attach(hooks: &mut Hooks, program: &str) -> Result<(), Status> {
    const PERF_COUNT_SW_PAGE_FAULTS: u64 = 2;
    for event in perf::on_every_cpu(PERF_COUNT_SW_PAGE_FAULTS, perf::Every::Times(1))? {
        perf::attach(hooks, program, event)?;
    }
    Ok(())
}
