//! Reading a whole table with few calls to the kernel: `BPF_MAP_LOOKUP_BATCH`, which Linux 5.6 has for tables by CPU.
//!
//! Row by row it is two calls a row: one for the key, one for what belongs to it.

use crate::kernel::possible_cpus;
use libbpf_rs::{MapCore, MapFlags, MapHandle};
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::ptr;

/// Bytes of copies that one call brings, unless a single row has more.
const BATCH_BYTES: usize = 64 << 10;
/// Rows below which a batch is not worth its memory in the kernel, which makes room for five.
const ROWS_MIN: usize = 4;

/// A hash table with a copy of each row for every CPU, whose values are whole words.
#[derive(Debug)]
pub(crate) struct Batches {
    map: MapHandle,
    /// Rows that one call may bring; `None`: row by row. Grows with the longest chain of the kernel's hash table.
    rows: Option<usize>,
}

impl Batches {
    pub(crate) fn new(map: MapHandle) -> Self {
        let rows = (BATCH_BYTES / Self::row_bytes(&map)).min(map.max_entries() as usize);
        Self { rows: (rows >= ROWS_MIN).then_some(rows), map }
    }

    /// The table itself.
    pub(crate) fn map(&self) -> &MapHandle {
        &self.map
    }

    /// Calls `row` with the key and the copies of each row, one behind the other. As with any walk through a table that
    /// is written to, a row that comes or goes meanwhile may be missing. One that comes twice counts as it was the second time.
    pub(crate) fn each(&mut self, mut row: impl FnMut(&[u8], &[u8])) -> libbpf_rs::Result<()> {
        if let Some(rows) = self.rows {
            match self.each_batch(rows, &mut row) {
                Ok(()) => return Ok(()),
                // It had no memory for it, which may be otherwise the next time.
                Err(error) if error.raw_os_error() == Some(libc::ENOMEM) => {}
                // It does not know this for tables by CPU.
                Err(_) => self.rows = None,
            }
        }
        self.each_alone(&mut row)
    }

    fn row_bytes(map: &MapHandle) -> usize {
        (map.value_size() as usize).next_multiple_of(8) * possible_cpus()
    }

    fn each_batch(
        &mut self,
        mut rows: usize,
        row: &mut impl FnMut(&[u8], &[u8]),
    ) -> io::Result<()> {
        let (key_bytes, row_bytes) = (self.map.key_size() as usize, Self::row_bytes(&self.map));
        let mut keys = vec![0; rows * key_bytes];
        let mut copies = vec![0; rows * row_bytes];
        // Where the walk goes on: the kernel's affair, at most as long as a key or four bytes.
        let mut place = vec![0; key_bytes.max(4)];
        let mut begun = false;
        loop {
            let (brought, outcome) = lookup(&self.map, begun, &mut place, &mut keys, &mut copies);
            let is_last = match outcome.map_err(|error| (error.raw_os_error(), error)) {
                Ok(()) => false,
                Err((Some(libc::ENOENT), _)) => true,
                // More rows in one chain of the kernel's table than there is room for.
                Err((Some(libc::ENOSPC), _)) if rows < self.map.max_entries() as usize => {
                    rows *= 2;
                    self.rows = Some(rows);
                    keys.resize(rows * key_bytes, 0);
                    copies.resize(rows * row_bytes, 0);
                    continue;
                }
                Err((_, error)) => return Err(error),
            };
            begun = true;
            let found = keys.chunks_exact(key_bytes).zip(copies.chunks_exact(row_bytes));
            found.take(brought).for_each(|(key, copies)| row(key, copies));
            if is_last {
                return Ok(());
            }
        }
    }

    fn each_alone(&self, row: &mut impl FnMut(&[u8], &[u8])) -> libbpf_rs::Result<()> {
        for key in self.map.keys().collect::<Vec<_>>() {
            if let Some(copies) = self.map.lookup_percpu(&key, MapFlags::ANY)? {
                row(&key, &copies.concat());
            }
        }
        Ok(())
    }
}

/// One call: how many rows it has brought, and `ENOENT` if these were the last ones. `begun`: from `place` on.
fn lookup(
    map: &MapHandle,
    begun: bool,
    place: &mut [u8],
    keys: &mut [u8],
    copies: &mut [u8],
) -> (usize, io::Result<()>) {
    let mut count = u32::try_from(keys.len() / map.key_size() as usize).unwrap_or(u32::MAX);
    let options = libbpf_sys::bpf_map_batch_opts {
        sz: size_of::<libbpf_sys::bpf_map_batch_opts>() as libbpf_sys::size_t,
        ..Default::default()
    };
    let place = place.as_mut_ptr().cast::<std::ffi::c_void>();
    // SAFETY: `keys` and `copies` are writable and have room for `count` rows; `place` is as long as the kernel wants it,
    // and may be the same before and behind: it is read first.
    let failed = unsafe {
        libbpf_sys::bpf_map_lookup_batch(
            map.as_fd().as_raw_fd(),
            if begun { place } else { ptr::null_mut() },
            place,
            keys.as_mut_ptr().cast(),
            copies.as_mut_ptr().cast(),
            &mut count,
            &options,
        )
    };
    let outcome = if failed == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(-failed)) };
    (count as usize, outcome)
}

#[cfg(test)]
pub(crate) mod tests;
