//! The log of a process and its form, the same for each of our binaries. Behind the feature `process`, so that users of the
//! client, who have a subscriber of their own, do not compile this one.
//!
//! Promises: what is logged can be changed while the process runs ([`set`]), and costs nothing where it is off: a line's place in the
//! code asks once after each change. A name of an event (the field `event`) does not change; docs/operations.md lists them.

mod filter;
mod targets;

use std::fmt;
use std::io::{self, IsTerminal as _};
use std::str::FromStr;
use std::sync::OnceLock;

use tracing_subscriber::fmt::format::{Format as EventFormat, JsonFields};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::reload::Handle;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer as _, Registry, reload};

pub use filter::{Filter, FilterError, LEVELS};

/// The way to the filter that is in force.
static IN_FORCE: OnceLock<Handle<EnvFilter, Registry>> = OnceLock::new();

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
    let (filter, handle) = reload::Layer::new(filter.compiled());
    // A line that cannot be written, because the disk with the log file is full, must not end a thread.
    let lines = tracing_subscriber::fmt::layer().with_writer(io::stderr).log_internal_errors(false);
    let lines = match format {
        Format::Text => lines.with_ansi(io::stderr().is_terminal()).boxed(),
        Format::Json => lines.fmt_fields(JsonFields::new()).event_format(json()).with_ansi(false).boxed(),
    };
    tracing_subscriber::registry().with(filter).with(lines).init();
    let _ = IN_FORCE.set(handle);
}

/// Whether the log of this process was [started](start) here, so that its filter can be changed.
pub fn is_started() -> bool {
    IN_FORCE.get().is_some()
}

/// Puts another filter in force, for all servers of this process. Does nothing where the log is not ours.
pub fn set(filter: &Filter) {
    if let Some(handle) = IN_FORCE.get()
        && let Err(error) = handle.reload(filter.compiled())
    {
        tracing::error!(%error, %filter, "what is logged cannot be changed any more");
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
    pub(super) struct Page(Arc<Mutex<Vec<u8>>>);

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

    impl Page {
        pub(super) fn bytes(&self) -> Vec<u8> {
            self.0.lock().clone()
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
        let text = String::from_utf8(page.bytes()).unwrap();
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

    #[test]
    fn a_filter_is_changed_while_lines_come() {
        let page = Page::default();
        let (filter, handle) = reload::Layer::new(Filter::default().compiled());
        let lines = tracing_subscriber::fmt::layer().with_writer(page.clone()).with_ansi(false);
        tracing::subscriber::with_default(tracing_subscriber::registry().with(filter).with(lines), || {
            for text in ["info", "escrowmq_common=debug", "info"] {
                handle.reload(text.parse::<Filter>().unwrap().compiled()).unwrap();
                tracing::debug!("under {text}");
            }
        });
        let text = String::from_utf8(page.bytes()).unwrap();
        assert!(text.lines().count() == 1 && text.contains("under escrowmq_common=debug"), "{text}");
    }
}
