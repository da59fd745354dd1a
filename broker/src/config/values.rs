//! How values are written in a properties file: one module per notation, each with `read` and `show`.

use std::fmt;
use std::str::FromStr;

/// As the type itself reads and shows.
pub(super) mod plain {
    use std::any::Any;
    use std::fmt::Display;
    use std::num::{IntErrorKind, ParseIntError};
    use std::str::FromStr;

    pub(in super::super) fn read<T: FromStr<Err: Display + 'static>>(text: &str) -> Result<T, String> {
        text.parse().map_err(|error: T::Err| match (&error as &dyn Any).downcast_ref::<ParseIntError>() {
            Some(error) => no_number(text, error, size_of::<T>()),
            None => error.to_string(),
        })
    }

    /// The mistake in the text of a number of this many bytes.
    fn no_number(text: &str, error: &ParseIntError, bytes: usize) -> String {
        match (error.kind(), bytes) {
            (IntErrorKind::PosOverflow, 2) => format!("must be at most {}", u16::MAX),
            (IntErrorKind::PosOverflow, 4) => format!("must be at most {}", u32::MAX),
            (IntErrorKind::PosOverflow | IntErrorKind::NegOverflow, _) => "is too large a number".to_owned(),
            _ if text.parse::<i64>().is_ok() => "must not be negative".to_owned(),
            _ => super::with_hint("must be a whole number, in digits alone", text),
        }
    }

    pub(in super::super) fn show(value: &impl Display) -> String {
        value.to_string()
    }
}

/// Stricter than Java, for which everything but "true" is false: a typing error would turn a switch off.
pub(super) mod boolean {
    pub(in super::super) fn read(text: &str) -> Result<bool, String> {
        if text.eq_ignore_ascii_case("true") {
            Ok(true)
        } else if text.eq_ignore_ascii_case("false") {
            Ok(false)
        } else {
            Err(super::with_hint("must be true or false", text))
        }
    }

    #[allow(clippy::trivially_copy_pass_by_ref, reason = "the table passes fields by reference")]
    pub(in super::super) fn show(value: &bool) -> String {
        value.to_string()
    }
}

/// The mistake, with a hint where a comment follows the value.
fn with_hint(why: &str, text: &str) -> String {
    let first = text.split(char::is_whitespace).next().unwrap_or_default();
    let is_followed = first.len() < text.len() || text.contains('#') || text.contains("//");
    if is_followed { format!("{why}; a comment needs a line of its own") } else { why.to_owned() }
}

/// Percent, as a whole number or, with a point, as a fraction: `88` and `0.88`.
pub(super) mod percent {
    pub(in super::super) fn read(text: &str) -> Result<u32, String> {
        if !text.contains('.') {
            return super::plain::read(text);
        }
        let fraction: Option<f64> = text.parse().ok().filter(|fraction| (0.0..=1.0).contains(fraction));
        let fraction = fraction.ok_or_else(|| super::with_hint("must be percent (88) or a fraction (0.88)", text))?;
        Ok((fraction * 100.0).round() as u32)
    }

    #[allow(clippy::trivially_copy_pass_by_ref, reason = "the table passes fields by reference")]
    pub(in super::super) fn show(value: &u32) -> String {
        value.to_string()
    }
}

/// A duration in milliseconds.
pub(super) mod millis {
    use std::time::Duration;

    pub(in super::super) fn read(text: &str) -> Result<Duration, String> {
        super::plain::read(text).map(Duration::from_millis)
    }

    pub(in super::super) fn show(value: &Duration) -> String {
        value.as_millis().to_string()
    }
}

/// A duration in seconds.
pub(super) mod seconds {
    use std::time::Duration;

    pub(in super::super) fn read(text: &str) -> Result<Duration, String> {
        super::plain::read(text).map(Duration::from_secs)
    }

    pub(in super::super) fn show(value: &Duration) -> String {
        value.as_secs().to_string()
    }
}

