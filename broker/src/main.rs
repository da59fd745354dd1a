//! The broker's process: arguments in, exit code out.

use std::process::ExitCode;

use escrowmq_broker::config::{Arguments, BrokerConfig, KEYS, Loaded, command};
use escrowmq_broker::limits::{BLOCKING_THREADS, restrict_new_files};
use escrowmq_broker::start::start;
use escrowmq_common::causes::Causes;
use escrowmq_common::logging;
use escrowmq_common::manual;
use escrowmq_common::service;
use escrowmq_common::signals::Signals;

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    let arguments = Arguments::new(&command().get_matches());
    restrict_new_files();
    logging::start(&arguments.log_level, arguments.log_format);
    if let Some(folder) = &arguments.generate {
        return match manual::write(command(), "8", folder) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                tracing::error!("cannot write to {}: {error}", folder.display());
                ExitCode::FAILURE
            }
        };
    }
    let loaded = match arguments.load() {
        Ok(loaded) => loaded,
        Err(error) => {
            tracing::error!("{}", Causes(&error));
            return ExitCode::from(2);
        }
    };
    if arguments.print {
        for (key, value) in loaded.config.effective() {
            println!("{key}={value}");
        }
        return ExitCode::SUCCESS;
    }
    logging::set(&loaded.config.log_level);
    match run(&arguments, loaded) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{}", Causes(error.as_ref()));
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments, loaded: Loaded) -> anyhow::Result<()> {
    for line in loaded.warnings() {
        tracing::warn!("{line}");
    }
    tell_settings(&loaded.config);
    if loaded.config.namesrv_addr.is_empty() {
        tracing::warn!("no nameserver is named (-n): clients find no route to this broker");
    }
    let threads = loaded.config.connection_thread_count();
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    let runtime = builder.worker_threads(threads).max_blocking_threads(BLOCKING_THREADS).enable_all().build()?;
    runtime.block_on(async {
        let mut signals = Signals::new()?;
        let mut config = loaded.config;
        while serve(config, &mut signals).await? == End::Restart {
            // Settings may have been changed since.
            config = arguments.load()?.config;
            logging::set(&config.log_level);
        }
        Ok(())
    })
}

/// Tells what is not as everywhere. All settings would fill the screen at each start.
fn tell_settings(config: &BrokerConfig) {
    let mut others = KEYS.len();
    for (key, value) in config.set_apart() {
        others -= 1;
        tracing::info!(event = "setting", key, value, "setting");
    }
    let version = env!("CARGO_PKG_VERSION");
    let file = config.config_file().map(|path| path.display().to_string());
    tracing::info!(
        event = "starting",
        version,
        file,
        others,
        "starting; the other settings have their defaults: -p prints all"
    );
}

/// What comes after a broker has ended.
#[derive(PartialEq, Eq)]
enum End {
    Stop,
    Restart,
}

/// One life of a broker.
async fn serve(config: BrokerConfig, signals: &mut Signals) -> anyhow::Result<End> {
    let data = config.data_folder();
    let running = tokio::select! {
        running = start(config) => running?,
        // A member may wait long for its group. So may a service manager for readiness, but not for a sign of life.
        never = service::keep_alive(async || ()) => match never {},
        // Recovery starts over the next time.
        name = signals.next() => anyhow::bail!("stopped on {name} while starting"),
    };
    let (address, metrics) = (running.local_addr(), running.metrics_addr());
    let metrics = metrics.map(|address| address.to_string());
    tracing::info!(event = "serving", %address, metrics, data = %data.display(), "serving at {address}");
    service::ready(&format!("serving at {address}"));
    let end = tokio::select! {
        never = service::keep_alive(async || running.pulse().await) => match never {},
        name = signals.next() => {
            tracing::info!(event = "stopping", "stopping on {name}; a second signal stops at once");
            service::stopping();
            End::Stop
        }
        () = running.must_restart() => {
            tracing::info!(event = "stopping", "stopping to start again with a copy of the group's state");
            End::Restart
        }
    };
    tokio::select! {
        stopped = running.stop() => stopped?,
        never = service::keep_alive(async || ()) => match never {},
        name = signals.next() => {
            tracing::warn!(event = "killed", "stopped at once on {name}; the next start recovers");
            // Nothing may wait any more, not even the runtime for its tasks.
            std::process::exit(1);
        }
    }
    Ok(end)
}
