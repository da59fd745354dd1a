//! The log of a process and its form, the same for each of our binaries. Behind the feature `process`, so that users of the
//! client, who have a subscriber of their own, do not compile this one.
//!
//! Errors are logged whatever a filter names, unless it says `off`. The consensus library tells each of its steps; it
//! gives errors alone, until a filter names it (`info,openraft=debug`).

use std::fmt;
use std::io::{self, IsTerminal as _};
use std::str::FromStr;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::fmt::format::{Format as EventFormat, JsonFields};

/// The levels by name, from none to all, for texts of help.
pub const LEVELS: &str = "off, error, warn, info, debug, trace";

/// The consensus library. At `info` it writes nearly half of all bytes, and at `warn` five lines a second for each member that is
/// away, of which the broker tells once.
const TALKATIVE: &str = "openraft";

/// Which lines are logged: a level, or a filter of levels by module. Reads from text, so that a command line can check it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filter {
    /// As it was written.
    text: String,
    /// With what is logged in any case.
    directives: String,
}

/// Why a text is no [`Filter`]. Writing it differently is the only way out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FilterError {
    /// A word alone that is no level. Taken for a module, it would silence everything else.
    #[error("'{word}' is no level (those are {LEVELS}), nor a filter such as info,escrowmq_broker=debug")]
    UnknownLevel {
        /// As it was written.
        word: String,
    },
    /// A part with '=' or brackets that does not read as a filter.
    #[error("'{part}' is no filter: expected MODULE=LEVEL with a level out of {LEVELS}")]
    NotAFilter {
        /// As it was written.
        part: String,
    },
}

impl Default for Filter {
    /// `info`.
    fn default() -> Self {
        "info".parse().expect("a constant, covered by a test")
    }
}

impl fmt::Display for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl FromStr for Filter {
    type Err = FilterError;

    /// Reads parts with ',' between them. A text without any part is `info`: variables are often set to nothing.
    fn from_str(text: &str) -> Result<Self, FilterError> {
        let text = if text.trim().is_empty() { "info" } else { text.trim() };
        let mut level = LevelFilter::ERROR;
        for part in text.split(',').map(str::trim) {
            if part.contains(['=', '[']) {
                check(part)?;
            } else {
                level = parse_level(part).ok_or_else(|| FilterError::UnknownLevel { word: part.to_owned() })?;
            }
        }
        let quiet = level.min(LevelFilter::ERROR);
        // Of two directives for the same module the later one holds.
        let directives = format!("{level},{TALKATIVE}={quiet},{text}");
        Ok(Self { text: text.to_owned(), directives })
    }
}

impl Filter {
    fn compiled(&self) -> EnvFilter {
        EnvFilter::new(&self.directives)
    }
}

fn parse_level(word: &str) -> Option<LevelFilter> {
    // The library takes an empty word for `error`.
    word.parse().ok().filter(|_| !word.is_empty())
}

/// Whether a part names a module or a span, with a level that exists.
fn check(part: &str) -> Result<(), FilterError> {
    let bad = || FilterError::NotAFilter { part: part.to_owned() };
    let (what, level) = match part.rsplit_once(']') {
        // A span may have '=' in it, and no level after it.
        Some((span, rest)) => (span, rest.strip_prefix('=')),
        None => part.split_once('=').map(|(module, level)| (module, Some(level))).ok_or_else(bad)?,
    };
    let has_level = level.is_none_or(|level| parse_level(level).is_some());
    if what.is_empty() || !has_level || EnvFilter::builder().parse(part).is_err() {
        return Err(bad());
    }
    Ok(())
}

/// How log lines are written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Format {
    /// One line of text, coloured on a terminal.
    #[default]
    Text,
    /// One JSON object a line, with `timestamp`, `level`, `target`, `message` and the event's fields side by side.
    Json,
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Text => "text",
            Self::Json => "json",
        })
    }
}

impl FromStr for Format {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            _ => Err("neither text nor json"),
        }
    }
}

/// Logs this process's events to standard error from now on. Once per process: a second call panics.
pub fn start(filter: &Filter, format: Format) {
    let base = tracing_subscriber::fmt()
        .with_env_filter(filter.compiled())
        .with_writer(io::stderr)
        // A line that cannot be written, because the disk with the log file is full, must not end a thread.
        .log_internal_errors(false);
    match format {
        Format::Text => base.with_ansi(io::stderr().is_terminal()).init(),
        Format::Json => base.fmt_fields(JsonFields::new()).event_format(json()).with_ansi(false).init(),
    }
}

