//! How long marks have to stay: as long as a message may come again.
//!
//! A message is handed out as long as a broker stores it. One that fails is stored again, once for each try, so the last copy comes
//! the whole of the retries later, and is stored for as long again as the first one.

use std::time::Duration;

use escrowmq_common::code::request;
use escrowmq_common::frame::Frame;

use crate::admin::BrokerAddress;
use crate::client::Client;
use crate::error::RequestError;

/// Delay levels of a broker that does not tell its own.
const LEVELS: &str = "1s 5s 10s 30s 1m 2m 3m 4m 5m 6m 7m 8m 9m 10m 20m 30m 1h 2h";
/// The level of the first retry, counted from 1, and how many there are unless the group is told otherwise.
const FIRST_RETRY: usize = 3;
const RETRIES: usize = 16;

/// Marks may not stay long enough.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeepError {
    /// A message may come again after its mark is gone, and would have its effect a second time.
    #[error(
        "marks are kept for {keep:?}, and {broker} may hand out a message for {stored:?} and its retries for {retries:?}: set `keep` \
         to {:?} at least", *stored + *retries
    )]
    TooShort {
        /// The broker.
        broker: String,
        /// How long marks are kept.
        keep: Duration,
        /// How long the broker stores messages (`fileReservedTime`).
        stored: Duration,
        /// All retries of a message together (`messageDelayLevel`).
        retries: Duration,
    },
    /// A broker did not say how long it stores messages: it was away, or refused to (an operator may forbid the question). Nothing
    /// is known then: compare `keep` with its settings by hand, or ask again where `error` is retryable.
    #[error("{broker} does not say how long it stores messages, so compare `keep` with its settings by hand: {error}")]
    NotTold {
        /// The broker.
        broker: String,
        /// Why not.
        error: RequestError,
    },
}

/// Compares `keep` with what each broker says.
pub(super) async fn check(client: &Client, keep: Duration) -> Result<(), KeepError> {
    let not_told = |broker: &str| {
        let broker = broker.to_owned();
        move |error| KeepError::NotTold { broker, error }
    };
    let masters = client.admin().masters().await.map_err(not_told("the name server"))?;
    for BrokerAddress { broker, addr, .. } in masters {
        let answer = client.core().request(&addr, Frame::request(request::GET_BROKER_CONFIG)).await;
        let answer = answer.map_err(not_told(&broker))?;
        let (stored, retries) = read(&String::from_utf8_lossy(&answer.body))
            .map_err(|reason| not_told(&broker)(RequestError::malformed(&addr, reason)))?;
        if keep < stored + retries {
            return Err(KeepError::TooShort { broker, keep, stored, retries });
        }
    }
    Ok(())
}

/// How long messages are stored, and all their retries together.
fn read(settings: &str) -> Result<(Duration, Duration), String> {
    let value = |name: &str| {
        let lines = settings.lines().filter_map(|line| line.split_once('='));
        lines.filter(|(key, _)| key.trim() == name).map(|(_, value)| value.trim()).next_back()
    };
    let hours = value("fileReservedTime").ok_or("its settings have no fileReservedTime")?;
    let hours: u32 = hours.parse().map_err(|_| format!("its fileReservedTime is {hours:?}"))?;
    let levels = value("messageDelayLevel").filter(|levels| !levels.is_empty()).unwrap_or(LEVELS);
    let levels: Option<Vec<Duration>> = levels.split_whitespace().map(level).collect();
    let levels = levels.filter(|levels| !levels.is_empty()).ok_or("its messageDelayLevel is not understood")?;
    // From the last one on it is always the last one.
    let waits = (FIRST_RETRY - 1..).take(RETRIES).map(|at| levels[at.min(levels.len() - 1)]);
    Ok((Duration::from_secs(u64::from(hours) * 3600), waits.sum()))
}

fn level(text: &str) -> Option<Duration> {
    let (number, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let seconds = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 86400,
        _ => return None,
    };
    Some(Duration::from_secs(u64::from(number.parse::<u32>().ok()?) * seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    #[test]
    fn retention_and_retries_are_read_from_the_settings() {
        let usual = Duration::from_secs(4 * 3600 + 45 * 60 + 40);
        assert_eq!(read("a=1\nfileReservedTime=72\nb=2\n"), Ok((72 * HOUR, usual)));
        let own = "messageDelayLevel=1s 2s 3s 1h\r\nfileReservedTime=48\r\n";
        assert_eq!(read(own), Ok((48 * HOUR, Duration::from_secs(3) + 15 * HOUR)));
        for unreadable in
            ["", "fileReservedTime=x", "fileReservedTime=1\nmessageDelayLevel=1s 2y", "fileReservedTime=-1"]
        {
            assert!(read(unreadable).is_err(), "{unreadable}");
        }
    }
}
