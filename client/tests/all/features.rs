//! The table of features in the documentation and the features of the manifest are the same ones.

use std::collections::BTreeMap;

/// Name and whether it is on by default, out of the table.
fn documented() -> BTreeMap<String, bool> {
    let rows = include_str!("../../src/lib.rs").lines().filter_map(|line| line.strip_prefix("//! | `"));
    let rows = rows.map(|row| {
        let (name, rest) = row.split_once('`').expect("a name ends");
        (name.to_owned(), rest.split('|').nth(1).expect("a column `default`").trim() == "yes")
    });
    rows.collect()
}

/// The same out of the manifest.
fn declared() -> BTreeMap<String, bool> {
    let text = include_str!("../../Cargo.toml");
    let (_, section) = text.split_once("\n[features]\n").expect("features");
    let section = section.split("\n[").next().expect("a section");
    let entries = section.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.split_once(" = "));
    let mut features: BTreeMap<&str, &str> = entries.collect();
    let default = features.remove("default").expect("default features");
    features.keys().map(|name| ((*name).to_owned(), default.contains(&format!("\"{name}\"")))).collect()
}

#[test]
fn every_feature_has_its_line() {
    assert_eq!(documented(), declared());
    assert!(declared()["zstd"] && !declared()["postgres"], "both answers are found");
}
