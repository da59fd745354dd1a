//! `escrowmq backup` and `escrowmq restore`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use escrowmq_broker::backup::manifest::Manifest;
use escrowmq_broker::backup::target::{Target, Written};
use escrowmq_broker::backup::{Copying, Prepared, restore, stopped};
use escrowmq_broker::check::Folder;
use escrowmq_broker::terms::Stamp;
use escrowmq_common::clock;
use escrowmq_common::code::{request, response};
use escrowmq_common::frame::Frame;
use escrowmq_common::remoting::{Connection, Remote, RemoteOptions, Service};
use serde_json::json;

use crate::ending::failed;
use crate::progress::{Line, bytes};
use crate::words::{counted, told};

/// How long preparing may take: it flushes what is in memory.
const PATIENCE: Duration = Duration::from_secs(120);
/// Between two signs of life to the broker, whose patience is two minutes.
const RENEW_EVERY: Duration = Duration::from_secs(20);

/// Arguments of `escrowmq backup`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Backups in one folder share their files: a segment that an earlier one holds is not copied again.\n\
    A backup holds messages in plain text. It is made on the broker's own machine, by a user who may read its data folder.\n\
    The index of keys is not in it: a restored broker builds it anew."
)]
pub(crate) struct BackupArguments {
    /// Folder of the backups; made if it is missing
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Address of the running broker
    #[arg(long, short, default_value = "127.0.0.1:10911")]
    broker: String,
    /// Data folder of a broker that does not run, instead of a running one
    #[arg(long, value_name = "DIR", conflicts_with = "broker")]
    store: Option<PathBuf>,
    /// Afterwards remove all but the newest N backups
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    keep: Option<u32>,
    /// Print JSON instead of text
    #[arg(long)]
    json: bool,
}

/// Arguments of `escrowmq restore`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "The restored broker has what was acknowledged when the backup was prepared, and nothing later: consumers get\n\
    again what they confirmed since, and transactions decided since are open again and are checked back.\n\
    Never run the restored broker beside the old one."
)]
pub(crate) struct RestoreArguments {
    /// Folder of the backups
    #[arg(long, value_name = "DIR")]
    from: PathBuf,
    /// Data folder to make (storePathRootDir); must be empty or missing
    #[arg(long, value_name = "DIR", required_unless_present = "list")]
    to: Option<PathBuf>,
    /// Which backup; the newest by default
    #[arg(long, value_name = "ID")]
    backup: Option<String>,
    /// Only list the backups
    #[arg(long)]
    list: bool,
    /// Print JSON instead of text
    #[arg(long)]
    json: bool,
}

fn finish(json: bool, done: anyhow::Result<(serde_json::Value, String)>) -> ExitCode {
    match done {
        Ok((value, _)) if json => println!("{value}"),
        Ok((_, text)) => println!("{text}"),
        Err(error) => return failed(&error),
    }
    ExitCode::SUCCESS
}

/// Runs `escrowmq backup`.
pub(crate) fn run_backup(arguments: &BackupArguments) -> ExitCode {
    finish(arguments.json, backup(arguments))
}

fn backup(arguments: &BackupArguments) -> anyhow::Result<(serde_json::Value, String)> {
    let target = Target::open(&arguments.out)?;
    let written = if let Some(store) = &arguments.store {
        of_stopped(store, &target)?
    } else {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        runtime.block_on(of_running(&arguments.broker, &target))?
    };
    let removed = arguments.keep.map(|keep| target.keep(keep as usize)).transpose()?.unwrap_or_default();
    let Written { manifest, copied, kept } = &written;
    let value = json!({
        "id": manifest.id,
        "logStart": manifest.log_start,
        "logEnd": manifest.log_end,
        "applied": manifest.applied,
        "lastTerm": manifest.last_term,
        "lastIndex": manifest.last_index,
        "files": manifest.files.len(),
        "copiedBytes": copied,
        "keptBytes": kept,
        "removed": removed,
    });
    let text = format!(
        "backup {}: log positions {} to {}{}, {}, {} copied, {} were there already{}",
        manifest.id,
        manifest.log_start,
        manifest.log_end,
        manifest
            .last_term
            .zip(manifest.last_index)
            .map_or_else(String::new, |(term, index)| format!(" (term {term}, entry {index})")),
        counted(manifest.files.len(), "file"),
        bytes(*copied),
        bytes(*kept),
        if removed.is_empty() { String::new() } else { format!("; removed {}", removed.join(", ")) },
    );
    Ok((value, text))
}

