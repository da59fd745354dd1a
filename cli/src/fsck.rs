//! `escrowmq fsck`: looks at the data of a stopped broker, and repairs it.

use std::path::PathBuf;
use std::process::ExitCode;

use escrowmq_broker::check::{Action, Finding, Folder, Progress, RepairOptions, Report};
use escrowmq_broker::terms::LogIndex;
use serde_json::{Value, json};

use crate::progress::Line;
use crate::words::{counted, told};

/// Nothing is wrong.
const CLEAN: u8 = 0;
/// Something is wrong, or was and could not be repaired.
const FOUND: u8 = 1;
/// The folder could not be looked at.
const COULD_NOT_RUN: u8 = 2;

/// Arguments of `escrowmq fsck`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Exit code: 0 nothing is wrong, 1 something is wrong (after --repair: still), 2 could not run.\n\
    Without --repair no file is changed. The broker must be stopped."
)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of the command line")]
pub(crate) struct Arguments {
    /// The broker's data folder (storePathRootDir), or the one given to `escrowmq standalone`
    dir: PathBuf,
    /// Also make an index from the log in a temporary folder and compare it with the stored one, table by table
    #[arg(long)]
    deep: bool,
    /// Repair what can be repaired without giving up an acknowledged byte: cut a torn tail, rebuild the index
    #[arg(long)]
    repair: bool,
    /// With --repair: give up the acknowledged bytes from a place on that was found damaged. THEY ARE LOST
    #[arg(long, value_name = "FILE:OFFSET", requires = "repair", value_parser = place)]
    drop_acknowledged_after: Option<(PathBuf, u64)>,
    /// With --drop-acknowledged-after, for a member of a group: there are no other members any more. `escrowmq group recover
    /// --force` has to follow. WHAT ONLY THE OTHERS HAVE IS LOST
    #[arg(long, requires = "drop_acknowledged_after")]
    others_are_lost: bool,
    /// With --repair: set the record with this index aside, which does not decode. WHAT IT HELD IS LOST
    #[arg(long, value_name = "RECORD", requires = "repair")]
    quarantine: Option<u64>,
    /// Print JSON instead of text
    #[arg(long)]
    json: bool,
}

fn place(text: &str) -> Result<(PathBuf, u64), String> {
    let (file, offset) = text.rsplit_once(':').ok_or("expected FILE:OFFSET")?;
    Ok((PathBuf::from(file), offset.parse().map_err(|_| format!("{offset} is no byte offset"))?))
}

/// Runs the command.
pub(crate) fn run(arguments: &Arguments) -> ExitCode {
    let mut line = Line::new();
    let done = perform(arguments, &mut |progress: Progress| line.show(progress.stage, progress.done, progress.total));
    line.clear();
    match done {
        Ok(done) => {
            if arguments.json {
                println!("{}", done.json());
            } else {
                print!("{}", done.text(arguments.repair));
            }
            ExitCode::from(if done.report.findings.is_empty() { CLEAN } else { FOUND })
        }
        Err(error) => {
            if arguments.json {
                println!("{}", json!({"error": told(&error)}));
            }
            eprintln!("escrowmq: {}", told(&error));
            ExitCode::from(COULD_NOT_RUN)
        }
    }
}

/// The findings, and the repairs that were made.
struct Done {
    dir: PathBuf,
    /// The findings after the repairs.
    report: Report,
    actions: Vec<Action>,
}

fn perform(arguments: &Arguments, progress: &mut dyn FnMut(Progress)) -> anyhow::Result<Done> {
    let folder = Folder::take(&arguments.dir)?;
    let mut report = folder.check(arguments.deep, progress)?;
    let mut actions = Vec::new();
    if arguments.repair {
        let options = RepairOptions {
            drop_acknowledged_after: arguments.drop_acknowledged_after.clone(),
            others_are_lost: arguments.others_are_lost,
            quarantine: arguments.quarantine.map(LogIndex),
        };
        actions = folder.repair(&report, &options, progress)?;
        if actions.iter().any(|action| matches!(action, Action::Done(_))) {
            report = folder.check(arguments.deep, progress)?;
        }
    }
    Ok(Done { dir: folder.dir().to_owned(), report, actions })
}

impl Done {
    fn text(&self, is_repair: bool) -> String {
        let mut lines: Vec<String> = Vec::new();
        for action in &self.actions {
            lines.push(match action {
                Action::Done(what) => format!("repaired: {what}"),
                Action::Left(what) => format!("not repaired: {what}"),
            });
        }
        for finding in &self.report.findings {
            lines.push(finding.to_string());
            lines.push(format!("    means: {}", finding.kind.meaning()));
            lines.push(format!("    do:    {}", finding.kind.advice()));
        }
        lines.extend(self.report.notes.iter().map(|note| format!("note: {note}")));
        let figures = &self.report.figures;
        let rows: u64 = figures.rows.values().sum();
        lines.push(format!(
            "{}: {} with {} in {}, log positions {} to {}; {} in the index{}; {}",
            self.dir.display(),
            counted(figures.records, "record"),
            counted(figures.messages, "message"),
            counted(figures.segments, "segment"),
            figures.log_start,
            figures.log_end,
            counted(rows, "row"),
            if figures.is_compared { ", equal to what the log leads to where nothing else is said" } else { "" },
            counted(figures.key_files, "key file"),
        ));
        lines.push(match (self.report.findings.len(), is_repair) {
            (0, _) => "nothing is wrong".to_owned(),
            (count, false) => format!("{}; nothing was changed", counted(count, "finding")),
            (1, true) => "1 finding is left".to_owned(),
            (count, true) => format!("{count} findings are left"),
        });
        lines.join("\n") + "\n"
    }

    fn json(&self) -> Value {
        let figures = &self.report.figures;
        let actions = self.actions.iter().map(|action| match action {
            Action::Done(what) => json!({"done": true, "what": what}),
            Action::Left(what) => json!({"done": false, "what": what}),
        });
        json!({
            "dir": self.dir,
            "clean": self.report.findings.is_empty(),
            "findings": self.report.findings.iter().map(finding).collect::<Vec<_>>(),
            "notes": self.report.notes,
            "repair": actions.collect::<Vec<_>>(),
            "figures": {
                "segments": figures.segments,
                "records": figures.records,
                "messages": figures.messages,
                "logStart": figures.log_start,
                "logEnd": figures.log_end,
                "lastIndex": figures.last_index.map_or(0, LogIndex::get),
                "appliedIndex": figures.applied.map(|(index, _)| index),
                "appliedEnd": figures.applied.map(|(_, end)| end),
                "rows": figures.rows.iter().map(|(table, rows)| (table.to_string(), rows)).collect::<std::collections::BTreeMap<_, _>>(),
                "keyFiles": figures.key_files,
                "compared": figures.is_compared,
            },
        })
    }
}

fn finding(finding: &Finding) -> Value {
    json!({
        "kind": finding.kind.name(),
        "file": finding.file,
        "offset": finding.offset,
        "what": finding.what,
        "meaning": finding.kind.meaning(),
        "advice": finding.kind.advice(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_a_file_and_a_byte() {
        assert_eq!(place("/d/0.log:17"), Ok((PathBuf::from("/d/0.log"), 17)));
        assert_eq!(place("a:b:3"), Ok((PathBuf::from("a:b"), 3)));
        assert!(place("/d/0.log").is_err() && place("/d/0.log:x").is_err());
    }
}