fn json() -> EventFormat<tracing_subscriber::fmt::format::Json> {
    EventFormat::default().json().flatten_event(true).with_current_span(false).with_span_list(false)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use parking_lot::Mutex;
    use tracing_subscriber::fmt::MakeWriter;

    use super::*;

    /// Keeps what is written.
    #[derive(Clone, Default)]
    struct Page(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Page {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl<'a> MakeWriter<'a> for Page {
        type Writer = Self;

        fn make_writer(&'a self) -> Self {
            self.clone()
        }
    }

    /// The lines that one event at each level leaves, logged by us and by the library.
    fn logged(filter: &str) -> Vec<&'static str> {
        let page = Page::default();
        let filter: Filter = filter.parse().unwrap();
        let subscriber =
            tracing_subscriber::fmt().with_env_filter(filter.compiled()).with_writer(page.clone()).finish();
        tracing::subscriber::with_default(subscriber, || {
            tracing::error!("our error");
            tracing::info!("our info");
            tracing::debug!("our debug");
            tracing::info!(target: "audit", "an act");
            tracing::error!(target: "openraft::core", "its error");
            tracing::warn!(target: "openraft::core", "its warning");
            tracing::info!(target: "openraft_rt", "its info");
        });
        let text = String::from_utf8(page.0.lock().clone()).unwrap();
        let all = ["our error", "our info", "our debug", "an act", "its error", "its warning", "its info"];
        all.into_iter().filter(|message| text.contains(message)).collect()
    }

    #[test]
    fn the_library_gives_errors_alone_unless_it_is_named() {
        assert_eq!(logged("info"), ["our error", "our info", "an act", "its error"]);
        assert_eq!(logged("DEBUG").len(), 5);
        assert_eq!(logged("error"), ["our error", "its error"]);
        assert_eq!(logged("off"), [""; 0]);
        assert!(logged("info,openraft=info").contains(&"its info"));
        assert_eq!(logged("info,openraft=off"), ["our error", "our info", "an act"]);
    }

    #[test]
    fn a_filter_of_one_module_does_not_silence_errors_of_others() {
        assert_eq!(logged("escrowmq_common=info"), ["our error", "our info", "its error"]);
        assert_eq!(logged("warn,audit=info"), ["our error", "an act", "its error"]);
        assert!(logged("info,openraft=warn").contains(&"its warning"));
        assert_eq!(Filter::default().to_string(), "info");
        assert_eq!(logged(" "), logged("info"));
    }

    #[test]
    fn what_is_no_level_is_refused_with_those_that_are() {
        for text in ["loud", "escrowmq_broker", "info,loud", "info,", "warning"] {
            let error = text.parse::<Filter>().unwrap_err();
            assert!(matches!(error, FilterError::UnknownLevel { .. }), "{text}");
            assert!(error.to_string().contains("off, error, warn, info, debug, trace"), "{error}");
        }
        for text in ["escrowmq_broker=loud", "escrowmq_broker=", "=debug", "info,a[=debug"] {
            assert!(matches!(text.parse::<Filter>(), Err(FilterError::NotAFilter { .. })), "{text}");
        }
        for text in ["info,escrowmq_broker=debug", "trace", "3", "a[span]=debug", "[span{x=1}]", "off"] {
            assert!(text.parse::<Filter>().is_ok(), "{text}");
        }
    }

    #[test]
    fn each_json_line_is_one_flat_object() {
        let page = Page::default();
        let subscriber = tracing_subscriber::fmt()
            .with_writer(page.clone())
            .fmt_fields(JsonFields::new())
            .event_format(json())
            .finish();
        tracing::subscriber::with_default(subscriber, || {
            tracing::warn!(topic = "a\n\"b\"", count = 3, "twice\nas much");
        });
        let text = String::from_utf8(page.0.lock().clone()).unwrap();
        assert_eq!(text.lines().count(), 1);
        let line: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!((&line["level"], &line["message"]), (&"WARN".into(), &"twice\nas much".into()));
        assert_eq!((&line["topic"], &line["count"]), (&"a\n\"b\"".into(), &3.into()));
        assert!(line["timestamp"].is_string() && line["target"].is_string(), "{line}");
    }

    #[test]
    fn formats_are_two() {
        assert_eq!(("json".parse(), "text".parse()), (Ok(Format::Json), Ok(Format::Text)));
        assert!("yaml".parse::<Format>().is_err());
        assert_eq!(Format::default().to_string(), "text");
    }
}
