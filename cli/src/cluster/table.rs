//! The table: a line for each process, and how the sends go.

use std::fmt::Write as _;

use super::commands::HELP;
use super::load::Sends;
use super::members::{Cluster, GROUPS, State};
use super::watch::{Row, leader};

/// Draws it. `words` are what was told last.
pub(super) fn draw(cluster: &Cluster, view: &[Row], sends: &Sends, words: &[String]) -> String {
    let mut text = String::new();
    let mut line = |told: std::fmt::Arguments<'_>| writeln!(text, "{told}").expect("a string takes everything");
    let names = cluster.nodes().iter().zip(view).filter(|(node, _)| node.group.is_none());
    for (node, row) in names {
        line(format_args!("nameserver {:4} {:12} {}", node.name, word(row), node.address()));
    }
    for (group, name) in GROUPS.iter().enumerate() {
        let leads = leader(cluster, view, group);
        let end = leads.and_then(|at| view[at].page.as_ref()).map(|page| page.applied);
        let rate: f64 = leads.map_or(0.0, |at| view[at].rate);
        line(format_args!(""));
        match leads {
            Some(at) => line(format_args!("group {name}: {} leads, {rate:.0} messages/s", cluster.nodes()[at].name)),
            None => line(format_args!("group {name}: nobody leads, nothing is stored")),
        }
        line(format_args!("  MEMBER  ROLE          TERM    ENTRIES        LAG  ADDRESS"));
        let members = cluster.nodes().iter().zip(view).filter(|(node, _)| node.group == Some(group));
        for (node, row) in members {
            let page = row.page.as_ref();
            let number = |value: Option<u64>| value.map_or_else(|| "-".to_owned(), |value| value.to_string());
            let lag = page.and_then(|page| Some(end?.saturating_sub(page.applied)));
            line(format_args!(
                "  {:6}  {:9} {:>8} {:>10} {:>10}  {}",
                node.name,
                word(row),
                number(page.map(|page| page.term)),
                number(page.map(|page| page.applied)),
                number(lag),
                node.address()
            ));
        }
    }
    line(format_args!(""));
    line(format_args!(
        "sends: {} acknowledged, {} refused, {} of unknown outcome; the longest wait for an acknowledgement was {:.1} s",
        sends.acknowledged,
        sends.refused,
        sends.unknown,
        sends.longest_wait.as_secs_f64()
    ));
    for said in words {
        line(format_args!("{said}"));
    }
    line(format_args!("{HELP}"));
    text
}

/// The role of a member, or how the process is.
fn word(row: &Row) -> &str {
    match (row.state, &row.page) {
        (State::Down, _) => "down",
        (State::Paused, _) => "paused",
        // Nobody leads, as far as it knows.
        (State::Up, Some(page)) if page.role == "candidate" => "no leader",
        (State::Up, Some(page)) => &page.role,
        (State::Up, None) => "up",
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::watch::Page;
    use super::*;

    #[test]
    fn a_table_says_who_leads_and_how_far_others_are() {
        let folder = tempfile::tempdir().unwrap();
        let cluster = Cluster::new(folder.path()).unwrap();
        let member = |role: &str, term, applied| Row {
            state: State::Up,
            page: Some(Page { role: role.to_owned(), term, applied, messages: 0 }),
            rate: 50.4,
        };
        let without = |state| Row { state, page: None, rate: 0.0 };
        let view = vec![
            without(State::Up),
            without(State::Down),
            // A leader of an older term is none.
            member("leader", 2, 90),
            member("leader", 3, 100),
            without(State::Down),
            member("candidate", 1, 5),
            without(State::Paused),
            without(State::Up),
        ];
        let sends = Sends { acknowledged: 7, refused: 1, unknown: 2, longest_wait: Duration::from_millis(1_260) };
        let drawn = draw(&cluster, &view, &sends, &["a2 is killed (kill -9)".to_owned()]);
        let lines: Vec<Vec<&str>> = drawn.lines().map(|line| line.split_whitespace().collect()).collect();
        let has = |words: &[&str]| lines.iter().any(|line| line.starts_with(words));
        assert!(has(&["nameserver", "ns0", "up"]) && has(&["nameserver", "ns1", "down"]), "{drawn}");
        assert!(drawn.contains("group a: a1 leads, 50 messages/s\n"), "{drawn}");
        assert!(drawn.contains("group b: nobody leads, nothing is stored\n"), "{drawn}");
        assert!(has(&["a0", "leader", "2", "90", "10"]) && has(&["a1", "leader", "3", "100", "0"]), "{drawn}");
        assert!(has(&["a2", "down", "-", "-", "-"]) && has(&["b1", "paused"]) && has(&["b2", "up"]), "{drawn}");
        assert!(has(&["b0", "no", "leader", "1", "5", "-"]), "{drawn}");
        assert!(
            drawn.contains("7 acknowledged, 1 refused, 2 of unknown outcome") && drawn.contains("1.3 s"),
            "{drawn}"
        );
        assert!(drawn.contains("a2 is killed"), "{drawn}");
    }
}
