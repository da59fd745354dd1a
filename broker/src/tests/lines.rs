//! Lines of the log: peers cause none as often as they like, and the names of events are those that the page names.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Folders whose code runs for a request, or a frame, of a peer.
const FOR_PEERS: &[&str] = &[
    "broker/src/client_registry",
    "broker/src/creation",
    "broker/src/delivery",
    "broker/src/forward",
    "broker/src/reply",
    "broker/src/server",
    "broker/src/transaction",
    "common/src/audit",
    "common/src/frame",
    "common/src/remoting",
    "nameserver/src/routes",
    "nameserver/src/server",
];

/// Lines that are bounded in another way, by a part of their text.
const BOUNDED: &[(&str, &str)] = &[
    ("some_lines", "the macro itself"),
    ("{act}{colon}{said}", "each act is told; refusals to other machines go by a gate (`Trail::refusal`)"),
    ("request refused", "a line of each reason in 10 s (`refusals.rs`)"),
    ("a backup is prepared", "from the broker's own machine alone, one at a time"),
    ("messages of the log are given up", "from the broker's own machine alone"),
    ("consumer offsets not stored", "once in a round of its own"),
    ("consumer offsets of the last second", "once, at the end"),
    ("check-back: a command was not", "once in a round"),
    ("check-back: cannot read what is due", "once in a round"),
    ("a change of what is logged", "from the own machine alone"),
    ("cannot accept connections, trying again", "a gate, and a pause"),
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        if path.is_dir() && name != "tests" && name != "scenarios" {
            sources(&path, found);
        } else if path.extension().is_some_and(|kind| kind == "rs") && !name.starts_with("tests") {
            found.push(path);
        }
    }
}

/// The product's part of a file.
fn product(path: &Path) -> String {
    let text = fs::read_to_string(path).unwrap();
    text.split("#[cfg(test)]\nmod tests").next().unwrap().to_owned()
}

#[test]
fn no_peer_causes_a_line_as_often_as_it_likes() {
    let mut loose = Vec::new();
    let mut count = 0;
    for folder in FOR_PEERS {
        let mut files = Vec::new();
        sources(&root().join(folder), &mut files);
        for path in files {
            let text = product(&path);
            for level in ["error", "warn", "info"] {
                for (at, _) in text.match_indices(&format!("tracing::{level}!(")) {
                    count += 1;
                    let line: String =
                        text[at..].split(");").next().unwrap().split_whitespace().collect::<Vec<_>>().join(" ");
                    let is_bounded = line.contains(" others,") || BOUNDED.iter().any(|(part, _)| line.contains(part));
                    if !is_bounded {
                        loose.push(format!("{}: {line}", path.display()));
                    }
                }
            }
        }
    }
    assert!(count > 5, "{count} lines were looked at");
    assert!(
        loose.is_empty(),
        "use some_lines! of escrowmq_common, or say here what bounds them:\n{}",
        loose.join("\n")
    );
}

#[test]
fn the_page_names_each_event() {
    let mut named = BTreeSet::new();
    for folder in ["broker/src", "common/src", "nameserver/src"] {
        let mut files = Vec::new();
        sources(&root().join(folder), &mut files);
        for text in files.iter().map(|path| product(path)) {
            let events = text.split("event = \"").skip(1).filter_map(|rest| rest.split('"').next());
            named.extend(events.map(str::to_owned));
        }
    }
    let page = include_str!("../../../docs/operations.md");
    let table = page.split("| event | ").nth(1).unwrap().split("\n\n").next().unwrap();
    let listed = table.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next());
    assert_eq!(listed.map(str::to_owned).collect::<BTreeSet<_>>(), named);
}
