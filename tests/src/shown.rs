//! What a page for operators shows: its sections, the commands in them, and what these print.
//!
//! A section begins with `## `, and its first line names in backticks what leads there. A block `sh` with a block `text` right behind
//! it is a *look*: the commands, and lines that they print. A block `sh` without one is left to the reader.
//!
//! Lines are compared as a reader would: numbers, times and ids differ, the words do not. At the end of a line of metrics it counts
//! whether the value is 0.

use std::fs;
use std::path::Path;

/// Letters and digits from which on a word in capitals is an id.
const ID_LENGTH: usize = 16;

/// A section of a page.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Section {
    /// Its heading.
    pub title: String,
    /// What its first line names.
    pub names: Vec<String>,
    /// Commands with what they print.
    pub looks: Vec<Look>,
    /// Commands without.
    pub others: Vec<String>,
}

/// Commands, and lines that they print.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Look {
    /// For `sh -c`.
    pub script: String,
    /// In this order, with others between them.
    pub prints: Vec<String>,
}

impl Section {
    /// The end of a link to it, as hosts of Markdown make it.
    pub fn anchor(&self) -> String {
        let kept = self.title.chars().filter(|letter| letter.is_alphanumeric() || [' ', '-'].contains(letter));
        kept.map(|letter| if letter == ' ' { '-' } else { letter.to_ascii_lowercase() }).collect()
    }
}

impl Look {
    /// The first line of it that `printed` does not have where it should.
    pub fn missing_in<'a>(&'a self, printed: &str) -> Option<&'a str> {
        let mut printed = printed.lines().map(comparable);
        self.prints.iter().find(|line| !printed.any(|one| one == comparable(line))).map(String::as_str)
    }
}

/// The sections of the page at this path, from the root of the repository.
///
/// # Panics
///
/// If it cannot be read.
pub fn sections_of(page: &str) -> Vec<Section> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(page);
    sections(&fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display())))
}

fn sections(text: &str) -> Vec<Section> {
    let mut sections: Vec<Section> = Vec::new();
    let mut fence: Option<&str> = None;
    let mut block: Vec<&str> = Vec::new();
    // Commands that may have their output next.
    let mut open: Option<String> = None;
    for line in text.lines() {
        let Some(section) = sections.last_mut() else {
            sections.extend(titled(line));
            continue;
        };
        match (fence, line.strip_prefix("```")) {
            (None, Some(kind)) => fence = Some(kind),
            (Some(kind), Some(_)) => {
                match kind {
                    "sh" => {
                        section.others.extend(open.take());
                        open = Some(block.join("\n"));
                    }
                    "text" => {
                        let prints = block.iter().map(|line| (*line).to_owned()).collect();
                        section.looks.extend(open.take().map(|script| Look { script, prints }));
                    }
                    _ => {}
                }
                (fence, block) = (None, Vec::new());
            }
            (Some(_), None) => block.push(line),
            (None, None) if line.is_empty() => {}
            (None, None) => {
                section.others.extend(open.take());
                match titled(line) {
                    Some(next) => sections.push(next),
                    None if section.names.is_empty() => {
                        section.names = line.split('`').skip(1).step_by(2).map(str::to_owned).collect();
                    }
                    None => {}
                }
            }
        }
    }
    if let Some(section) = sections.last_mut() {
        section.others.extend(open);
    }
    sections
}

fn titled(line: &str) -> Option<Section> {
    Some(Section { title: line.strip_prefix("## ")?.to_owned(), ..Section::default() })
}

/// A line without what differs each time.
fn comparable(line: &str) -> String {
    let mut words: Vec<String> = line.split_whitespace().map(word).collect();
    let is_metric =
        words.len() == 2 && line.contains('_') && line.starts_with(|first: char| first.is_ascii_lowercase());
    let value: Option<f64> = line.rsplit(' ').next().and_then(|value| value.parse().ok());
    if let (true, Some(0.0)) = (is_metric, value) {
        "0".clone_into(&mut words[1]);
    }
    // An age may have one unit or two.
    words.dedup_by(|one, before| one == "N" && before == "N");
    words.join(" ")
}

fn word(word: &str) -> String {
    let unit = word.trim_start_matches(|letter: char| letter.is_ascii_digit());
    if word.parse::<f64>().is_ok() || (unit.len() < word.len() && ["ms", "s", "m", "h", "d"].contains(&unit)) {
        return "N".to_owned();
    }
    if word.len() >= ID_LENGTH && word.chars().all(|letter| letter.is_ascii_digit() || letter.is_ascii_uppercase()) {
        return "ID".to_owned();
    }
    let mut out = String::new();
    let mut in_number = false;
    for letter in word.chars() {
        if !letter.is_ascii_digit() {
            out.push(letter);
        } else if !in_number {
            out.push('N');
        }
        in_number = letter.is_ascii_digit();
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = "# A page\n\n```sh\nbefore the first section\n```\n\n## Half of it: is old\n\n`One`, `Two`\n\nLook, `not a name`:\n\n\
                        ```sh\nfirst\nsecond\n```\n```text\nA  B\n```\n\n```sh\nthird\n```\n\nand\n\n```sh\nfourth\n```\n## Next\n";

    #[test]
    fn a_page_is_taken_apart() {
        let found = sections(PAGE);
        assert_eq!(found.len(), 2);
        let first = Section {
            title: "Half of it: is old".to_owned(),
            names: vec!["One".to_owned(), "Two".to_owned()],
            looks: vec![Look { script: "first\nsecond".to_owned(), prints: vec!["A  B".to_owned()] }],
            others: vec!["third".to_owned(), "fourth".to_owned()],
        };
        assert_eq!(found[0].anchor(), "half-of-it-is-old");
        assert_eq!(found, [first, Section { title: "Next".to_owned(), ..Section::default() }]);
    }

    #[test]
    fn numbers_may_differ_and_words_may_not() {
        let look = |lines: &[&str]| Look {
            script: String::new(),
            prints: lines.iter().map(|line| (*line).to_owned()).collect(),
        };
        let table = look(&["GROUP  OLDEST", "orders  12m 5s  7  AC11000200B4"]);
        assert_eq!(table.missing_in("GROUP OLDEST\nothers 1s 1 -\norders   3s 12 AC11000299B4"), None);
        assert_eq!(table.missing_in("GROUP OLDEST\norders 3s - AC11000200B4"), Some("orders  12m 5s  7  AC11000200B4"));
        assert_eq!(look(&["b", "a"]).missing_in("a\nb"), Some("a"), "the order counts");
        let metric = look(&["escrowmq_halves{group=\"g1\"} 3"]);
        assert_eq!(metric.missing_in("escrowmq_halves{group=\"g2\"} 1.5e3"), None);
        assert!(metric.missing_in("escrowmq_halves{group=\"g2\"} 0").is_some());
        assert!(metric.missing_in("escrowmq_halves{group=\"other\"} 3").is_some());
        assert_eq!(
            look(&["at 2026-12-01T14:00:07Z by 7F0000013039A1B2C3D4"])
                .missing_in("at 2027-01-31T00:59:00Z by 7F0000013039A1B2C3D9"),
            None
        );
    }
}
