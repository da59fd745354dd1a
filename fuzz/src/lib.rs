//! Fuzzing of all that needs no `RocksDB`: the functions and the inputs that they begin with are those of the tests of
//! `escrowmq-common`, so that what is fuzzed and what is tested cannot differ.

#[path = "../../common/tests/fuzzing/seeds.rs"]
mod seeds;
#[path = "../../common/tests/fuzzing/targets.rs"]
mod targets;
#[path = "../../common/tests/golden/vectors.rs"]
#[expect(dead_code, reason = "only frames are read here")]
mod vectors;

use std::path::Path;

/// Runs a target on an input; panics if something is wrong.
///
/// # Panics
/// Also if there is no target of this name.
pub fn run(target: &str, input: &[u8]) {
    let found = targets::TARGETS.iter().find(|known| known.name == target);
    (found.unwrap_or_else(|| panic!("no target is called {target}")).run)(input);
}

/// The names of all targets.
pub fn names() -> impl Iterator<Item = &'static str> {
    targets::TARGETS.iter().map(|target| target.name)
}

/// Writes the inputs that a target begins with into a folder, one file each.
///
/// # Errors
/// If the folder or a file cannot be written.
pub fn write_seeds(target: &str, folder: &Path) -> std::io::Result<usize> {
    std::fs::create_dir_all(folder)?;
    let seeds = seeds::of(target);
    for (number, seed) in seeds.iter().enumerate() {
        std::fs::write(folder.join(format!("recorded-{number:04}")), seed)?;
    }
    Ok(seeds.len())
}
