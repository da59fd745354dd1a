//! Which lines are logged.
//!
//! Errors are logged whatever a filter names, unless it says `off`. Lines of the audit are logged at each level but `off`: they go with
//! `audit=off` alone. The consensus library tells each of its steps; it gives errors alone, until a filter names it
//! (`info,openraft=debug`).

use std::fmt;
use std::str::FromStr;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

use super::targets;

/// The levels by name, from none to all, for texts of help.
pub const LEVELS: &str = "off, error, warn, info, debug, trace";

/// The consensus library. At `info` it writes nearly half of all bytes, and at `warn` five lines a second for each member that is
/// away, of which the broker tells once.
const TALKATIVE: &str = "openraft";

/// The target of the audit's lines.
const AUDIT: &str = "audit";

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
    /// A module, or another target, from which no line ever comes: the part would do nothing, without a word.
    #[error("no line has the target '{target}'; {near}")]
    UnknownTarget {
        /// As it was written.
        target: String,
        /// Those that are there.
        near: String,
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
        let acts = if level == LevelFilter::OFF { level } else { LevelFilter::INFO };
        // Of two directives for the same module the later one holds.
        let directives = format!("{level},{TALKATIVE}={quiet},{AUDIT}={acts},{text}");
        Ok(Self { text: text.to_owned(), directives })
    }
}

impl Filter {
    pub(super) fn compiled(&self) -> EnvFilter {
        EnvFilter::new(&self.directives)
    }

    /// This filter with the parts of `change` in the place of those for the same modules, or in front of nothing: `info` and
    /// `escrowmq_broker::log=debug` become both.
    #[must_use]
    pub fn with(&self, change: &Self) -> Self {
        // The level is a part without a name, of which the last one holds.
        let name = |part: &str| part.rsplit_once('=').map(|(name, _)| name.trim().to_owned()).unwrap_or_default();
        let mut parts: Vec<&str> = Vec::new();
        for part in self.text.split(',').chain(change.text.split(',')).map(str::trim) {
            match parts.iter_mut().find(|known| name(known) == name(part)) {
                Some(known) => *known = part,
                None => parts.push(part),
            }
        }
        parts.join(",").parse().expect("each part is one of a filter")
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
    let target = what.split('[').next().unwrap_or_default().trim();
    if !target.is_empty() {
        targets::check(target).map_err(|near| FilterError::UnknownTarget { target: target.to_owned(), near })?;
    }
    let has_level = level.is_none_or(|level| parse_level(level).is_some());
    if what.is_empty() || !has_level || EnvFilter::builder().parse(part).is_err() {
        return Err(bad());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::tests::Page;
    use super::*;

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
        let text = String::from_utf8(page.bytes()).unwrap();
        let all = ["our error", "our info", "our debug", "an act", "its error", "its warning", "its info"];
        all.into_iter().filter(|message| text.contains(message)).collect()
    }

    #[test]
    fn the_library_gives_errors_alone_unless_it_is_named() {
        assert_eq!(logged("info"), ["our error", "our info", "an act", "its error"]);
        assert_eq!(logged("DEBUG").len(), 5);
        assert_eq!(logged("error"), ["our error", "an act", "its error"]);
        assert_eq!(logged("off"), [""; 0]);
        assert!(logged("info,openraft=info").contains(&"its info"));
        assert_eq!(logged("info,openraft=off"), ["our error", "our info", "an act"]);
    }

    #[test]
    fn a_filter_of_one_module_does_not_silence_errors_of_others() {
        assert_eq!(logged("escrowmq_common=info"), ["our error", "our info", "an act", "its error"]);
        assert_eq!(logged("warn"), ["our error", "an act", "its error"]);
        assert_eq!(logged("warn,audit=off"), ["our error", "its error"]);
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
        for text in ["escrowmq_broker=loud", "escrowmq_broker=", "=debug", "info,audit[=debug"] {
            assert!(matches!(text.parse::<Filter>(), Err(FilterError::NotAFilter { .. })), "{text}");
        }
        for text in ["info,escrowmq_broker=debug", "trace", "3", "openraft[span]=debug", "[span{x=1}]", "off"] {
            assert!(text.parse::<Filter>().is_ok(), "{text}");
        }
    }

    #[test]
    fn a_target_that_no_line_has_is_refused_with_those_that_are_there() {
        for (text, near) in [
            ("escrowmq_brokr=debug", "escrowmq_broker"),
            ("info,escrowmq_broker::retenton=debug", "escrowmq_broker::retention"),
            ("audits=off", "audit"),
            ("escrowmq_brokr[span]=debug", "escrowmq_broker"),
        ] {
            let error = text.parse::<Filter>().unwrap_err();
            assert!(matches!(error, FilterError::UnknownTarget { .. }) && error.to_string().contains(near), "{error}");
        }
        for text in
            ["escrowmq_broker::retention::trim=debug", "escrowmq_nameserver::routes=trace", "openraft::core=info"]
        {
            assert!(text.parse::<Filter>().is_ok(), "{text}");
        }
    }

    #[test]
    fn a_change_takes_the_place_of_the_part_for_the_same_module() {
        let with = |old: &str, change: &str| old.parse::<Filter>().unwrap().with(&change.parse().unwrap()).to_string();
        assert_eq!(with("info", "escrowmq_broker::log=debug"), "info,escrowmq_broker::log=debug");
        assert_eq!(with("info,openraft=warn", "openraft=debug,debug"), "debug,openraft=debug");
        assert_eq!(with("openraft=warn", "warn"), "openraft=warn,warn");
    }
}
