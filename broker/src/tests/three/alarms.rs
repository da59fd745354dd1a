//! Each figure of a group is described in docs/replication.md, and an alert of deploy/prometheus asks for it. That rules name figures that
//! exist is a test of the rules' own.

use std::collections::BTreeSet;
use std::path::Path;

use super::support::Three;

/// Figures of a group that no rule needs: they help to read the others.
const CONTEXT: &[&str] = &["group_applied_index"];

fn read(path: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path)).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_figure_of_a_group_is_described_and_has_an_alert() {
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

    let (document, rules) = (read("docs/replication.md"), read("deploy/prometheus/rules.yml"));
    let base = |name: &String| {
        let ends = ["_bucket", "_sum", "_count"];
        ends.iter().find_map(|end| name.strip_suffix(end)).unwrap_or(name).to_owned()
    };
    let is_of_group = |name: &&String| name.starts_with("group_");
    let is_described = |name: &&String| is_of_group(name) || name.starts_with("forward_");
    assert!(figures.iter().filter(is_of_group).count() >= 15, "the page is read: {figures:?}");
    let silent: BTreeSet<_> =
        figures.iter().filter(is_described).map(base).filter(|name| !document.contains(name.as_str())).collect();
    assert!(silent.is_empty(), "docs/replication.md does not say what these are: {silent:?}");
    let without: BTreeSet<_> = figures
        .iter()
        .filter(is_of_group)
        .map(base)
        .chain(["log_flush_seconds".to_owned()])
        .filter(|name| !rules.contains(&format!("escrowmq_{name}")) && !CONTEXT.contains(&name.as_str()))
        .collect();
    assert!(without.is_empty(), "no alert asks for these: {without:?}");
}
