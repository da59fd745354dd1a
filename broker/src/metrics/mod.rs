//! Counts of the broker since its start.
//!
//! [`Metrics`] holds the counts that requests and runners add to: plain atomics, each a few nanoseconds. No request of a client
//! waits for a metric.
//!
//! Left to others: their names, and the page that shows them (`monitoring`); the counts of the state machine, the log, the intake and
//! the group, which hold the types of this folder.

mod rate;
mod waiting;

pub(crate) use escrowmq_common::monitoring::{Count, Histogram};
pub(crate) use rate::Rate;
pub(crate) use waiting::Waiting;

/// Codes that have a count of their own; all others share one.
const CODES: usize = 32;

/// Requests of one kind by response code.
#[derive(Debug, Default)]
pub(crate) struct Results {
    by_code: [Count; CODES],
    others: Count,
}

impl Results {
    /// One request was answered with this code.
    pub(crate) fn record(&self, code: i32) {
        let own = usize::try_from(code).ok().and_then(|code| self.by_code.get(code));
        own.unwrap_or(&self.others).add_one();
    }

    /// Requests that were answered with this code; those of a code without a count of its own are not known.
    pub(crate) fn count(&self, code: i32) -> u64 {
        usize::try_from(code).ok().and_then(|code| self.by_code.get(code)).map_or(0, Count::get)
    }

    /// Codes that occurred with their counts; `other` is those above 31.
    pub(crate) fn each(&self) -> impl Iterator<Item = (String, u64)> {
        let codes = self.by_code.iter().enumerate().map(|(code, count)| (code.to_string(), count.get()));
        codes.chain([("other".to_owned(), self.others.get())]).filter(|(_, count)| *count > 0)
    }
}

/// Counts since start.
#[derive(Debug, Default)]
pub(crate) struct Metrics {
    /// Sends, batches and replies by response code; one-way ones by the code that they would have got.
    pub sends: Results,
    /// Messages stored by sends, halves included.
    pub messages_in: Count,
    /// Bytes of those as they are stored: the same as are handed out.
    pub bytes_in: Count,
    /// Pulls by response code.
    pub pulls: Results,
    /// Messages handed to consumers.
    pub messages_out: Count,
    /// Bytes of units handed to consumers.
    pub bytes_out: Count,
    /// Pulls that met a message which cannot be read; each comes again.
    pub messages_unreadable: Count,
    /// Pulls that are held now.
    pub held_pulls: Count,
    /// Pulls answered at once instead of being held, because too many were.
    pub holds_refused: Count,
    /// Pulls answered as if there was nothing, because all connections together had too much unsent.
    pub pulls_put_off: Count,
    /// Reads of files, searches and listings refused because too many waited.
    pub searches_refused: Count,
    /// Topics, queues and groups that were not made because of a bound on their number.
    pub creations_refused: Count,
    /// Topics and groups that were not made because one connection made too many in a minute.
    pub creations_too_fast: Count,
    /// Groups that went by themselves.
    pub groups_expired: Count,
    /// From the arrival of a commit until it was stored.
    pub commits: Histogram,
    /// How long pulls were held that were held.
    pub pull_waits: Histogram,
    /// Decisions by response code.
    pub decisions: Results,
    /// Send-backs by response code.
    pub send_backs: Results,
    /// Messages that became dead letters.
    pub dead_letters: Count,
    /// Registrations that a nameserver took.
    pub registrations: Count,
    /// Registrations that a nameserver did not answer, or refused.
    pub registrations_failed: Count,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_counted_apart_and_strange_ones_together() {
        let results = Results::default();
        for code in [0, 0, 17, 604, -5] {
            results.record(code);
        }
        let each: Vec<_> = results.each().collect();
        assert_eq!(each, [("0".to_owned(), 2), ("17".to_owned(), 1), ("other".to_owned(), 2)]);
    }
}
