//! Lives and cuts by seed.

use std::time::Duration;

use escrowmq_common::clock::{self, Clock};

use super::act::Act;
use super::history::{History, Step};
use super::life::{Kept, Life, live};
use super::recover::{Expected, recover};
use crate::log::Flush;
use crate::log::sim_disk::{Random, SimDisk};

/// Nothing is flushed but what the workload asks for.
const ASYNC: Flush = Flush::Async { interval: Duration::from_secs(60 * 60) };
/// Lives per seed: each but the first begins after a power cut.
const LIVES: usize = 3;
/// Bursts of commands per life.
const BURSTS: usize = 9;
/// Images per operation: a power cut that keeps nothing, everything, two random parts.
const IMAGES: u64 = 4;

/// Counts of what a search tried.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Counts {
    pub(super) cuts: u64,
    pub(super) kills: u64,
    pub(super) commands: u64,
    /// Times that files of the log went.
    pub(super) purges: u64,
    /// Commands that wrote bytes once more.
    pub(super) moves: u64,
    /// A hash of the operations of the disk with their bytes, the answers and the visible state.
    pub(super) digest: u64,
}

/// One seed; an error says what is wrong.
pub(super) fn run(seed: u64, flush: Flush) -> Result<Counts, String> {
    let mut random = Random::new(seed);
    let mut history = History::new();
    let mut counts = Counts::default();
    let clock = Clock::manual(1_700_000_000_000);
    let mut disk = SimDisk::new();
    let mut kept = Kept::default();
    for nth in 0..LIVES {
        disk.record();
        let before = history.steps.len();
        let lived = live(&mut history, &disk, std::mem::take(&mut kept), flush, &clock, &mut random, BURSTS);
        let life = lived.map_err(|why| format!("life {nth}: {why}"))?;
        counts.commands += (history.steps.len() - before) as u64;
        counts.purges += life.purges;
        let moves = |step: &Step| match &step.act {
            Act::Roll { .. } => true,
            Act::Settle { rewritten, .. } => !rewritten.is_empty(),
            _ => false,
        };
        counts.moves += history.steps[before..].iter().filter(|step| moves(step)).count() as u64;
        let next = cut_everywhere(&history, &disk, &life, flush, &clock, &mut random, &mut counts);
        let (image, left) = next.map_err(|why| format!("life {nth}, {why}"))?;
        // The next life sees an image with its index, or without any.
        disk = image;
        kept = Kept { index: left.index.filter(|_| random.below(3) > 0), base: left.base };
        let recovered = recover(&disk.fork(), kept.base.as_ref(), flush, &history, &mut random)?;
        history.forget_after(recovered.shard.log(), recovered.steps);
    }
    counts.digest = history.digest();
    Ok(counts)
}

/// Cuts the power at each operation. Answers one of the images, with the index that belongs to it.
fn cut_everywhere(
    history: &History,
    disk: &SimDisk,
    life: &Life,
    flush: Flush,
    clock: &Clock,
    random: &mut Random,
    counts: &mut Counts,
) -> Result<(SimDisk, Kept), String> {
    let mut replay = disk.replay();
    let mut chosen = None;
    let mut passed = 0;
    while let Some(cut) = replay.next_operation() {
        let (snapshot, base) = (life.snapshot(cut), life.base(cut));
        let required = life.required(cut, flush);
        let expected = Expected { history, required, flushed: required, flush, base };
        for seed in [0, 1, 2 + cut, 1000 + cut].into_iter().take(IMAGES as usize) {
            let image = replay.cut(seed);
            let rows = snapshot.filter(|_| random.below(2) == 0);
            let examined = expected.examine(&image, rows, clock, random);
            examined.map_err(|why| format!("power cut at operation {cut}, image {seed}: {why}"))?;
            counts.cuts += 1;
            passed += 1;
            if random.below(passed) == 0 {
                chosen = Some((image, Kept { index: snapshot.cloned(), base: base.cloned() }));
            }
        }
        let (flushed, required) = (required, life.required_after_kill(cut));
        let rows = snapshot.filter(|_| random.below(2) == 0);
        let expected = Expected { history, required, flushed, flush, base };
        let examined = expected.examine(&replay.kill(), rows, clock, random);
        examined.map_err(|why| format!("kill before operation {cut}: {why}"))?;
        counts.kills += 1;
        replay.advance();
    }
    chosen.ok_or_else(|| "a life does something to the disk".to_owned())
}

