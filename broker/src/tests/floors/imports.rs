//! Reads which file imports which, as the compiler would.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

/// A path of names: a module, or something in one.
type Names = Vec<String>;

/// The files of the broker by the paths of their modules, tests left out.
pub(super) struct Source {
    files: BTreeMap<Names, File>,
}

/// The imports of a file, as paths from the crate's root.
#[derive(Default)]
struct File {
    imports: BTreeSet<Names>,
    /// Names that it hands on, and what they stand for.
    hands_on: BTreeMap<String, Names>,
}

impl Source {
    pub(super) fn read(folder: &Path) -> Self {
        let mut texts = BTreeMap::new();
        read_folder(folder, &[], &mut texts);
        let modules: BTreeSet<&Names> = texts.keys().collect();
        let files = texts.iter().map(|(module, text)| (module.clone(), File::read(module, text, &modules)));
        Self { files: files.collect() }
    }

    /// The folders, or single files, that the crate's root is made of.
    pub(super) fn folders(&self) -> BTreeSet<&str> {
        self.files.keys().map(|module| module[0].as_str()).collect()
    }

    /// The imports of a folder's files from other folders: the file and the folder.
    pub(super) fn arrows_of_folder(&self, folder: &str) -> BTreeSet<(String, String)> {
        let files = self.files.iter().filter(|(module, _)| module[0] == folder);
        let arrows = files.flat_map(|(module, file)| {
            // A path without a name is the crate's root itself, reached by `super`.
            let other = |path: &Names| path.first().map_or("the root", String::as_str).to_owned();
            file.imports.iter().map(move |path| (module.join("::"), other(path)))
        });
        arrows.filter(|(_, other)| other != folder).collect()
    }

    /// The circles of files that import each other. A module and those inside it count as one: their imports of each other
    /// make no circle.
    pub(super) fn circles(&self) -> Vec<BTreeSet<&Names>> {
        let is_around = |a: &Names, b: &Names| a.starts_with(b) || b.starts_with(a);
        let arrows: BTreeMap<&Names, BTreeSet<&Names>> = self
            .files
            .iter()
            .map(|(from, file)| {
                let to = file.imports.iter().filter_map(|path| self.file_of(path));
                (from, to.filter(|to| !is_around(from, to)).collect())
            })
            .collect();
        let reached: BTreeMap<&Names, BTreeSet<&Names>> =
            arrows.keys().map(|from| (*from, reached_from(from, &arrows))).collect();
        let circle = |one: &Names| {
            let both_ways = reached[one].iter().filter(|other| reached[*other].contains(one));
            both_ways.copied().collect::<BTreeSet<_>>()
        };
        let circles: BTreeSet<_> = self.files.keys().map(circle).filter(|circle| !circle.is_empty()).collect();
        circles.into_iter().collect()
    }

    /// The file in which a path ends, with names followed that are only handed on.
    fn file_of(&self, path: &Names) -> Option<&Names> {
        let length = (1..=path.len()).rev().find(|length| self.files.contains_key(&path[..*length]))?;
        let (module, file) = self.files.get_key_value(&path[..length])?;
        match path.get(length).and_then(|name| file.hands_on.get(name)) {
            Some(elsewhere) if !elsewhere.starts_with(&path[..=length]) => {
                self.file_of(&[elsewhere, &path[length + 1..]].concat())
            }
            _ => Some(module),
        }
    }
}

fn reached_from<'a>(from: &'a Names, arrows: &BTreeMap<&'a Names, BTreeSet<&'a Names>>) -> BTreeSet<&'a Names> {
    let mut reached = BTreeSet::new();
    let mut next = vec![from];
    while let Some(file) = next.pop() {
        next.extend(arrows[file].iter().copied().filter(|to| reached.insert(*to)));
    }
    reached
}

impl File {
    fn read(module: &Names, text: &str, modules: &BTreeSet<&Names>) -> Self {
        let mut file = Self::default();
        let code = product_code(text);
        let mut rest = code.as_str();
        // Statements first; the rest has single paths.
        let mut others = String::new();
        while let Some(at) = find_use(rest) {
            let end = rest[at..].find(';').map_or(rest.len(), |length| at + length);
            let is_public =
                rest[..at].trim_end().rsplit(['\n', ';', '}']).next().is_some_and(|line| line.contains("pub"));
            for (path, name) in tree(&rest[at + "use ".len()..end]) {
                let Some(path) = from_root(module, path, modules) else { continue };
                if is_public {
                    file.hands_on.insert(name, path.clone());
                }
                file.imports.insert(path);
            }
            others.push_str(&rest[..at]);
            rest = &rest[end..];
        }
        others.push_str(rest);
        for start in ["crate::", "super::", "self::"] {
            for (at, _) in others.match_indices(start) {
                let before = &others[..at];
                let is_inner = before.ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == ':');
                // `pub(in super)` says who sees a thing and imports nothing.
                if is_inner || before.ends_with("(in ") {
                    continue;
                }
                let path: String =
                    others[at..].chars().take_while(|c| c.is_alphanumeric() || *c == '_' || *c == ':').collect();
                let path = path.trim_end_matches(':').split("::").map(str::to_owned).collect();
                file.imports.extend(from_root(module, path, modules));
            }
        }
        file
    }
}

/// Where the next `use` statement begins.
fn find_use(text: &str) -> Option<usize> {
    let begins = |at: &usize| !text[..*at].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == '<');
    text.match_indices("use ").map(|(at, _)| at).find(begins)
}