/// Texts with ';' between them.
pub(super) mod list {
    #[allow(clippy::unnecessary_wraps, reason = "one form for all notations")]
    pub(in super::super) fn read(text: &str) -> Result<Vec<String>, String> {
        let parts = text.split(';').map(str::trim).filter(|part| !part.is_empty());
        Ok(parts.map(str::to_owned).collect())
    }

    pub(in super::super) fn show(value: &[String]) -> String {
        value.join(";")
    }
}

/// A path; nothing is the default.
pub(super) mod path {
    use std::path::PathBuf;

    #[allow(clippy::unnecessary_wraps, reason = "one form for all notations")]
    pub(in super::super) fn read(text: &str) -> Result<Option<PathBuf>, String> {
        Ok((!text.is_empty()).then(|| PathBuf::from(text)))
    }

    #[allow(clippy::ref_option, reason = "the table passes fields by reference")]
    pub(in super::super) fn show(value: &Option<PathBuf>) -> String {
        value.as_ref().map_or_else(String::new, |path| path.display().to_string())
    }
}

/// When a send is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FlushDisk {
    /// After its bytes are on the device.
    Sync,
    /// After the operating system has them.
    Async,
}

impl FromStr for FlushDisk {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.to_ascii_uppercase().as_str() {
            "SYNC_FLUSH" => Ok(Self::Sync),
            "ASYNC_FLUSH" => Ok(Self::Async),
            _ => Err("must be SYNC_FLUSH or ASYNC_FLUSH"),
        }
    }
}

impl fmt::Display for FlushDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Sync => "SYNC_FLUSH",
            Self::Async => "ASYNC_FLUSH",
        })
    }
}

/// RocketMQ's name for the part that a broker plays in its group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BrokerRole {
    /// It takes writes; copies follow later, if there are any.
    AsyncMaster,
    /// It takes writes; a copy is wanted before they are answered.
    SyncMaster,
}

impl BrokerRole {
    /// The copies of a message that the operator wants with this role, the one in this broker among them.
    pub fn copies_wanted(self) -> u64 {
        match self {
            Self::AsyncMaster => 1,
            Self::SyncMaster => 2,
        }
    }
}

impl FromStr for BrokerRole {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.to_ascii_uppercase().as_str() {
            "ASYNC_MASTER" => Ok(Self::AsyncMaster),
            "SYNC_MASTER" => Ok(Self::SyncMaster),
            _ => Err("must be ASYNC_MASTER or SYNC_MASTER"),
        }
    }
}

impl fmt::Display for BrokerRole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::AsyncMaster => "ASYNC_MASTER",
            Self::SyncMaster => "SYNC_MASTER",
        })
    }
}

/// The delay levels: level n is the n-th from 1 on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DelayLevels {
    text: String,
    millis: Vec<u64>,
}

/// The levels that clients are built for.
const DEFAULT_LEVELS: &str = "1s 5s 10s 30s 1m 2m 3m 4m 5m 6m 7m 8m 9m 10m 20m 30m 1h 2h";
/// More levels than this would be a mistake; the bound keeps a level within a byte.
const LEVELS_MAX: usize = 127;

impl DelayLevels {
    /// How long a message of this level waits, in milliseconds. A level beyond the last one is the last one; 0 and less
    /// is none.
    pub fn millis(&self, level: i32) -> Option<u64> {
        let level = usize::try_from(level).ok().filter(|level| *level > 0)?;
        self.millis.get(level.min(self.millis.len()) - 1).copied()
    }

    /// The level that is used for this one: the last one if it is beyond; `None` for 0 and less.
    pub fn clip(&self, level: i32) -> Option<i32> {
        (level > 0).then(|| level.min(self.millis.len() as i32))
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.millis.len()
    }
}

impl Default for DelayLevels {
    fn default() -> Self {
        DEFAULT_LEVELS.parse().expect("a constant, covered by a test")
    }
}