/// The seeds of a test: `count` in order; one that was asked for; fresh ones until a time is over; or from one on,
/// likewise.
pub(in crate::shard) fn seeds(first: u64, count: u64) -> impl Iterator<Item = u64> {
    let number = |name: &str| std::env::var(name).ok().and_then(|value| value.parse::<u64>().ok());
    let (asked, seconds) = (number("ESCROWMQ_CUT_SEED"), number("ESCROWMQ_CUT_SECONDS"));
    let until = seconds.map(|seconds| clock::monotonic() + Duration::from_secs(seconds));
    let fresh = clock::wall_ms().unsigned_abs() * 1000 + first;
    (0..).map_while(move |nth| match (asked, until) {
        (Some(seed), None) => (nth == 0).then_some(seed),
        (Some(seed), Some(until)) => (clock::monotonic() < until).then_some(seed + nth),
        (None, Some(until)) => (nth < count || clock::monotonic() < until).then_some(fresh + nth),
        (None, None) => (nth < count).then_some(first + nth),
    })
}

/// Tries seeds; panics with the command that tries the failing one again.
fn search(test: &str, first: u64, count: u64, flush: Flush) {
    let mut all = Counts::default();
    let started = clock::monotonic();
    let mut told = started;
    for seed in seeds(first, count) {
        match run(seed, flush) {
            Ok(counts) => {
                all.cuts += counts.cuts;
                all.kills += counts.kills;
                all.commands += counts.commands;
                all.purges += counts.purges;
                all.moves += counts.moves;
            }
            Err(why) => panic!(
                "seed {seed}: {why}\n\nagain: ESCROWMQ_CUT_SEED={seed} cargo test --release -p escrowmq-broker --lib {test}\n"
            ),
        }
        if clock::monotonic().checked_sub(told).unwrap() > Duration::from_secs(15) {
            told = clock::monotonic();
            println!("{test}: seed {seed}, {all:?} in {:?}", told.checked_sub(started).unwrap());
        }
    }
    let took = clock::monotonic().checked_sub(started).unwrap();
    let Counts { cuts, kills, commands, purges, moves, .. } = all;
    println!(
        "{test}: {cuts} power cuts, {kills} kills, {commands} commands, {purges} purges, {moves} moves in {took:?}"
    );
    // One seed that was asked for may let nothing go.
    let few = std::env::var_os("ESCROWMQ_CUT_SEED").is_some();
    assert!(few || purges > 3 && moves > 3, "retention did too little to show anything: {all:?}");
    assert!(all.cuts > 100 && all.commands > 20, "too little was tried to show anything: {all:?}");
}

/// Operations of the disk, bytes of the log, answers and visible state: the same each time a seed is tried. RocksDB's own
/// files are not looked at; the index is in memory here.
#[test]
fn a_seed_does_the_same_each_time() {
    for (seed, flush) in [(7, Flush::Sync), (1007, ASYNC)] {
        let [once, again] = [run(seed, flush), run(seed, flush)].map(|run| run.map(|counts| counts.digest));
        assert_eq!(once, again, "seed {seed} with {flush:?}");
        assert_ne!(run(seed + 1, flush).map(|counts| counts.digest), once, "another seed does something else");
    }
}

#[test]
fn power_cuts_with_synchronous_flush() {
    search("power_cuts_with_synchronous_flush", 1, 7, Flush::Sync);
}

#[test]
fn power_cuts_with_asynchronous_flush() {
    search("power_cuts_with_asynchronous_flush", 1001, 7, ASYNC);
}
