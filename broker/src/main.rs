//! The broker's process: arguments in, exit code out.

use std::process::ExitCode;

use escrowmq_broker::config::{Arguments, BrokerConfig, Loaded, command};
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
    for (key, value) in loaded.config.effective() {
        tracing::info!(key, value, "setting");
    }
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
        }
        Ok(())
    })
}

/// What comes after a broker has ended.
#[derive(PartialEq, Eq)]
enum End {
    Stop,
    Restart,
}

/// One life of a broker.
async fn serve(config: BrokerConfig, signals: &mut Signals) -> anyhow::Result<End> {
    let running = tokio::select! {
        running = start(config) => running?,
        // A member may wait long for its group. So may a service manager for readiness, but not for a sign of life.
        never = service::keep_alive(async || ()) => match never {},
        // Recovery starts over the next time.
        name = signals.next() => anyhow::bail!("stopped on {name} while starting"),
    };
    tracing::info!("serving at {}", running.local_addr());
    service::ready(&format!("serving at {}", running.local_addr()));
    let end = tokio::select! {
        never = service::keep_alive(async || running.pulse().await) => match never {},
        name = signals.next() => {
            tracing::info!("stopping on {name}; a second signal stops at once");
            service::stopping();
            End::Stop
        }
        () = running.must_restart() => {
            tracing::info!("stopping to start again with a copy of the group's state");
            End::Restart
        }
    };
    tokio::select! {
        stopped = running.stop() => stopped?,
        never = service::keep_alive(async || ()) => match never {},
        name = signals.next() => {
            tracing::warn!("stopped at once on {name}; the next start recovers");
            // Nothing may wait any more, not even the runtime for its tasks.
            std::process::exit(1);
        }
    }
    Ok(end)
}
