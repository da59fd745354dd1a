//! What the client brings along: with its default features no C compiler, no library of the system and no package of ours that has one.

use std::collections::BTreeSet;
use std::process::Command;

use serde_json::Value;

fn cargo(arguments: &[&str]) -> String {
    let program = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(program).args(arguments).current_dir(env!("CARGO_MANIFEST_DIR")).output().unwrap();
    assert!(output.status.success(), "cargo {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Name and version of every package that builds with the client, those of build scripts and macros too.
fn tree(features: &[&str]) -> BTreeSet<(String, String)> {
    let what = ["tree", "--locked", "--package", "escrowmq-client", "--edges", "normal,build", "--prefix", "none"];
    let text = cargo(&[&what[..], features].concat());
    let packages = text.lines().filter_map(|line| {
        let (name, version) = line.split_once(" v")?;
        Some((name.to_owned(), version.split(' ').next()?.to_owned()))
    });
    packages.collect()
}

/// Those of them that stand for code which is not Rust: packages that link a library, and tools that compile or look for one.
fn foreign(packages: &BTreeSet<(String, String)>, linking: &BTreeSet<(String, String)>) -> Vec<String> {
    let tools = ["autotools", "bindgen", "cc", "cmake", "pkg-config", "vcpkg"];
    let is_foreign = |package: &&(String, String)| tools.contains(&package.0.as_str()) || linking.contains(*package);
    packages.iter().filter(is_foreign).map(|(name, version)| format!("{name} {version}")).collect()
}

/// Packages with a key `links`, out of everything that the workspace may use here.
fn linking() -> BTreeSet<(String, String)> {
    let version = Command::new("rustc").arg("-vV").output().unwrap().stdout;
    let version = String::from_utf8(version).unwrap();
    let host = version.lines().find_map(|line| line.strip_prefix("host: ")).unwrap();
    let text = cargo(&["metadata", "--locked", "--format-version", "1", "--filter-platform", host]);
    let metadata: Value = serde_json::from_str(&text).unwrap();
    let packages = metadata["packages"].as_array().unwrap().iter();
    let of = |package: &Value, key: &str| package[key].as_str().unwrap().to_owned();
    packages
        .filter(|package| package["links"].is_string())
        .map(|package| (of(package, "name"), of(package, "version")))
        .collect()
}

#[test]
fn the_client_alone_is_rust_alone() {
    let linking = linking();
    for features in [&["--no-default-features"][..], &[], &["--features", "postgres,mysql"]] {
        let packages = tree(features);
        assert!(packages.iter().any(|(name, _)| name == "tokio"), "{packages:?}");
        assert_eq!(foreign(&packages, &linking), [""; 0], "{features:?}");
    }
    // What the search would find.
    let sqlite = foreign(&tree(&["--features", "sqlite"]), &linking);
    let found = |name: &str| sqlite.iter().any(|package| package.starts_with(name));
    assert!(found("cc ") && found("libsqlite3-sys "), "{sqlite:?}");
    // The broker is none of its packages, and neither is RocksDB.
    assert!(tree(&[]).iter().all(|(name, _)| !name.contains("rocksdb") && name != "escrowmq-broker"));
}
