//! `escrowmq group recover`: a stopped member goes on alone, because the majority of its group is lost for good.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use anyhow::bail;
use escrowmq_broker::recover::{Recovery, Standing};
use escrowmq_common::calendar::CalendarTime;
use serde_json::{Value, json};

use crate::confirm;

/// Arguments of `escrowmq group recover`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Without --force nothing is changed: compare the last entries of all members that are left, and take the \
    one with the highest term, and among those the highest index."
)]
pub(super) struct Arguments {
    /// Data folder (storePathRootDir) of the stopped member
    dir: PathBuf,
    /// Make it the only member of a new incarnation. WHAT ONLY THE OTHERS HAVE IS LOST
    #[arg(long)]
    force: bool,
    /// With --force: do not ask before it is done
    #[arg(long, short, requires = "force")]
    yes: bool,
}

/// What was seen and done.
pub(super) struct Recovered {
    dir: PathBuf,
    standing: Standing,
    incarnation: Option<u64>,
}

pub(super) fn run(arguments: &Arguments) -> anyhow::Result<Recovered> {
    let Arguments { dir, force, yes } = arguments;
    if *force {
        confirm::refuse_if_nobody_can_be_asked(*yes)?;
    }
    let recovery = Recovery::open(dir)?;
    let standing = recovery.standing().clone();
    let mut incarnation = None;
    if *force {
        if !yes
            && !confirm::ask_for_word(&shown(dir, &standing), "Type the name of the group to go on", &standing.group)?
        {
            bail!("that is not '{}'; nothing was changed", standing.group);
        }
        incarnation = Some(recovery.force()?);
    }
    Ok(Recovered { dir: dir.clone(), standing, incarnation })
}

fn time(standing: &Standing) -> String {
    if standing.stamp.get() == 0 {
        return "unknown".to_owned();
    }
    let CalendarTime { year, month, day, hour, minute, second, millis } = CalendarTime::of(standing.stamp.signed());
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}.{millis:03} UTC")
}

/// What the member has, and what may be missing.
fn shown(dir: &Path, standing: &Standing) -> String {
    let Standing { group, seat, node, incarnation, term, index, committed, votes, others, is_unfinished, .. } =
        standing;
    let incarnation = incarnation.map_or_else(|| "-".to_owned(), |number| number.to_string());
    let mut out =
        format!("{}: seat {seat} of the group '{group}' (node {node}, incarnation {incarnation})\n", dir.display());
    let _ = writeln!(out, "  last entry:    term {term}, index {index}, {}", time(standing));
    if committed < index {
        let _ = writeln!(out, "  not known to be committed here, and kept: entries {} to {index}", committed.next());
    }
    let _ = writeln!(out, "  other members: {}", if others.is_empty() { "none".to_owned() } else { others.join(", ") });
    if !votes {
        out += "  THIS MEMBER HAS NO VOTE in its group: it may lack much of what was acknowledged\n";
    }
    if *is_unfinished {
        out += "  a recovery of this folder was begun and not ended: it is to be done again\n";
    }
    let _ = writeln!(
        out,
        "  may be missing: every entry after {index} that the others have acknowledged without this member: messages, decisions,\n\
         \x20                 offsets. Another member that is left and has a later entry is the better one to recover."
    );
    out
}

impl Recovered {
    pub(super) fn text(&self) -> String {
        let Self { dir, standing, incarnation } = self;
        let Standing { group, seat, .. } = standing;
        let shown = shown(dir, standing);
        match incarnation {
            None => format!("{shown}nothing was changed; --force makes this member the only one of its group\n"),
            Some(incarnation) => format!(
                "{shown}{seat} is the only member of the group '{group}' now, in the incarnation {incarnation}. Start it. Then empty the \
                 folders of the other members and start them: they join. With what they have now they are refused\n"
            ),
        }
    }

    pub(super) fn json(&self) -> Value {
        let Self { dir, standing, incarnation } = self;
        json!({
            "dir": dir,
            "group": standing.group,
            "seat": standing.seat,
            "id": standing.node.to_string(),
            "oldIncarnation": standing.incarnation.map(|number| number.to_string()),
            "incarnation": incarnation.map(|number| number.to_string()),
            "lastTerm": standing.term,
            "lastIndex": standing.index,
            "committed": standing.committed,
            "lastTime": standing.stamp.get(),
            "votes": standing.votes,
            "others": standing.others,
            "unfinished": standing.is_unfinished,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use escrowmq_broker::terms::{LogIndex, Stamp};

    #[test]
    fn what_may_be_missing_is_said_before_anything_is_changed() {
        let standing = Standing {
            group: "orders".to_owned(),
            seat: "n1".to_owned(),
            node: 7,
            incarnation: Some(9),
            term: 4,
            index: LogIndex(120),
            committed: LogIndex(118),
            stamp: Stamp(1_700_000_000_000),
            votes: true,
            others: vec!["n0-h:1".to_owned()],
            is_unfinished: false,
        };
        let said = Recovered { dir: "/d".into(), standing, incarnation: None }.text();
        for part in [
            "term 4, index 120, 2023-11-14 22:13:20.000 UTC",
            "entries 119 to 120",
            "every entry after 120",
            "n0-h:1",
            "nothing was changed",
        ] {
            assert!(said.contains(part), "{part}: {said}");
        }
    }
}
