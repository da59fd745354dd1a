//! The functions that are fuzzed take damaged copies of everything that was recorded, for a moment each; `make fuzz` goes on
//! for longer and knows where it has been.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use escrowmq_common::clock;
use proptest::prelude::RngExt as _;
use proptest::test_runner::{RngAlgorithm, TestRng};

mod seeds;
mod targets;
#[path = "../golden/vectors.rs"]
#[expect(dead_code, reason = "only frames are read here")]
mod vectors;

/// Damaged inputs for each target. The debug build takes ten times as long for each.
const INPUTS: usize = if cfg!(debug_assertions) { 2_000 } else { 20_000 };

/// No target takes longer, on however slow a machine: what is left out then, other runs have tried.
const TIME_MAX: Duration = Duration::from_secs(2);

/// Most faults of one target that are shown.
const FAULTS_MAX: usize = 3;

/// Pieces that are put into inputs: ends of ranges, marks of all formats, and numbers at the limits.
const PIECES: &[&[u8]] = &[
    b"\0",
    b"\x01",
    b"\x02",
    b"\xff\xff\xff\xff",
    b"\x7f\xff\xff\xff",
    b"\x80\0\0\0",
    b"\x7f\xff",
    b"\0\0\0\0",
    b"{",
    b"}",
    b"[",
    b"]",
    b"\"",
    b"\\",
    b"\\u0000",
    b"\\ud800",
    b":",
    b",",
    b"=",
    b"\n",
    b" ",
    b";",
    b"%",
    b"-1",
    b"2147483648",
    b"9223372036854775807",
    b"-9223372036854775808",
    b"1e999",
    b"null",
    b"true",
    b"\xc3",
    b"\xf0\x9f\xa6\x80",
];

/// Changes an input in one to eight places.
fn damage(input: &mut Vec<u8>, others: &[Vec<u8>], random: &mut TestRng) {
    for _ in 0..random.random_range(1..=8) {
        let at = random.random_range(0..=input.len());
        let end = random.random_range(at..=input.len().min(at + 64));
        match random.random_range(0..7) {
            0 if at < input.len() => input[at] = random.random(),
            1 if at < input.len() => input[at] ^= 1 << random.random_range(0..8),
            2 => drop(input.drain(at..end)),
            3 => {
                let piece = PIECES[random.random_range(0..PIECES.len())];
                drop(input.splice(at..at, piece.iter().copied()));
            }
            4 => {
                let again = input[at..end].to_vec();
                drop(input.splice(at..at, again));
            }
            5 => {
                let other = &others[random.random_range(0..others.len())];
                let from = random.random_range(0..=other.len());
                let part = &other[from..other.len().min(from + 64)];
                drop(input.splice(at..end, part.iter().copied()));
            }
            _ => input.truncate(at),
        }
    }
}

/// Tries one target; each fault is the input that shows it.
fn faults(target: &targets::Target) -> Vec<String> {
    let seeds: Vec<Vec<u8>> = seeds::of(target.name).into_iter().collect();
    let mut random = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    let end = clock::monotonic() + TIME_MAX;
    let mut faults = Vec::new();
    let mut attempt = |input: &[u8]| {
        if catch_unwind(AssertUnwindSafe(|| (target.run)(input))).is_err() {
            faults.push(format!("{}: {input:?} = {}", target.name, String::from_utf8_lossy(input)));
        }
        faults.len() < FAULTS_MAX
    };
    let mut goes_on = seeds.iter().all(|seed| attempt(seed)) && attempt(b"");
    for _ in 0..INPUTS {
        if !goes_on || clock::monotonic() > end {
            break;
        }
        let mut input = seeds[random.random_range(0..seeds.len())].clone();
        damage(&mut input, &seeds, &mut random);
        goes_on = attempt(&input);
    }
    faults
}

#[test]
fn no_input_harms_its_reader() {
    let faults: Vec<String> = targets::TARGETS.iter().flat_map(faults).collect();
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

/// A header or body that is not fuzzed was forgotten.
#[test]
fn every_header_and_body_is_fuzzed() {
    let source = include_str!("targets.rs");
    let is_named = |name: &str| source.split(|c: char| !c.is_alphanumeric()).any(|word| word == name);
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut known = 0;
    for entry in std::fs::read_dir(folder.join("header")).unwrap() {
        let text = std::fs::read_to_string(entry.unwrap().path()).unwrap();
        let structs = text.lines().filter_map(|line| line.strip_prefix("    pub struct "));
        for name in structs.filter_map(|rest| rest.split(|c: char| !c.is_alphanumeric()).next()) {
            assert!(name.is_empty() || is_named(name), "header {name}");
            known += 1;
        }
    }
    assert!(known > 70, "only {known} headers");
    let bodies = std::fs::read_to_string(folder.join("body/mod.rs")).unwrap();
    let files = ["body", "body/registration"].map(|part| std::fs::read_dir(folder.join(part)).unwrap());
    for entry in files.into_iter().flatten() {
        let Ok(text) = std::fs::read_to_string(entry.unwrap().path()) else { continue };
        // The documentation of each type that is a body of its own says of which request.
        let mut is_body = false;
        for line in text.lines() {
            if line.starts_with("/// Body of ") || line.starts_with("/// Answer to ") {
                is_body = true;
            } else if let Some(rest) = line.strip_prefix("pub struct ") {
                let name = rest.split(|c: char| !c.is_alphanumeric()).next().unwrap_or_default();
                let is_public = bodies.split(|c: char| !c.is_alphanumeric()).any(|word| word == name);
                assert!(!is_body || !is_public || is_named(name), "body {name}");
                is_body = false;
            }
        }
    }
}
