//! The store's budget, counted by the allocator and not by the store.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

use metrics::labels::Labels;
use metrics::store::Store;

struct Counting;

static NOW: AtomicUsize = AtomicUsize::new(0);
static MOST: AtomicUsize = AtomicUsize::new(0);

// SAFETY: everything is left to the system's allocator; only numbers are kept beside it.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let now = NOW.fetch_add(layout.size(), Ordering::Relaxed) + layout.size();
        MOST.fetch_max(now, Ordering::Relaxed);
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        NOW.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller's promise is passed on.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[test]
fn what_the_allocator_gave_stays_within_the_budget_and_appends_ask_for_slabs_only() {
    const BUDGET: usize = 1 << 20;
    let all: Vec<Labels> = (0..4000)
        .map(|number| {
            let unit = format!("weft-job-{}.service", number % 1500);
            let metric = format!("metric_{}", number / 1500);
            Labels::new([("__name__", &*metric), ("unit", &unit)]).expect("labels")
        })
        .collect();
    let mut ids = Vec::with_capacity(all.len());
    let start = NOW.load(Ordering::Relaxed);
    let mut store = Store::new(BUDGET);
    let mut refused = 0;
    for round in 0..200i64 {
        // More series with every round, until the index is full; each has samples of random bits.
        for labels in &all[round as usize * 20..(round as usize + 1) * 20] {
            match store.series(labels, round * 10_000) {
                Ok(id) => ids.push(id),
                Err(_) => refused += 1,
            }
        }
        for second in 0..10 {
            for (index, id) in ids.iter().enumerate() {
                let value = ((round * 10 + second + 1) * (index as i64 + 1)) as f64;
                store.append(*id, round * 10_000 + second * 1000, value.sqrt()).expect("in order");
            }
        }
    }
    assert!(refused > 0 && ids.len() > 1000, "{} series, {refused} refused", ids.len());
    assert!(store.usage().dropped_blocks > 1000, "{:?}", store.usage());

    let most = MOST.load(Ordering::Relaxed) - start;
    assert!(most <= BUDGET, "{most} bytes of {BUDGET}");
    assert!(most > BUDGET * 9 / 10, "the budget is used: {most} bytes of {BUDGET}");
    let (counted, said) = (NOW.load(Ordering::Relaxed) - start, store.usage().bytes);
    assert!(counted <= said, "{counted} bytes, but the store says {said}");

    // A full store appends without the allocator.
    MOST.store(NOW.load(Ordering::Relaxed), Ordering::Relaxed);
    let before = MOST.load(Ordering::Relaxed);
    for second in 0..100 {
        for (index, id) in ids.iter().enumerate() {
            let value = (second * (index as i64 + 1)) as f64;
            store.append(*id, 3_000_000 + second * 1000, value.sqrt()).expect("in order");
        }
    }
    assert_eq!(MOST.load(Ordering::Relaxed), before, "nothing was asked of the allocator");
}
