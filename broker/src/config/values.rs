//! How values are written in a properties file: the notations that both servers have, and those of the broker's own.

use std::fmt;
use std::str::FromStr;

use escrowmq_common::settings::values::with_hint;
pub(super) use escrowmq_common::settings::values::{boolean, list, millis, optional, path, plain, seconds};

/// Percent, as a whole number or, with a point, as a fraction: `88` and `0.88`.
pub(super) mod percent {
    use super::{plain, with_hint};

    pub(in super::super) fn read(text: &str) -> Result<u32, String> {
        if !text.contains('.') {
            return plain::read(text);
        }
        let fraction: Option<f64> = text.parse().ok().filter(|fraction| (0.0..=1.0).contains(fraction));
        let fraction = fraction.ok_or_else(|| with_hint("must be percent (88) or a fraction (0.88)", text))?;
        Ok((fraction * 100.0).round() as u32)
    }

    #[allow(clippy::trivially_copy_pass_by_ref, reason = "the table passes fields by reference")]
    pub(in super::super) fn show(value: &u32) -> String {
        value.to_string()
    }
}

/// A switch that somebody set or did not; nothing is the latter.
pub(super) mod switch {
    use super::boolean;

    pub(in super::super) fn read(text: &str) -> Result<Option<bool>, String> {
        if text.is_empty() { Ok(None) } else { boolean::read(text).map(Some) }
    }

    #[allow(clippy::trivially_copy_pass_by_ref, clippy::ref_option, reason = "the table passes fields by reference")]
    pub(in super::super) fn show(value: &Option<bool>) -> String {
        value.map_or_else(String::new, |value| value.to_string())
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
