//! The broker's process: arguments in, exit code out.

use std::process::ExitCode;

use escrowmq_broker::config::{Arguments, Loaded, command};
use escrowmq_broker::limits::{BLOCKING_THREADS, restrict_new_files};
use escrowmq_broker::start::start;
use escrowmq_common::causes::Causes;
use escrowmq_common::logging;
use escrowmq_common::signals::Signals;

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    let arguments = Arguments::new(&command().get_matches());
    restrict_new_files();
    logging::start(&arguments.log_level, arguments.log_format);
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
    match run(loaded) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{}", Causes(error.as_ref()));
            ExitCode::FAILURE
        }
    }
}

fn run(loaded: Loaded) -> anyhow::Result<()> {
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
        let running = tokio::select! {
            running = start(loaded.config) => running?,
            // Recovery starts over the next time.
            name = signals.next() => anyhow::bail!("stopped on {name} while starting"),
        };
        tracing::info!("serving at {}", running.local_addr());
        let name = signals.next().await;
        tracing::info!("stopping on {name}; a second signal stops at once");
        tokio::select! {
            stopped = running.stop() => stopped?,
            name = signals.next() => {
                tracing::warn!("stopped at once on {name}; the next start recovers");
                // Nothing may wait any more, not even the runtime for its tasks.
                std::process::exit(1);
            }
        }
        Ok(())
    })
}
