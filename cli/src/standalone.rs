//! `escrowmq standalone`: a nameserver and a broker in one process.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;
use clap::ValueEnum;
use escrowmq_broker::config::BrokerConfig;
use escrowmq_broker::start::{RunningBroker, start};
use escrowmq_common::logging::{self, Filter, Format};
use escrowmq_common::settings;
use escrowmq_common::signals::Signals;
use escrowmq_nameserver::{Config, Nameserver};

use crate::ending::failed;

/// Arguments of `escrowmq standalone`.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Port of the nameserver; 0 takes any free one
    #[arg(long, short, default_value_t = 9876)]
    port: u16,
    /// Port of the broker; 0 takes any free one
    #[arg(long, short, default_value_t = 10911)]
    broker_port: u16,
    /// Folder of the data [default: ~/.escrowmq/standalone]
    #[arg(long, short)]
    dir: Option<PathBuf>,
    /// When a send is answered: after its bytes are on the device (sync), or in the operating system (async)
    #[arg(long, short, value_enum, default_value_t = Flush::Sync)]
    flush: Flush,
    /// Address that clients are told; 127.0.0.1 serves this machine alone
    #[arg(long, default_value = "127.0.0.1")]
    host: IpAddr,
    /// A setting of the broker, by the name that RocketMQ's operators know; may be repeated
    #[arg(long = "set", value_name = "KEY=VALUE", value_parser = settings::pair)]
    settings: Vec<(String, String)>,
    /// Level of the log on stderr: off, error, warn, info, debug, trace, or a filter like `info,escrowmq_broker=debug`
    #[arg(long, visible_alias = "log-level", default_value = "warn", env = "ESCROWMQ_LOG")]
    log: Filter,
    /// How log lines are written: text, or one JSON object each
    #[arg(long, value_name = "FORMAT", default_value_t = Format::Text)]
    log_format: Format,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Flush {
    Sync,
    Async,
}

/// Runs both until a signal.
pub(crate) fn run(arguments: Arguments) -> ExitCode {
    match perform(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failed(&error),
    }
}

fn perform(arguments: Arguments) -> anyhow::Result<()> {
    logging::start(&arguments.log, arguments.log_format);
    let folder = match arguments.dir.clone() {
        Some(folder) => folder,
        None => std::env::home_dir().context("no home folder; name one with --dir")?.join(".escrowmq/standalone"),
    };
    let config = broker_config(&arguments, &folder.join("broker"))?;
    logging::set(&config.log_level);
    let threads = config.connection_thread_count();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(threads).enable_all().build()?;
    runtime.block_on(serve(arguments, &folder, config))
}

async fn serve(arguments: Arguments, folder: &Path, mut config: BrokerConfig) -> anyhow::Result<()> {
    let mut signals = Signals::new()?;
    let nameserver = nameserver_config(&arguments, folder);
    let nameserver = Nameserver::start(nameserver).await.context("the nameserver does not start")?;
    let names = SocketAddr::new(arguments.host, nameserver.local_addr().port()).to_string();
    config.namesrv_addr = vec![names.clone()];
    let broker = tokio::select! {
        broker = start(config) => broker.context("the broker does not start")?,
        _ = signals.next() => return Ok(()),
    };
    let address = SocketAddr::new(arguments.host, broker.local_addr().port());
    println!("ready: nameserver {names}, broker {address}, data {}", folder.display());
    signals.next().await;
    tokio::select! {
        stopped = stop(broker, &nameserver) => stopped,
        // A second signal: the next start recovers.
        _ = signals.next() => std::process::exit(1),
    }
}

/// The broker first: it says good-bye to the nameserver.
async fn stop(broker: RunningBroker, nameserver: &Nameserver) -> anyhow::Result<()> {
    broker.stop().await?;
    nameserver.stop().await;
    Ok(())
}

/// Where to listen: who told clients a loopback address serves nobody else.
fn bind_address(host: IpAddr) -> String {
    match host {
        host if host.is_loopback() => host.to_string(),
        IpAddr::V4(_) => "0.0.0.0".to_owned(),
        IpAddr::V6(_) => "::".to_owned(),
    }
}

fn nameserver_config(arguments: &Arguments, folder: &Path) -> Config {
    Config {
        listen_port: arguments.port,
        bind_address: bind_address(arguments.host),
        log_level: arguments.log.clone(),
        kv_config_path: folder.join("nameserver/kvConfig.json"),
        ..Config::default()
    }
}

/// The broker's settings, but for the nameserver, whose port is not known before it listens.
fn broker_config(arguments: &Arguments, folder: &Path) -> anyhow::Result<BrokerConfig> {
    let flush = match arguments.flush {
        Flush::Sync => "SYNC_FLUSH",
        Flush::Async => "ASYNC_FLUSH",
    };
    let ours = [
        ("brokerName", "standalone".to_owned()),
        ("brokerIP1", arguments.host.to_string()),
        ("bindAddress", bind_address(arguments.host)),
        ("listenPort", arguments.broker_port.to_string()),
        ("storePathRootDir", folder.display().to_string()),
        ("flushDiskType", flush.to_owned()),
        ("logLevel", arguments.log.to_string()),
    ];
    let ours = ours.into_iter().map(|(key, value)| (key.to_owned(), value));
    let loaded = BrokerConfig::load(None, [], ours.chain(arguments.settings.iter().cloned()))?;
    for line in loaded.warnings() {
        eprintln!("escrowmq: {line}");
    }
    Ok(loaded.config)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arguments(settings: &[&str]) -> Arguments {
        Arguments {
            port: 0,
            broker_port: 7,
            dir: None,
            flush: Flush::Async,
            host: [127, 0, 0, 1].into(),
            settings: settings.iter().map(|text| settings::pair(text).unwrap()).collect(),
            log: Filter::default(),
            log_format: Format::Text,
        }
    }

    #[test]
    fn flags_become_settings_and_set_wins() {
        let config = broker_config(&arguments(&["brokerName = b", "maxMessageSize=9"]), Path::new("/d")).unwrap();
        assert_eq!((config.listen_port, config.broker_name.as_str(), config.max_message_size), (7, "b", 9));
        assert_eq!(config.store_path.as_deref(), Some(Path::new("/d")));
        assert!(broker_config(&arguments(&["noSuchKey=1"]), Path::new("/d")).is_err());
        assert!(settings::pair("novalue").is_err());
    }

    #[test]
    fn only_a_loopback_address_is_listened_at_alone() {
        assert_eq!(bind_address([127, 0, 0, 1].into()), "127.0.0.1");
        assert_eq!(bind_address([10, 0, 0, 1].into()), "0.0.0.0");
        assert_eq!(bind_address("fd00::1".parse().unwrap()), "::");
    }
}
