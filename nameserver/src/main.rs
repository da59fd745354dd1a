//! The nameserver's process: arguments in, exit code out.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{CommandFactory as _, Parser};
use escrowmq_common::logging::{self, Filter, Format};
use escrowmq_common::manual;
use escrowmq_common::service;
use escrowmq_common::settings;
use escrowmq_common::signals::Signals;
use escrowmq_nameserver::{Config, KEYS, Nameserver};

/// Tells producers and consumers which broker serves which topic.
#[derive(Debug, Parser)]
#[command(name = "escrowmq-nameserver", version, after_help = keys_help())]
struct Arguments {
    /// TCP port, 0 for any free one [default: 9876]
    #[arg(short, long, value_name = "PORT")]
    port: Option<u16>,

    /// Properties file with the keys below
    #[arg(short, long, value_name = "FILE", env = "ESCROWMQ_NAMESERVER_CONFIG")]
    config: Option<PathBuf>,

    /// Local address to listen at [default: 0.0.0.0]
    #[arg(short, long, value_name = "ADDR")]
    bind: Option<String>,

    /// One key of the properties file; wins over file and environment; may be repeated
    #[arg(long = "set", value_name = "KEY=VALUE", value_parser = settings::pair)]
    set: Vec<(String, String)>,

    /// Level of the log: off, error, warn, info, debug, trace, or a filter such as `info,escrowmq_nameserver::routes=debug`; the key
    /// logLevel [default: info]
    #[arg(long, value_name = "LEVEL", env = "ESCROWMQ_LOG")]
    log_level: Option<Filter>,

    /// How to write log lines: text, or json for one object each
    #[arg(long, value_name = "FORMAT", env = "ESCROWMQ_LOG_FORMAT", default_value_t = Format::Text)]
    log_format: Format,

    /// Write the manual page and completions of this program into a folder and exit: packages bring them along
    #[arg(long, value_name = "FOLDER", hide = true)]
    generate: Option<PathBuf>,
}

impl Arguments {
    /// Flags as keys, the special ones last.
    fn overrides(&self) -> Vec<(String, String)> {
        let mut overrides = self.set.clone();
        let port = self.port.map(|port| port.to_string());
        let log_level = self.log_level.as_ref().map(ToString::to_string);
        for (key, value) in [("listenPort", port), ("bindAddress", self.bind.clone()), ("logLevel", log_level)] {
            overrides.extend(value.map(|value| (key.to_owned(), value)));
        }
        overrides
    }
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    logging::start(&arguments.log_level.clone().unwrap_or_default(), arguments.log_format);
    let done = match &arguments.generate {
        Some(folder) => manual::write(Arguments::command(), "8", folder).map_err(Into::into),
        None => run(&arguments),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let loaded = Config::load(arguments.config.as_deref(), settings::environment(), arguments.overrides())?;
    if !loaded.meaningless.is_empty() {
        tracing::warn!(keys = ?loaded.meaningless, "keys without meaning here are ignored");
    }
    logging::set(&loaded.config.log_level);
    let mut others = KEYS.len();
    for (key, value) in loaded.config.set_apart() {
        others -= 1;
        tracing::info!(event = "setting", key, value, "setting");
    }
    let (version, file) = (env!("CARGO_PKG_VERSION"), arguments.config.as_ref().map(|path| path.display().to_string()));
    tracing::info!(event = "starting", version, file, others, "starting; the other settings have their defaults");
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut signals = Signals::new()?;
        let nameserver = Nameserver::start(loaded.config).await?;
        let address = nameserver.local_addr();
        tracing::info!(event = "serving", %address, "listening on {address}");
        service::ready(&format!("serving at {address}"));
        tokio::select! {
            name = signals.next() => tracing::info!(event = "stopping", "stopping on {name}"),
            never = service::keep_alive(async || nameserver.pulse().await) => match never {},
            () = nameserver.stopped() => {
                nameserver.stop().await;
                anyhow::bail!("a part that everything depends on has ended");
            }
        }
        service::stopping();
        tokio::select! {
            () = nameserver.stop() => tracing::info!(event = "stopped", "stopped"),
            // Nothing here needs a clean stop: the KV configuration is on disk before it is acknowledged.
            name = signals.next() => tracing::warn!(event = "killed", "stopped at once on {name}"),
        }
        Ok(())
    })
}

fn keys_help() -> String {
    let mut help = String::from(
        "Keys of the properties file. Each is also an environment variable, such as\n\
         ESCROWMQ_NAMESERVER_LISTEN_PORT for listenPort, and can be given with --set.\n\n",
    );
    for key in KEYS {
        let _ = writeln!(help, "  {:<34} {}", key.name, key.about);
    }
    help
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_level_that_does_not_exist_is_refused() {
        let parse = |arguments: &[&str]| Arguments::try_parse_from([&["escrowmq-nameserver"], arguments].concat());
        let refused = parse(&["--log-level", "loud"]).unwrap_err().to_string();
        assert!(refused.contains("loud") && refused.contains("--log-level"), "{refused}");
        assert!(parse(&["--log-format", "xml"]).is_err());
        assert_eq!(parse(&["--log-format", "json", "--log-level", "warn"]).unwrap().log_format, Format::Json);
    }
}
