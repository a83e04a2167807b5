//! Gives memory back that the start has used and nothing needs any more.
//!
//! An agent lives for months in a state that its start has little in common with: it has read the kernel's types to load
//! probes, handed over keys, asked systemd for everything. What the allocator then keeps, and the pages of the program that
//! were mapped for it, would be with it until it ends.

use nix::libc;
use std::ffi::c_void;

/// The allocator's arenas: threads that allocate little take turns in one, where each would keep its own free pages.
const ARENAS: libc::c_int = 1;
/// From this many bytes on an allocation is pages of its own, which go back as a whole. Said, it does not grow with what was
/// freed once, as it does by default.
const MAPPED_BYTES_MIN: libc::c_int = 128 << 10;

/// How the allocator is to keep its memory. Before there are threads.
pub fn limit() {
    #[cfg(target_env = "gnu")]
    // SAFETY: sets numbers of the allocator; nothing else reads or writes them yet.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, ARENAS);
        libc::mallopt(libc::M_MMAP_THRESHOLD, MAPPED_BYTES_MIN);
    }
}

/// Gives back what is free, and unmaps the program's code and constants: what is still used comes back out of the page cache, some
/// microseconds for sixteen pages. Every minute is often enough, and cheap enough.
pub fn trim() {
    #[cfg(target_env = "gnu")]
    // SAFETY: looks at free memory only.
    unsafe {
        libc::malloc_trim(0);
    }
    let Ok(maps) = std::fs::read_to_string("/proc/self/maps") else { return };
    for (start, length) in own_program(&maps) {
        // SAFETY: no page of the range was ever written to, so each is as in the file, and is read from there again when
        // it is needed.
        unsafe {
            libc::madvise(start as *mut c_void, length, libc::MADV_DONTNEED);
        }
    }
}

/// Where constants and code of the program lie, and how long they are: the beginning of its file, and what of it is executable.
/// Never what could be written to, now or while the loader filled in addresses.
fn own_program(maps: &str) -> Vec<(usize, usize)> {
    let Some([.., own_inode, own_path]) = maps.lines().next().and_then(mapping) else {
        return Vec::new();
    };
    let own =
        maps.lines().filter_map(mapping).filter_map(|[range, rights, offset, inode, path]| {
            let is_begin = rights == "r--p" && offset.bytes().all(|digit| digit == b'0');
            if !(is_begin || rights == "r-xp") || inode != own_inode || path != own_path {
                return None;
            }
            let (start, end) = range.split_once('-')?;
            let start = usize::from_str_radix(start, 16).ok()?;
            let end = usize::from_str_radix(end, 16).ok()?;
            Some((start, end.checked_sub(start)?))
        });
    own.collect()
}

/// Range, rights, offset, inode and path of a line of `/proc/PID/maps` (proc(5)) about a file.
fn mapping(line: &str) -> Option<[&str; 5]> {
    let mut words = line.split_ascii_whitespace();
    let [range, rights, offset] = [words.next()?, words.next()?, words.next()?];
    let inode = words.nth(1)?;
    Some([range, rights, offset, inode, words.next()?])
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAPS: &str = "\
55d0c0a00000-55d0c0adb000 r--p 00000000 fe:00 77                 /usr/bin/weftd
55d0c0adb000-55d0c116a000 r-xp 000db000 fe:00 77                 /usr/bin/weftd
55d0c116a000-55d0c11ac000 r--p 0076a000 fe:00 77                 /usr/bin/weftd
55d0c11ac000-55d0c11b0000 rw-p 007ab000 fe:00 77                 /usr/bin/weftd
55d0c2000000-55d0c2066000 rw-p 00000000 00:00 0                  [heap]
7f1000000000-7f1000155000 r-xp 00026000 fe:00 99                 /usr/lib/libc.so.6
";

    #[test]
    fn only_what_was_never_written_to_is_unmapped() {
        let (constants, code) = ((0x55d0_c0a0_0000, 0xd_b000), (0x55d0_c0ad_b000, 0x68_f000));
        assert_eq!(own_program(MAPS), [constants, code]);
        for other in [
            MAPS.replace("r-xp", "rwxp"),
            MAPS.replace("000db000 fe:00 77", "000db000 fe:00 78"),
            MAPS.replace("-55d0c116a000 r-xp", "-55d0 r-xp"),
        ] {
            assert_eq!(own_program(&other), [constants], "{other}");
        }
        assert_eq!(own_program("nonsense"), []);
        assert_eq!(own_program(""), []);
    }

    /// KiB of a mapping that are in memory for this process.
    fn resident(start: usize) -> usize {
        let maps = std::fs::read_to_string("/proc/self/smaps").unwrap();
        let mut lines = maps.lines().skip_while(|line| !line.starts_with(&format!("{start:x}-")));
        let kib = lines.find_map(|line| line.strip_prefix("Rss:")).unwrap();
        kib.trim().strip_suffix(" kB").unwrap().parse().unwrap()
    }

    #[test]
    fn what_is_not_used_is_unmapped_and_the_program_goes_on() {
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        let own = own_program(&maps);
        let here = trim as *const () as usize;
        let holds = |(start, length): &&(usize, usize)| (*start..start + length).contains(&here);
        let &(start, length) = own.iter().find(holds).expect("its code");
        for page in (start..start + length).step_by(4096) {
            // SAFETY: it is mapped, and may be read.
            unsafe { (page as *const u8).read_volatile() };
        }
        let before = resident(start);
        assert!(before * 1024 >= length / 10 * 9, "{before} KiB of {length} bytes");
        trim();
        let after = resident(start);
        assert!(after < before, "{before} KiB, then {after}");
        assert_eq!(own_program(&std::fs::read_to_string("/proc/self/maps").unwrap()), own);
    }
}
