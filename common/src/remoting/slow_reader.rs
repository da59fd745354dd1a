//! Tells a peer that reads slowly from one that does not read.

use std::time::Duration;

use tokio::time::Instant;

use super::ConnectionLimits;

/// Follows how a connection's unsent output drains, one stretch of time after the other.
#[derive(Debug, Default)]
pub(super) struct SlowReader {
    stretch: Option<Stretch>,
}

#[derive(Debug)]
struct Stretch {
    begun: Instant,
    /// Bytes that waited when it began.
    waiting: usize,
    /// All bytes written until it began.
    written: u64,
}

impl SlowReader {
    /// Looks at the connection: `waiting` bytes wait, `written` were written since it was opened. Says whether the peer took
    /// too few within its time.
    pub(super) fn look(&mut self, limits: &ConnectionLimits, waiting: usize, written: u64, now: Instant) -> bool {
        if waiting == 0 {
            self.stretch = None;
            return false;
        }
        let stretch = self.stretch.get_or_insert(Stretch { begun: now, waiting, written });
        if now - stretch.begun < limits.drain_time {
            return false;
        }
        let least = usize::try_from(limits.drain_time.as_secs()).unwrap_or(usize::MAX).max(1);
        let least = least.saturating_mul(limits.drain_rate).min(stretch.waiting);
        if written - stretch.written < least as u64 {
            return true;
        }
        *stretch = Stretch { begun: now, waiting, written };
        false
    }

    /// How long until the next look matters.
    pub(super) fn left(&self, limits: &ConnectionLimits, now: Instant) -> Option<Duration> {
        let stretch = self.stretch.as_ref()?;
        Some((stretch.begun + limits.drain_time).saturating_duration_since(now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: usize = 1024 * 1024;

    fn limits() -> ConnectionLimits {
        ConnectionLimits { drain_time: Duration::from_secs(60), drain_rate: 1000, ..ConnectionLimits::default() }
    }

    /// Whether a peer that takes `rate` bytes in each second, of `waiting` that always wait, is closed within ten minutes.
    fn is_slow(waiting: usize, rate: u64) -> bool {
        let (start, mut reader) = (Instant::now(), SlowReader::default());
        (0..600).any(|second| reader.look(&limits(), waiting, second * rate, start + Duration::from_secs(second)))
    }

    #[test]
    fn a_peer_must_take_a_least_number_of_bytes() {
        assert!(is_slow(64 * MIB, 0));
        assert!(is_slow(64 * MIB, 1), "a byte in a second is no progress");
        assert!(is_slow(64 * MIB, 900));
        assert!(!is_slow(64 * MIB, 1000));
        assert!(is_slow(100, 0), "however little waits");
    }

    #[test]
    fn what_little_waited_is_enough_if_it_went() {
        let (start, mut reader, limits) = (Instant::now(), SlowReader::default(), limits());
        let at = |second| start + Duration::from_secs(second);
        assert!(!reader.look(&limits, 100, 0, at(0)));
        assert!(!reader.look(&limits, 5000, 100, at(61)), "new bytes wait, the old ones went");
        assert_eq!(reader.left(&limits, at(62)), Some(Duration::from_secs(59)));
        // Nothing waits: whatever comes later has its own time.
        assert!(!reader.look(&limits, 0, 5100, at(110)));
        assert_eq!(reader.left(&limits, at(110)), None);
        assert!(!reader.look(&limits, 9, 5100, at(130)));
        assert!(!reader.look(&limits, 9, 5100, at(189)));
        assert!(reader.look(&limits, 9, 5100, at(190)));
    }
}
