//! The alarm rules of docs/replication.md: they name figures that exist, and each figure of a group is in that document and in a
//! rule.

use std::collections::BTreeSet;
use std::path::Path;

use super::support::Three;

/// Words of the language of Prometheus that the rules use, and labels.
const WORDS: &[&str] = &[
    "abs",
    "absent",
    "and",
    "by",
    "changes",
    "count",
    "histogram_quantile",
    "increase",
    "job",
    "le",
    "leader",
    "max",
    "max_over_time",
    "offset",
    "or",
    "rate",
    "role",
    "seat",
    "sum",
];

/// Figures of a group that no rule needs: they help to read the others.
const CONTEXT: &[&str] = &["group_applied_index"];

/// A rule of the table.
struct Rule {
    expression: String,
    duration: String,
    meaning: String,
}

fn document() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/replication.md");
    std::fs::read_to_string(path).unwrap()
}

/// The rows of the table under "Alarms".
fn rules(document: &str) -> Vec<Rule> {
    let (_, section) = document.split_once("### Alarms").expect("the section of alarms");
    let rows = section.lines().skip_while(|line| !line.starts_with("| `")).take_while(|line| line.starts_with('|'));
    let rule = |row: &str| {
        let cells: Vec<&str> = row.trim_matches('|').split(" | ").map(str::trim).collect();
        assert_eq!(cells.len(), 3, "{row}");
        let expression = cells[0].strip_prefix('`').and_then(|rest| rest.strip_suffix('`')).expect("an expression");
        Rule { expression: expression.to_owned(), duration: cells[1].to_owned(), meaning: cells[2].to_owned() }
    };
    rows.map(rule).collect()
}

/// The names in an expression: no numbers, no texts, no durations.
fn names(expression: &str) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    let (mut name, mut is_text) = (String::new(), false);
    for each in expression.chars().chain([' ']) {
        if each == '"' {
            is_text = !is_text;
        } else if !is_text && (each.is_ascii_alphanumeric() || each == '_') {
            name.push(each);
            continue;
        }
        if !name.is_empty() {
            names.insert(std::mem::take(&mut name));
        }
    }
    names.retain(|name| name.starts_with(|first: char| first.is_ascii_alphabetic()));
    names
}

fn is_duration(text: &str) -> bool {
    text.strip_suffix(['s', 'm', 'h']).is_some_and(|number| number.parse::<u32>().is_ok())
}

#[test]
fn names_are_told_from_numbers_texts_and_durations() {
    let found = names("rate(a_total[5m]) > 0.5 and b{role=\"leader\"} == 1");
    assert_eq!(found, ["a_total", "and", "b", "rate", "role"].map(str::to_owned).into());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rules_name_figures_that_exist_and_every_figure_of_a_group_is_described() {
    let mut three = Three::new();
    three.start(&[0, 1, 2]).await;
    let leader = three.leader().await;
    let follower = (leader + 1) % 3;
    let has_clocks = |page: &std::collections::BTreeMap<String, f64>| {
        page.keys().any(|name| name.starts_with("group_clock_offset_seconds"))
    };
    crate::tests::support::until("clocks are compared", async || has_clocks(&three.page(follower).await)).await;
    let mut figures = BTreeSet::new();
    for at in [leader, follower] {
        let page = three.page(at).await;
        figures.extend(page.keys().map(|name| name.split('{').next().unwrap().to_owned()));
    }
    three.end().await;

    let document = document();
    let rules = rules(&document);
    assert!(rules.len() >= 15, "the table is read: {}", rules.len());
    for rule in &rules {
        let unknown: Vec<_> = names(&rule.expression)
            .into_iter()
            .filter(|name| match name.strip_prefix("escrowmq_") {
                Some(figure) => !figures.contains(figure),
                None => !WORDS.contains(&name.as_str()),
            })
            .collect();
        assert!(unknown.is_empty(), "{} names {unknown:?}", rule.expression);
        assert!(is_duration(&rule.duration) && rule.meaning.len() > 20, "{}", rule.expression);
    }
    let is_of_group = |name: &&String| name.starts_with("group_");
    let is_described = |name: &&String| is_of_group(name) || name.starts_with("forward_");
    let base = |name: &String| {
        let ends = ["_bucket", "_sum", "_count"];
        ends.iter().find_map(|end| name.strip_suffix(end)).unwrap_or(name).to_owned()
    };
    let silent: BTreeSet<_> =
        figures.iter().filter(is_described).map(base).filter(|name| !document.contains(name.as_str())).collect();
    assert!(silent.is_empty(), "docs/replication.md does not say what these are: {silent:?}");
    let named = rules.iter().flat_map(|rule| names(&rule.expression));
    let asked: BTreeSet<_> =
        named.filter_map(|name| name.strip_prefix("escrowmq_").map(|figure| base(&figure.to_owned()))).collect();
    let without: BTreeSet<_> = figures
        .iter()
        .filter(is_of_group)
        .map(base)
        .chain(["log_flush_seconds".to_owned()])
        .filter(|name| !asked.contains(name) && !CONTEXT.contains(&name.as_str()))
        .collect();
    assert!(without.is_empty(), "no rule asks for these: {without:?}");
}