fn of_stopped(store: &Path, target: &Target) -> anyhow::Result<Written> {
    let folder = Folder::take(store)?;
    let scratch = tempfile::tempdir()?;
    let mut line = Line::new();
    let prepared = stopped::prepare(&folder, scratch.path(), Stamp(clock::wall_ms().unsigned_abs()), &mut |step| {
        line.show(step.stage, step.done, step.total);
    })?;
    let written = target.write(&prepared, &mut |step| line.show(step.stage, step.done, step.total));
    line.clear();
    Ok(written?)
}

/// Nobody asks a tool anything.
struct Nobody;

impl Service for Nobody {
    fn on_request(&self, _connection: &Arc<Connection>, _request: Frame) {}
}

async fn call(remote: &Remote, broker: &str, request: Frame) -> anyhow::Result<Frame> {
    let answer = remote.call(broker, request, PATIENCE).await.with_context(|| {
        format!("the broker at {broker} cannot be asked; for one that does not run there is --store DIR")
    })?;
    if answer.code != response::SUCCESS {
        bail!("{broker} answered {}: {}", answer.code, answer.remark.as_deref().unwrap_or("no reason given"));
    }
    Ok(answer)
}

async fn of_running(broker: &str, target: &Target) -> anyhow::Result<Written> {
    let remote = Remote::new(RemoteOptions::default(), Arc::new(Nobody));
    let answer = call(&remote, broker, Frame::request(request::PREPARE_BACKUP)).await?;
    let prepared: Prepared = serde_json::from_slice(&answer.body).context("the broker answered something else")?;
    let about = |code: i32| Frame::request(code).with_field("backupId", prepared.id.as_str());
    let written = std::thread::scope(|scope| {
        let (sender, mut copied) = tokio::sync::oneshot::channel();
        let prepared = &prepared;
        scope.spawn(move || {
            let mut line = Line::new();
            let written = target.write(prepared, &mut |step: Copying| line.show(step.stage, step.done, step.total));
            line.clear();
            // The other end waits below.
            let _ = sender.send(written);
        });
        tokio::task::block_in_place(|| {
            tokio::runtime::Handle::current().block_on(async {
                loop {
                    tokio::select! {
                        written = &mut copied => return written,
                        () = tokio::time::sleep(RENEW_EVERY) => {
                            if let Err(error) = call(&remote, broker, about(request::RENEW_BACKUP)).await {
                                // The copy goes on: what it still needs may be there, and if not it fails.
                                failed(&error);
                            }
                        }
                    }
                }
            })
        })
    });
    let written = written.context("the copy did not end");
    if let Err(error) = call(&remote, broker, about(request::RELEASE_BACKUP)).await {
        eprintln!("escrowmq: the broker keeps the prepared files for two minutes more: {}", told(&error));
    }
    Ok(written??)
}

/// Runs `escrowmq restore`.
pub(crate) fn run_restore(arguments: &RestoreArguments) -> ExitCode {
    finish(arguments.json, if arguments.list { list(&arguments.from) } else { restored(arguments) })
}

fn list(from: &Path) -> anyhow::Result<(serde_json::Value, String)> {
    let mut values = Vec::new();
    let mut lines = Vec::new();
    for id in Manifest::ids(from)? {
        let manifest = Manifest::load(from, Some(&id))?;
        let size: u64 = manifest.files.iter().map(|file| file.bytes).sum();
        values.push(json!({"id": id, "logStart": manifest.log_start, "logEnd": manifest.log_end, "bytes": size}));
        lines.push(format!(
            "{id}  log positions {} to {}, {}, {}",
            manifest.log_start,
            manifest.log_end,
            counted(manifest.files.len(), "file"),
            bytes(size)
        ));
    }
    if lines.is_empty() {
        bail!("there is no backup in {}", from.display());
    }
    Ok((values.into(), lines.join("\n")))
}

fn restored(arguments: &RestoreArguments) -> anyhow::Result<(serde_json::Value, String)> {
    let to = arguments.to.as_deref().context("--to names the folder to make")?;
    let mut line = Line::new();
    let done = restore::restore(&arguments.from, arguments.backup.as_deref(), to, &mut |step: Copying| {
        line.show(step.stage, step.done, step.total);
    });
    line.clear();
    let (manifest, report) = done?;
    let figures = &report.figures;
    let value = json!({
        "id": manifest.id,
        "logEnd": manifest.log_end,
        "records": figures.records,
        "messages": figures.messages,
    });
    let text = format!(
        "restored backup {} to {}: {} with {}, log positions {} to {}, everything verified",
        manifest.id,
        to.display(),
        counted(figures.records, "record"),
        counted(figures.messages, "message"),
        manifest.log_start,
        manifest.log_end
    );
    Ok((value, text))
}
