//! `escrowmq doctor`: looks at the machine and the data folder of a broker, before or while one runs there, and says what would hurt.
//!
//! Promises: nothing is changed but a small file in the data folder that is written, flushed and removed; each finding that is no `ok` has
//! what it does to whom, and what helps; the exit code is 1 where a promise is at risk. A check has one file, which decides from what it
//! is given; `machine` and `network` read.

mod clock;
mod disk;
mod finding;
mod limits;
mod machine;
mod memory;
mod network;
mod ownership;
mod ports;
mod route;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use escrowmq_broker::config::BrokerConfig;
use escrowmq_broker::terms::DiskUse;
use escrowmq_common::{monitoring, settings};

use crate::ending::block_on;
use crate::words::told;
use disk::Room;
use finding::{Finding, Verdict};
use machine::{Broker, Listeners, Moment};
use ports::Port;

/// A promise is at risk.
const AT_RISK: u8 = 1;
/// Nothing could be looked at.
const COULD_NOT_RUN: u8 = 2;

/// Where packages put the settings.
const PACKAGED: &str = "/etc/escrowmq/broker.conf";

/// Arguments of `escrowmq doctor`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Exit code: 0 no promise is at risk, 1 one is, 2 could not look.\n\
    Run it as the broker's user, or as root: others see less. It writes, flushes and removes a small file in the data folder.")]
pub(crate) struct Arguments {
    /// The broker's properties file [default: /etc/escrowmq/broker.conf, if it is there]
    #[arg(long, short, value_name = "FILE", env = "ESCROWMQ_CONFIG")]
    config: Option<PathBuf>,
    /// The broker's data folder, or the one given to `escrowmq standalone` [default: as the settings say]
    #[arg(long, short, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Nameservers, host:port with ';' between them [default: as the settings say]
    #[arg(long, short)]
    namesrv: Option<String>,
    /// A setting that the broker gets by a flag; may be repeated
    #[arg(long = "set", value_name = "KEY=VALUE", value_parser = settings::pair)]
    set: Vec<(String, String)>,
    /// Print JSON instead of text
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub(crate) fn run(arguments: &Arguments) -> ExitCode {
    match look(arguments) {
        Ok(findings) => {
            if arguments.json {
                println!("{}", finding::json(&findings));
            } else {
                print!("{}", finding::text(&findings));
            }
            if finding::worst(&findings) == Verdict::Risk { AT_RISK.into() } else { ExitCode::SUCCESS }
        }
        Err(error) => {
            eprintln!("escrowmq: {}", told(&error));
            COULD_NOT_RUN.into()
        }
    }
}

fn look(arguments: &Arguments) -> anyhow::Result<Vec<Finding>> {
    let began = Moment::now();
    let (config, mut findings) = read_config(arguments);
    let folder = config.data_folder();
    let broker = Broker::of(&folder);
    findings.push(ownership::user(broker.uid(), broker.runs()));
    findings.push(ownership::data_folder(&folder, machine::owned(&folder), broker.uid()));
    findings.push(limits::open_files(&broker.open_files()));
    let meminfo = machine::read("/proc/meminfo").unwrap_or_default();
    findings.push(memory::swap(memory::Swap::parse(&meminfo, broker.says("status").as_deref())));
    let huge_pages = machine::read("/sys/kernel/mm/transparent_hugepage/enabled");
    findings.push(memory::huge_pages(huge_pages.as_deref()));
    findings.extend(look_at_disk(&config, &folder)?);
    let listeners = Listeners::look(broker);
    findings.extend(ports_of(&config).map(|(number, key, is_needed)| {
        ports::port(&Port { number, key, is_needed, listener: listeners.at(number) }, broker.runs())
    }));
    findings.push(clock::setter(&machine::setter()));
    findings.extend(block_on(network::look(&config, broker.runs()))?);
    findings.push(clock::step(began.step()));
    Ok(findings)
}

/// The settings as the broker would read them, or its defaults where it would refuse them.
fn read_config(arguments: &Arguments) -> (BrokerConfig, Vec<Finding>) {
    const CHECK: &str = "config";
    let packaged = Path::new(PACKAGED);
    let file = arguments.config.as_deref().or_else(|| packaged.exists().then_some(packaged));
    let mut overrides = arguments.set.clone();
    if let Some(folder) = &arguments.data {
        // As that of a standalone broker.
        let inner = folder.join("broker");
        let folder = if inner.join("lock").exists() && !folder.join("lock").exists() { &inner } else { folder };
        overrides.push(("storePathRootDir".to_owned(), folder.display().to_string()));
    }
    overrides.extend(arguments.namesrv.iter().map(|names| ("namesrvAddr".to_owned(), names.clone())));
    let named = file.map_or_else(|| "no properties file".to_owned(), |path| path.display().to_string());
    let mut findings = Vec::new();
    if let Some(owned) = file.and_then(machine::owned) {
        findings.push(ownership::config_file(file.unwrap_or(packaged), owned));
    }
    match BrokerConfig::load(file, settings::environment(), overrides.clone()) {
        Ok(loaded) => {
            let notes = loaded.warnings();
            if notes.is_empty() {
                findings.push(Finding::ok(CHECK, format!("{named}: the broker takes it")));
            }
            findings.extend(notes.into_iter().map(|note| Finding::note(CHECK, note, "", "")));
            (loaded.config, findings)
        }
        Err(error) => {
            let (what, remedy) = (format!("{named}: {error}"), "put it right; `escrowmq-broker -p` tries it");
            findings.push(Finding::risk(
                CHECK,
                what,
                "the broker does not start; the checks below go by its defaults",
                remedy,
            ));
            let default = BrokerConfig::load(None, [], overrides).map(|loaded| loaded.config).unwrap_or_default();
            (default, findings)
        }
    }
}

/// The ports that the settings name, and whether the broker needs them.
fn ports_of(config: &BrokerConfig) -> impl Iterator<Item = (u16, &'static str, bool)> {
    let group = config.group().map_or(0, |group| group.listen.1);
    let fast = config.listen_port.saturating_sub(2);
    let all = [
        (config.listen_port, "listenPort", true),
        (fast, "listenPort less 2, for old clients", false),
        (config.pages_port().map_or(0, monitoring::Port::number), "metricsPort", config.metrics_port.is_some()),
        (group, "groupListenAddress", true),
    ];
    all.into_iter().filter(|(port, ..)| *port != 0)
}

fn look_at_disk(config: &BrokerConfig, folder: &Path) -> anyhow::Result<Vec<Finding>> {
    let existing = machine::existing(folder)?;
    let mut findings = Vec::new();
    let mounts = machine::read("/proc/self/mountinfo").unwrap_or_default();
    findings.extend(disk::mount_of(&mounts, &existing).map(|mount| disk::file_system(folder, &mount)));
    let usage = DiskUse::of(&existing)?;
    findings.push(disk::room(&Room {
        percent: usage.percent(),
        free: usage.free,
        files: machine::free_files(&existing),
        warn_above: config.disk_max_used_percent,
        clean_above: config.clean_above(),
        refuse_above: config.disk_full_percent,
        segment: config.segment_bytes,
    }));
    findings.push(match machine::speed(&existing) {
        Ok(speed) => disk::speed(&speed, config.flush_disk_type == escrowmq_broker::config::FlushDisk::Sync),
        Err(error) => Finding::note(
            "disk-speed",
            format!("not measured: {} cannot be written by this user ({error})", existing.display()),
            "",
            "run this command as the broker's user",
        ),
    });
    Ok(findings)
}