/// A text without comments, its unit tests, and what it imports for tests alone.
fn product_code(text: &str) -> String {
    let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
    let lines: Vec<&str> = code.lines().map(|line| line.split("//").next().unwrap_or_default()).collect();
    let kept = lines.iter().enumerate().filter(|(at, line)| {
        let is_for_tests = *at > 0 && lines[at - 1].trim() == "#[cfg(test)]";
        !(is_for_tests && line.trim_end().ends_with(';'))
    });
    kept.map(|(_, line)| *line).collect::<Vec<_>>().join("\n")
}

/// The paths of a `use` statement, each with the name that it brings.
fn tree(text: &str) -> Vec<(Names, String)> {
    let text = text.trim();
    let Some((before, inner)) = text.split_once('{') else {
        let (path, name) = text.split_once(" as ").map_or((text, None), |(path, name)| (path, Some(name)));
        let path: Names = path.trim().split("::").map(str::to_owned).collect();
        let name = name.map_or_else(|| path.last().cloned().unwrap_or_default(), |name| name.trim().to_owned());
        return vec![(path, name)];
    };
    let inner = inner.strip_suffix('}').unwrap_or(inner);
    let before: Names = before.split("::").filter(|name| !name.is_empty()).map(|name| name.trim().to_owned()).collect();
    let inside = parts(inner).into_iter().flat_map(tree);
    inside
        .map(|(mut path, name)| {
            // `a::{self}` brings `a`.
            let is_self = path == ["self"];
            path = if is_self { before.clone() } else { [before.clone(), path].concat() };
            let name = if is_self { path.last().cloned().unwrap_or_default() } else { name };
            (path, name)
        })
        .collect()
}

/// Cuts at the commas that are in no braces.
fn parts(text: &str) -> Vec<&str> {
    let (mut parts, mut depth, mut from) = (Vec::new(), 0, 0);
    for (at, c) in text.char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                parts.push(&text[from..at]);
                from = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&text[from..]);
    parts.retain(|part| !part.trim().is_empty());
    parts
}

/// A path as seen in a module, from the crate's root; `None` for one that leads into another crate.
fn from_root(module: &Names, path: Names, modules: &BTreeSet<&Names>) -> Option<Names> {
    let mut base = match path.first()?.as_str() {
        "crate" => Vec::new(),
        "self" | "super" => module.clone(),
        child => {
            let inside = [module.as_slice(), &[child.to_owned()]].concat();
            return modules.contains(&inside).then(|| [module.clone(), path].concat());
        }
    };
    let mut rest = path.as_slice();
    while let [first, others @ ..] = rest
        && ["crate", "self", "super"].contains(&first.as_str())
    {
        if first == "super" {
            base.pop();
        }
        rest = others;
    }
    Some([base.as_slice(), rest].concat())
}

fn read_folder(folder: &Path, module: &[String], texts: &mut BTreeMap<Names, String>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        let is_for_tests = name.starts_with("tests") || ["cluster", "cuts", "sim_disk"].contains(&name.as_str());
        let is_root = module.is_empty() && ["lib", "main"].contains(&name.as_str());
        if is_for_tests || is_root {
            continue;
        }
        let inside = [module, std::slice::from_ref(&name)].concat();
        if path.is_dir() {
            read_folder(&path, &inside, texts);
        } else if path.extension().is_some_and(|end| end == "rs") {
            let module = if name == "mod" { module.to_vec() } else { inside };
            texts.insert(module, fs::read_to_string(&path).unwrap());
        }
    }
}

#[test]
fn imports_are_read_as_the_compiler_reads_them() {
    let names = |path: &str| path.split("::").map(str::to_owned).collect::<Names>();
    let modules = ["a", "a::b", "a::c", "x"].map(names);
    let modules: BTreeSet<&Names> = modules.iter().collect();
    let read = |text: &str| {
        let file = File::read(&names("a::b"), text, &modules);
        file.imports.iter().map(|path| path.join("::")).collect::<Vec<_>>()
    };
    assert_eq!(
        read("//! [`crate::x`]\nuse std::io;\nfn f() { crate::x::g(super::h::<self::K>()) }\n"),
        ["a::b::K", "a::h", "x::g"]
    );
    assert_eq!(
        read("use crate::{x::{self, Y as Z}, a::c};\npub(crate) use super::super::x::{\n    V,\n};\n"),
        ["a::c", "x", "x::V", "x::Y"]
    );
    assert_eq!(read("use super::super::Anything;\n"), ["Anything"]);
    assert_eq!(
        read("#[cfg(test)]\nuse crate::x::X;\n#[cfg(test)]\nmod tests {\n    use crate::x::Y;\n}\n"),
        Vec::<String>::new()
    );
}

#[test]
fn circles_are_found_through_names_that_are_handed_on() {
    let names = |path: &str| path.split("::").map(str::to_owned).collect::<Names>();
    let texts = [
        ("a", "mod b;\nmod c;\npub(crate) use b::B;\nuse c::C;\n"),
        ("a::b", "use super::C;\nuse crate::a::c::D;\n"),
        ("a::c", "use super::B;\nuse crate::x::X;\n"),
        ("x", "use crate::a::B;\n"),
    ];
    let modules: Vec<Names> = texts.iter().map(|(module, _)| names(module)).collect();
    let all = modules.iter().collect();
    let files = texts.iter().map(|(module, text)| (names(module), File::read(&names(module), text, &all)));
    let source = Source { files: files.collect() };
    let circles: Vec<Vec<String>> =
        source.circles().iter().map(|circle| circle.iter().map(|file| file.join("::")).collect()).collect();
    assert_eq!(circles, [["a::b", "a::c", "x"]]);
}
