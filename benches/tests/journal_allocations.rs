//! Keeping a statement in the journal allocates nothing but the journal's own, amortised growth.

use std::alloc::System;

use segue_bench::pure::Pure;
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const VALUE: [u8; 1024] = [7; 1024];
const STATEMENTS: usize = 4000;

#[test]
fn journalling_allocates_only_as_the_journal_grows() {
    let mut pure = Pure::begin().unwrap();
    // The first statement of this size makes room for itself in the journal and in the output,
    // which is reused from then on.
    pure.execute(&VALUE).unwrap();
    pure.answer().unwrap();
    let mut worst = 0;
    let mut allocations = 0;
    for _ in 0..STATEMENTS {
        let region = Region::new(ALLOCATOR);
        pure.execute(&VALUE).unwrap();
        let change = region.change();
        let here = change.allocations + change.reallocations;
        allocations += here;
        worst = worst.max(here);
        pure.answer().unwrap();
    }
    // 4,000 statements are 4 MB: doubling from 1 KB comes to 12 growths of the journal, and the
    // list of its units grows as often.
    assert!(allocations <= 30, "{allocations} allocations for {STATEMENTS} statements");
    assert!(worst <= 2, "{worst} allocations for one statement");
}
