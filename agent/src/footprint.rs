//! Keeps the agent as small as what it does at the moment.
//!
//! Much of a program runs once: starting, joining, loading probes, the first request of each kind. The kernel keeps
//! its pages mapped for as long as nothing else wants the memory, and so they count as the agent's. [`Footprint::shrink`]
//! gives them back: what is still in use is mapped again at its next use, from the kernel's page cache and without a disk.
//! It also gives back what the allocator has free, which after a large query can be some megabytes.

use nix::libc;
use std::time::Duration;

/// Time between two times. What was not used in between is code that does not run at rest.
pub const PERIOD: Duration = Duration::from_secs(10);

/// The code of this program, where it is mapped.
///
/// Invariant: the range is that of an executable mapping of a file, which nobody writes to.
#[derive(Debug)]
pub struct Footprint {
    code: Option<(usize, usize)>,
}

impl Footprint {
    /// Looks where the code is. Where that cannot be found out, it stays mapped.
    pub fn new() -> Self {
        let program = std::fs::read_link("/proc/self/exe").unwrap_or_default();
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap_or_default();
        Self { code: program.to_str().and_then(|program| code_of(&maps, program)) }
    }

    /// Gives back what is not in use.
    pub fn shrink(&self) {
        if let Some((start, end)) = self.code {
            // SAFETY: the range is a mapping of the program's file that is executable and not writable (the invariant), so
            // what is dropped comes back from the file as it was, also for the thread that runs in it.
            unsafe { libc::madvise(start as *mut libc::c_void, end - start, libc::MADV_DONTNEED) };
        }
        #[cfg(target_env = "gnu")]
        // SAFETY: it takes a number, and gives back only what is free.
        unsafe {
            libc::malloc_trim(0)
        };
    }
}

/// The executable mapping of `program` in the text of `/proc/self/maps` (proc(5)).
fn code_of(maps: &str, program: &str) -> Option<(usize, usize)> {
    maps.lines().find_map(|line| {
        let mut fields = line.split_ascii_whitespace();
        let (range, access) = (fields.next()?, fields.next()?);
        let (start, end) = range.split_once('-')?;
        let address = |text| usize::from_str_radix(text, 16).ok();
        let ours = access == "r-xp" && fields.nth(3) == Some(program);
        ours.then_some((address(start)?, address(end)?))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_executable_mapping_of_the_program_is_taken() {
        let maps = "\
55d0c0000000-55d0c0200000 r--p 00000000 fe:00 17 /usr/bin/weftd
55d0c0200000-55d0c0900000 r-xp 00200000 fe:00 17 /usr/bin/weftd
55d0c0900000-55d0c0940000 rw-p 00900000 fe:00 17 /usr/bin/weftd
7f0000000000-7f0000200000 r-xp 00000000 fe:00 18 /lib/libc.so.6
";
        assert_eq!(code_of(maps, "/usr/bin/weftd"), Some((0x55d0_c020_0000, 0x55d0_c090_0000)));
        assert_eq!(code_of(maps, "/usr/bin/other"), None);
        assert_eq!(code_of("nonsense\n- r-xp", "/usr/bin/weftd"), None);
    }

    #[test]
    fn everything_still_runs_afterwards() {
        let footprint = Footprint::new();
        assert!(footprint.code.is_some());
        for _ in 0..100 {
            let worker = std::thread::Builder::new().spawn(|| (0..1000u64).sum::<u64>());
            footprint.shrink();
            assert_eq!(worker.expect("a thread").join().expect("it ends"), 499_500);
        }
    }
}
