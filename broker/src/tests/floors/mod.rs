//! The floors of the broker: no folder imports from one above it, no two folders import each other, and circles of files within
//! a folder stay small.

mod imports;

use std::collections::BTreeSet;
use std::path::Path;

use imports::Source;

/// The folders from the lowest floor up. Each may import those that it names, or all that lie below it if it names none.
const FLOORS: &[(&str, Option<&[&str]>)] = &[
    // Words, bounds and counts.
    ("planted", Some(&[])),
    ("terms", Some(&[])),
    ("limits", Some(&[])),
    ("metrics", Some(&[])),
    ("spans", Some(&[])),
    ("reply", Some(&["spans"])),
    ("filter", Some(&[])),
    ("config", Some(&["limits"])),
    ("gate", Some(&["limits"])),
    ("steady_clock", Some(&["planted", "terms"])),
    ("latch", Some(&["terms"])),
    ("executor", Some(&["latch"])),
    ("peer", Some(&["terms"])),
    ("client_registry", Some(&["filter"])),
    // The store.
    ("log", Some(&["latch", "metrics", "planted", "terms"])),
    ("index", Some(&["terms"])),
    ("raft", Some(&["executor", "latch", "log", "metrics", "planted", "terms"])),
    ("shard", Some(&["executor", "index", "latch", "log", "metrics", "planted", "raft", "steady_clock", "terms"])),
    ("storage", Some(&["executor", "index", "latch", "log", "raft", "shard", "steady_clock", "terms"])),
    // Readers of the store, and background work.
    ("key_index", Some(&["log", "shard", "terms"])),
    ("check", Some(&["index", "key_index", "limits", "log", "raft", "shard", "terms"])),
    ("backup", Some(&["check", "index", "limits", "log", "shard", "storage", "terms"])),
    ("snapshot", Some(&["backup", "check", "latch", "limits", "log", "planted", "raft", "shard", "terms"])),
    (
        "group",
        Some(&[
            "config", "limits", "log", "metrics", "peer", "planted", "raft", "shard", "snapshot", "storage", "terms",
        ]),
    ),
    ("stats", None),
    ("registration", None),
    ("retention", None),
    ("creation", None),
    ("transaction", None),
    ("delivery", None),
    ("schedule", None),
    // All of it together, and requests.
    ("forward", Some(&["metrics", "peer", "planted", "raft"])),
    ("monitoring", None),
    ("broker", None),
    ("server", None),
    ("start", None),
];

/// The most files of one folder that import each other in a circle.
const CIRCLE_FILES_MAX: usize = 6;

fn source() -> Source {
    Source::read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"))
}

#[test]
fn every_folder_has_its_floor_and_arrows_go_down() {
    let floors: BTreeSet<&str> = FLOORS.iter().map(|(floor, _)| *floor).collect();
    let source = source();
    assert_eq!(floors, source.folders(), "the list above has every folder once");
    let mut wrong = Vec::new();
    for (at, (floor, allowed)) in FLOORS.iter().enumerate() {
        let may_import = |other: &str| {
            let is_below = FLOORS[..at].iter().any(|(below, _)| *below == other);
            is_below && allowed.is_none_or(|allowed| allowed.contains(&other))
        };
        let arrows = source.arrows_of_folder(floor).into_iter();
        wrong.extend(
            arrows.filter(|(_, other)| !may_import(other)).map(|(file, other)| format!("{file} imports {other}")),
        );
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn circles_of_files_stay_small() {
    let source = source();
    let circles = source.circles();
    let large: Vec<_> = circles.iter().filter(|circle| circle.len() > CIRCLE_FILES_MAX).collect();
    assert!(large.is_empty(), "{large:?}");
}
