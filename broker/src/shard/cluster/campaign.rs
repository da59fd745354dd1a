//! Runs by seed.

use std::time::Duration;

use escrowmq_common::clock;

use super::super::cuts::seeds;
use super::world::{Counts, run};
use crate::log::Flush;

/// Nothing would be flushed for an hour, if the group did not ask for it.
const ASYNC: Flush = Flush::Async { interval: Duration::from_secs(60 * 60) };

fn flush_of(seed: u64) -> Flush {
    if seed.is_multiple_of(3) { ASYNC } else { Flush::Sync }
}

#[test]
fn a_seed_does_the_same_each_time() {
    for seed in [5, 6] {
        let [once, again] = [(); 2].map(|()| run(seed, flush_of(seed)).map(|counts| (counts.digest, counts.steps)));
        assert_eq!(once, again, "seed {seed}");
    }
}

#[test]
fn three_nodes_under_faults() {
    let mut all = Counts::default();
    let started = clock::monotonic();
    for seed in seeds(1, 30) {
        // A run that never ends still says which one it is.
        println!("seed {seed}");
        match run(seed, flush_of(seed)) {
            Ok(counts) => all.add(&counts),
            Err(why) => panic!(
                "seed {seed}: {why}\n\nagain: ESCROWMQ_CUT_SEED={seed} cargo test --release -p escrowmq-broker --lib \
                 three_nodes_under_faults\n"
            ),
        }
    }
    let took = clock::monotonic().saturating_sub(started);
    println!("three_nodes_under_faults: {all:?} in {took:?}");
    assert!(all.runs < 20 || all.kinds.iter().all(|count| *count > 0), "a kind of fault did not happen: {all:?}");
    assert!(all.runs < 20 || all.copies > 3, "no node lacked entries that were gone: {all:?}");
    assert!(all.runs < 20 || all.wiped > 8 && all.changes > 8, "no voter was replaced: {all:?}");
    assert!(all.runs < 20 || all.taken_over > 1, "no leader died while voters changed: {all:?}");
}
