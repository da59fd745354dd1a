//! The command line: a few short flags, and one for each key.

use std::path::PathBuf;

use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
use escrowmq_common::logging::{Filter, Format};
use escrowmq_common::settings;

use super::{BrokerConfig, ConfigError, KEYS, Key, Loaded};

/// The command line.
#[derive(Debug)]
pub struct Arguments {
    /// Properties file.
    pub file: Option<PathBuf>,
    /// Keys and values, the short flags included; they win over file and environment.
    pub overrides: Vec<(String, String)>,
    /// Level or filter of the log until the settings are read. Default: info.
    pub log_level: Filter,
    /// In which form.
    pub log_format: Format,
    /// Only print the settings in force.
    pub print: bool,
    /// Only write the manual page and completions, into this folder.
    pub generate: Option<PathBuf>,
}

/// The key with a flag of its own, which counts before the settings are read.
const LOG_LEVEL: &str = "logLevel";

/// The other keys.
fn others() -> impl Iterator<Item = &'static Key> {
    KEYS.iter().filter(|key| key.name != LOG_LEVEL)
}

/// The command line of the broker's process.
pub fn command() -> Command {
    let mut command = Command::new("escrowmq-broker")
        .version(env!("CARGO_PKG_VERSION"))
        .about("Keeps messages, half messages in escrow, and delivers them over the RocketMQ remoting protocol.")
        .after_help(
            "Without any flag: a single broker on port 10911, data in $HOME/.escrowmq/<brokerName>, every message \
             flushed to disk before its send is answered.\n\nEach key is also an environment variable, such as \
             ESCROWMQ_LISTEN_PORT for listenPort, and can be written --listen-port. Flags win over variables, \
             variables over the file.",
        )
        .arg(
            Arg::new("namesrv")
                .short('n')
                .value_name("HOST:PORT[;HOST:PORT]")
                .help("Nameservers; the same as --namesrvAddr"),
        )
        .arg(
            Arg::new("config")
                .short('c')
                .long("config")
                .value_name("FILE")
                .env("ESCROWMQ_CONFIG")
                .value_parser(value_parser!(PathBuf))
                .help("Properties file with the keys below, such as a broker.conf of RocketMQ"),
        )
        .arg(
            Arg::new("print")
                .short('p')
                .long("print-config")
                .action(ArgAction::SetTrue)
                .help("Print the settings in force and exit"),
        )
        .arg(
            Arg::new("generate")
                .long("generate")
                .value_name("FOLDER")
                .value_parser(value_parser!(PathBuf))
                .hide(true)
                .help("Write the manual page and completions of this program into a folder and exit"),
        )
        .arg(
            Arg::new(LOG_LEVEL)
                .long("log-level")
                .alias(LOG_LEVEL)
                .value_name("LEVEL")
                .env("ESCROWMQ_LOG")
                .value_parser(value_parser!(Filter))
                .help(
                    "What to log: off, error, warn, info, debug, trace, or a filter such as \
                     info,escrowmq_broker::log=debug; the key logLevel. Default info. Acts of administrators are audit=info, \
                     unless it is off",
                ),
        )
        .arg(
            Arg::new("log-format")
                .long("log-format")
                .value_name("FORM")
                .env("ESCROWMQ_LOG_FORMAT")
                .default_value("text")
                .value_parser(value_parser!(Format))
                .help("How to log: text, or json for one object a line"),
        );
    for key in others() {
        // Clap wants names that live as long as the process; this runs once.
        let kebab: &'static str = Box::leak(key.kebab().into_boxed_str());
        let restart = if key.at_once { "" } else { " (in force from the next start on)" };
        command = command.arg(
            Arg::new(key.name)
                .long(key.name)
                .alias(kebab)
                .value_name("VALUE")
                .allow_hyphen_values(true)
                .help_heading("Keys of the properties file")
                .help(format!("{}{restart}", key.about.trim())),
        );
    }
    command
}

impl Arguments {
    /// Reads the matches of [`command`].
    pub fn new(matches: &ArgMatches) -> Self {
        let text = |id: &str| matches.get_one::<String>(id).cloned();
        let mut overrides: Vec<(String, String)> =
            others().filter_map(|key| Some((key.name.to_owned(), text(key.name)?))).collect();
        let log_level = matches.get_one::<Filter>(LOG_LEVEL).cloned();
        overrides.extend(log_level.iter().map(|filter| (LOG_LEVEL.to_owned(), filter.to_string())));
        overrides.extend(text("namesrv").map(|addresses| ("namesrvAddr".to_owned(), addresses)));
        Self {
            file: matches.get_one::<PathBuf>("config").cloned(),
            overrides,
            log_level: log_level.unwrap_or_default(),
            log_format: matches.get_one::<Format>("log-format").copied().unwrap_or_default(),
            print: matches.get_flag("print"),
            generate: matches.get_one::<PathBuf>("generate").cloned(),
        }
    }

    /// The settings of these arguments, over the file and this process's environment.
    pub fn load(&self) -> Result<Loaded, ConfigError> {
        BrokerConfig::load(self.file.as_deref(), settings::environment(), self.overrides.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(arguments: &[&str]) -> Arguments {
        let all = std::iter::once("escrowmq-broker").chain(arguments.iter().copied());
        Arguments::new(&command().try_get_matches_from(all).unwrap())
    }

    #[test]
    fn both_spellings_of_a_key_and_the_short_flags() {
        let arguments =
            read(&["-n", "a:1;b:2", "--listenPort", "1", "--broker-name", "x", "-c", "/f", "--brokerId=-1"]);
        let mut overrides = arguments.overrides;
        overrides.sort();
        let pair = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        let expected =
            [pair("brokerId", "-1"), pair("brokerName", "x"), pair("listenPort", "1"), pair("namesrvAddr", "a:1;b:2")];
        assert_eq!(overrides, expected);
        assert_eq!(arguments.file, Some(PathBuf::from("/f")));
        assert_eq!((arguments.log_level, arguments.log_format), (Filter::default(), Format::Text));
        assert!(!arguments.print);
    }

    #[test]
    fn the_level_of_the_log_is_a_setting_with_two_spellings() {
        for flag in ["--log-level", "--logLevel"] {
            let arguments = read(&[flag, "debug"]);
            assert_eq!(arguments.overrides, [("logLevel".to_owned(), "debug".to_owned())]);
            assert_eq!(arguments.log_level, "debug".parse().unwrap());
        }
        assert_eq!(read(&["--audit-log-file", "/a"]).overrides, [("auditLogFile".to_owned(), "/a".to_owned())]);
    }

    #[test]
    fn the_command_line_is_consistent_and_names_the_data_folder() {
        let mut command = command();
        command.clone().debug_assert();
        let help = command.render_long_help().to_string();
        assert!(help.contains("$HOME/.escrowmq/") && help.contains("--transactionCheckMax"), "{help}");
    }

    #[test]
    fn an_unknown_flag_is_refused() {
        for arguments in [["--listenPrt", "1"], ["--log-level", "loud"], ["--log-format", "xml"]] {
            let all = std::iter::once("escrowmq-broker").chain(arguments);
            assert!(command().try_get_matches_from(all).is_err(), "{arguments:?}");
        }
    }
}
