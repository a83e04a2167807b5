use super::*;
use libbpf_rs::MapType;
use std::collections::BTreeMap;

/// A table with this many rows, whose copy for each CPU is the key, the CPU and the sum of both. `None` where there may be none.
pub(crate) fn table(rows: u64, room: u32) -> Option<MapHandle> {
    let options = libbpf_sys::bpf_map_create_opts {
        sz: size_of::<libbpf_sys::bpf_map_create_opts>() as libbpf_sys::size_t,
        ..Default::default()
    };
    let map = match MapHandle::create(MapType::PercpuHash, Some("rows"), 8, 24, room, &options) {
        Ok(map) => map,
        Err(error) => {
            skipped(&format!("no table: {error}"));
            return None;
        }
    };
    for key in 1..=rows {
        let copies: Vec<Vec<u8>> = (0..possible_cpus() as u64)
            .map(|cpu| [key, cpu, key + cpu].iter().flat_map(|word| word.to_ne_bytes()).collect())
            .collect();
        map.update_percpu(&key.to_ne_bytes(), &copies, MapFlags::ANY).expect("a row");
    }
    Some(map)
}

fn skipped(reason: &str) {
    assert!(std::env::var("WEFT_MUST").as_deref() != Ok("ebpf"), "{reason}");
    eprintln!("skipped: {reason}");
}

fn read(batches: &mut Batches) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let mut rows = BTreeMap::new();
    batches
        .each(|key, copies| assert!(rows.insert(key.to_vec(), copies.to_vec()).is_none(), "twice"))
        .expect("readable");
    rows
}

#[test]
fn batches_bring_what_single_calls_bring() {
    for rows in [0, 1, 7, 900] {
        let Some(map) = table(rows, 1024) else { return };
        let mut alone = Batches { map, rows: None };
        let expected = read(&mut alone);
        assert_eq!(expected.len() as u64, rows);
        // A chain of the kernel's may have several rows: a small batch grows.
        for batch in [1, 2, 100, 5000] {
            let mut batches =
                Batches { map: table(rows, 1024).expect("another"), rows: Some(batch) };
            assert_eq!(read(&mut batches), expected);
            if batches.rows.is_none() {
                skipped("this kernel has no batches for tables by CPU");
                return;
            }
        }
    }
}