impl FromStr for DelayLevels {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let millis = text.split_whitespace().map(level_millis).collect::<Result<Vec<_>, _>>()?;
        if millis.is_empty() || millis.len() > LEVELS_MAX {
            return Err(format!("{} levels, must be 1 to {LEVELS_MAX}", millis.len()));
        }
        Ok(Self { text: text.to_owned(), millis })
    }
}

impl fmt::Display for DelayLevels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

fn level_millis(level: &str) -> Result<u64, String> {
    let bad = || format!("'{level}' is no number followed by s, m, h or d");
    let unit = level.chars().next_back().ok_or_else(bad)?;
    let factor: u64 = match unit {
        's' => 1_000,
        'm' => 60_000,
        'h' => 3_600_000,
        'd' => 86_400_000,
        _ => return Err(bad()),
    };
    let number: u32 = level[..level.len() - unit.len_utf8()].parse().map_err(|_| bad())?;
    if number == 0 { Err(bad()) } else { Ok(u64::from(number) * factor) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn eighteen_levels_and_nothing_beyond() {
        let levels = DelayLevels::default();
        assert_eq!(levels.count(), 18);
        assert_eq!(levels.millis(1), Some(1_000));
        assert_eq!(levels.millis(3), Some(10_000));
        assert_eq!(levels.millis(18), Some(7_200_000));
        assert_eq!(levels.millis(99), Some(7_200_000));
        assert_eq!((levels.millis(0), levels.millis(-1)), (None, None));
        assert_eq!((levels.clip(99), levels.clip(2), levels.clip(0)), (Some(18), Some(2), None));
    }

    #[test]
    fn levels_that_are_none_are_refused() {
        for text in ["", "1", "s", "1x", "-1s", "0s", "1s 5", "1ß", "99999999999s"] {
            assert!(text.parse::<DelayLevels>().is_err(), "{text}");
        }
        assert_eq!("1d  2s".parse::<DelayLevels>().unwrap().millis(1), Some(86_400_000));
    }

    #[test]
    fn a_switch_is_true_or_false() {
        assert_eq!(boolean::read("TRUE"), Ok(true));
        assert_eq!(boolean::read("yes"), Err("must be true or false".to_owned()));
        assert!(boolean::read("true # on").unwrap_err().ends_with("a comment needs a line of its own"));
    }

    #[test]
    fn numbers_say_what_is_wrong_with_them() {
        let wrong = |text: &str| plain::read::<u16>(text).unwrap_err();
        assert_eq!(wrong("abc"), "must be a whole number, in digits alone");
        assert_eq!(wrong("1024*1024"), wrong("abc"));
        assert_eq!(wrong("48 # hours"), "must be a whole number, in digits alone; a comment needs a line of its own");
        assert_eq!((wrong("70000"), wrong("-1")), ("must be at most 65535".into(), "must not be negative".into()));
        assert_eq!((plain::read::<u16>("0042"), plain::read::<u16>("+7")), (Ok(42), Ok(7)));
        assert_eq!(plain::read::<u64>("99999999999999999999"), Err("is too large a number".to_owned()));
    }

    #[test]
    fn percents_are_whole_numbers_or_fractions() {
        for (text, expected) in [("88", 88), ("0.90", 90), ("0.855", 86), ("1.0", 100), ("1", 1)] {
            assert_eq!(percent::read(text), Ok(expected), "{text}");
        }
        for text in ["", "88%", "1.5", "-0.1", "0.9x", "NaN."] {
            assert!(percent::read(text).is_err(), "{text}");
        }
    }

    #[test]
    fn words_count_in_any_case() {
        assert_eq!(("sync_flush".parse(), "SYNC".parse::<FlushDisk>().is_err()), (Ok(FlushDisk::Sync), true));
        assert_eq!("Sync_Master".parse::<BrokerRole>().unwrap().to_string(), "SYNC_MASTER");
        assert_eq!(BrokerRole::SyncMaster.copies_wanted(), 2);
    }
}
