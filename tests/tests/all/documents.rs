//! The documents whose Rust is compiled (`escrowmq_tests::documents`) are all that there are, and none of them leaves a block out. The
//! guide's table of contents has all its pages.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use escrowmq_tests::documents;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize().unwrap()
}

/// Adds the documents below `folder`, as paths from the root.
fn find(folder: &Path, found: &mut BTreeSet<String>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        if path.is_dir() && !name.starts_with('.') && name != "target" {
            find(&path, found);
        } else if path.extension().is_some_and(|kind| kind == "md") {
            found.insert(path.strip_prefix(root()).unwrap().to_str().unwrap().to_owned());
        }
    }
}

#[test]
fn every_document_is_compiled() {
    let mut found = BTreeSet::new();
    find(&root(), &mut found);
    // The changelog tells of what is gone.
    assert!(found.remove("CHANGELOG.md"));
    // Parts of the documentation of items, which is compiled where it is.
    found.retain(|path| !path.starts_with("client/src/"));
    let listed: BTreeSet<String> = documents::ALL.iter().map(|path| (*path).to_owned()).collect();
    assert_eq!(listed, found, "tests/src/documents.rs names each document");
}

#[test]
fn no_block_of_rust_is_left_out() {
    let mut count = 0;
    for document in documents::ALL {
        let text = std::fs::read_to_string(root().join(document)).unwrap();
        for fence in text.lines().filter_map(|line| line.trim_start().strip_prefix("```rust")) {
            count += 1;
            let is_compiled = fence.split(',').all(|word| ["", "no_run", "should_panic"].contains(&word));
            assert!(is_compiled, "{document}: ```rust{fence}");
        }
    }
    assert!(count >= 10, "{count} blocks were found, and there are more");
}

#[test]
fn the_guide_has_all_its_pages() {
    let folder = root().join("docs/guide/src");
    let summary = std::fs::read_to_string(folder.join("SUMMARY.md")).unwrap();
    for entry in std::fs::read_dir(&folder).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        assert!(name == "SUMMARY.md" || summary.contains(&format!("]({name})")), "{name} is not in SUMMARY.md");
    }
}
