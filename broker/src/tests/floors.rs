//! The floors of the broker: folders below import nothing from folders above.

use std::fs;
use std::path::{Path, PathBuf};

/// Floors from the lowest up, with all that each may import. Folders that are not named here may import whatever they need.
const FLOORS: &[(&str, &[&str])] = &[
    ("planted", &[]),
    ("terms", &[]),
    ("limits", &[]),
    ("filter", &[]),
    ("steady_clock", &["terms"]),
    ("executor", &[]),
    ("latch", &["terms"]),
    ("log", &["latch", "planted", "terms"]),
    ("raft", &["executor", "latch", "log", "planted", "terms"]),
    ("index", &["terms"]),
];

/// The files of a floor without its tests.
fn files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).into_iter().flatten() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() && !["tests", "sim_disk"].contains(&&*name) {
            files(&path, found);
        } else if path.extension().is_some_and(|end| end == "rs") && !name.starts_with("tests") {
            found.push(path);
        }
    }
}

/// The folders of the broker that a file's code names, unit tests left out.
fn imports(text: &str) -> Vec<String> {
    let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
    let code = code.lines().filter(|line| !line.trim_start().starts_with("//"));
    let named = code.flat_map(|line| line.split("crate::").skip(1));
    named.map(|rest| rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()).collect()
}

#[test]
fn no_floor_imports_from_above() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut wrong = Vec::new();
    for (floor, allowed) in FLOORS {
        let mut all = vec![source.join(format!("{floor}.rs"))];
        files(&source.join(floor), &mut all);
        let texts = all.iter().filter_map(|path| Some((path, fs::read_to_string(path).ok()?)));
        let mut seen = 0;
        for (path, text) in texts {
            seen += 1;
            let strange = imports(&text).into_iter().filter(|name| name != floor && !allowed.contains(&&**name));
            wrong.extend(strange.map(|name| format!("{} imports {name}", path.display())));
        }
        assert!(seen > 0, "no file of {floor}");
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn imports_are_read_as_the_compiler_reads_them() {
    let text = "//! [`crate::shard`]\nuse crate::terms::X;\nuse std::io;\nfn f() { crate::log::g(crate::index::H) }\n";
    assert_eq!(imports(text), ["terms", "log", "index"]);
    assert_eq!(imports("use a::b;\n#[cfg(test)]\nmod tests {\n    use crate::shard::S;\n}\n"), Vec::<String>::new());
}
