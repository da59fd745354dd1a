//! Runs the threads of a load, looks at processes at both edges of the window, and shows progress meanwhile.

use std::io::{IsTerminal as _, Write as _};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use escrowmq_common::signals::Signals;
use escrowmq_common::task::Tasks;
use tokio::sync::mpsc;

use super::engine::{Engine, Peer, now};
use super::link::Link;
use super::process::{CpuTimes, Memory, Watched};
use super::tally::{Gauge, Tally, Timing};
use super::target::{Target, Topic};

/// Between two looks at memory, and two lines of progress.
const TICK: Duration = Duration::from_secs(1);

/// How long a run is.
#[derive(Clone, Copy, Debug)]
pub(super) enum Length {
    /// A warm-up and a window, in seconds.
    Window { warmup: f64, seconds: f64 },
    /// This many messages, all measured.
    Count(u64),
    /// Until everything is read, but not longer than this many seconds.
    End { limit: f64 },
}

/// The result of a run.
#[derive(Debug)]
pub(super) struct Outcome {
    pub(super) tally: Tally,
    /// Length of what was measured, in seconds.
    pub(super) elapsed: f64,
    /// The changes between the two looks at the processes.
    pub(super) between: Between,
    /// Greatest memory seen.
    pub(super) memory: Memory,
    /// Whether the user ended it.
    pub(super) is_interrupted: bool,
}

/// The changes between two looks.
#[derive(Clone, Copy, Debug)]
pub(super) struct Between {
    /// Seconds.
    pub(super) elapsed: f64,
    /// Messages acknowledged or received.
    pub(super) messages: u64,
    /// Messages that became visible, if that was looked at.
    pub(super) visible: Option<u64>,
    /// CPU seconds.
    pub(super) cpu: CpuTimes,
}

#[derive(Clone, Copy, Debug)]
struct Look {
    at: u64,
    done: u64,
    visible: Option<u64>,
    cpu: CpuTimes,
}

/// Runs loads, one after the other.
pub(super) struct Conductor<'a> {
    pub(super) watched: &'a Watched,
    /// The end that a user asks for.
    pub(super) signals: Signals,
    /// Counts visible messages at both edges of the window.
    pub(super) visible: Option<(&'a Target, &'a Topic)>,
    /// The first words of the progress line.
    pub(super) label: &'static str,
}

/// The times of a run that starts now.
pub(super) fn timing(length: Length) -> Timing {
    let start = now();
    let after = |seconds: f64| start + (seconds * 1e9) as u64;
    match length {
        Length::Window { warmup, seconds } => Timing { start, from: after(warmup), to: after(warmup + seconds) },
        Length::Count(_) => Timing { start, from: start, to: u64::MAX },
        Length::End { limit } => Timing { start, from: start, to: after(limit) },
    }
}

impl Conductor<'_> {
    /// Runs one thread for each group of connections.
    pub(super) async fn run(
        &mut self,
        groups: Vec<Vec<(Link, Peer)>>,
        timing: Timing,
        length: Length,
    ) -> anyhow::Result<Outcome> {
        let gauge = Arc::new(Gauge::default());
        let tasks = Tasks::new();
        let (send, mut results) = mpsc::channel(groups.len().max(1));
        let mut running = groups.len();
        for (nth, group) in groups.into_iter().enumerate() {
            let budget = match length {
                Length::Count(count) => Some(share(count, nth, running)),
                Length::Window { .. } | Length::End { .. } => None,
            };
            let (gauge, send) = (Arc::clone(&gauge), send.clone());
            tasks.spawn_thread("load", move || {
                let engine = Engine::new(group, timing, budget, gauge);
                // The receiver waits for all of them.
                let _ = send.blocking_send(engine.and_then(Engine::run));
            })?;
        }
        drop(send);

        let mut progress = Progress::new(self.label, timing);
        let mut tally = Tally::default();
        let mut memory = Memory::default();
        let (mut first, mut last) = (None, None);
        let mut is_interrupted = false;
        if matches!(length, Length::Count(_) | Length::End { .. }) {
            first = Some(self.look(&gauge).await?);
        }
        let mut next_tick = timing.start + TICK.as_nanos() as u64;
        while running > 0 {
            let next = match (first, last) {
                (None, _) => next_tick.min(timing.from),
                (Some(_), None) => next_tick.min(timing.to),
                (Some(_), Some(_)) => next_tick,
            };
            tokio::select! {
                result = results.recv() => {
                    // All of them sent: the window is over, whatever its length was to be.
                    if last.is_none() && first.is_some() {
                        last = Some(self.look(&gauge).await?);
                    }
                    tally.merge(result.context("a thread of the load generator ended early")??);
                    running -= 1;
                    continue;
                }
                _ = self.signals.next() => {
                    if is_interrupted {
                        std::process::exit(130);
                    }
                    is_interrupted = true;
                    gauge.stop();
                    first = first.or(Some(self.look(&gauge).await?));
                    last = last.or(Some(self.look(&gauge).await?));
                }
                () = tokio::time::sleep(Duration::from_nanos(next.saturating_sub(now()))) => {}
            }
            if first.is_none() && now() >= timing.from {
                first = Some(self.look(&gauge).await?);
            }
            if last.is_none() && now() >= timing.to {
                last = Some(self.look(&gauge).await?);
            }
            if now() >= next_tick {
                next_tick = now() + TICK.as_nanos() as u64;
                memory = memory.max(self.watched.memory());
                progress.show(gauge.done());
            }
        }
        progress.clear();
        memory = memory.max(self.watched.memory());
        let (first, last) = if let (Some(first), Some(last)) = (first, last) {
            (first, last)
        } else {
            // It ended before the window began.
            let look = self.look(&gauge).await?;
            (look, look)
        };
        let elapsed = match length {
            Length::Window { seconds, .. } if !is_interrupted && tally.broken.is_none() => seconds,
            Length::Window { .. } => last.at.saturating_sub(timing.from) as f64 / 1e9,
            Length::Count(_) | Length::End { .. } => tally.last.saturating_sub(timing.start) as f64 / 1e9,
        };
        Ok(Outcome { tally, elapsed, between: between(first, last), memory, is_interrupted })
    }

    async fn look(&self, gauge: &Gauge) -> anyhow::Result<Look> {
        let before = now();
        let visible = match self.visible {
            Some((target, topic)) => Some(target.stored(topic).await?),
            None => None,
        };
        // The answer is of some moment since the question.
        let at = u64::midpoint(before, now());
        Ok(Look { at, done: gauge.done(), visible, cpu: self.watched.cpu() })
    }
}

fn between(first: Look, last: Look) -> Between {
    Between {
        elapsed: last.at.saturating_sub(first.at) as f64 / 1e9,
        messages: last.done - first.done,
        visible: last.visible.zip(first.visible).map(|(last, first)| last.saturating_sub(first)),
        cpu: CpuTimes {
            watched: last.cpu.watched - first.cpu.watched,
            own: last.cpu.own - first.cpu.own,
            machine: last.cpu.machine - first.cpu.machine,
            capacity: last.cpu.capacity - first.cpu.capacity,
        },
    }
}

/// The part of a count that one of several does.
fn share(count: u64, nth: usize, of: usize) -> u64 {
    count / of as u64 + u64::from((nth as u64) < count % of as u64)
}

/// Deals connections out to threads.
pub(super) fn deal<T>(items: Vec<T>, threads: usize) -> Vec<Vec<T>> {
    let threads = threads.min(items.len()).max(1);
    let mut groups: Vec<Vec<T>> = (0..threads).map(|_| Vec::new()).collect();
    for (at, item) in items.into_iter().enumerate() {
        groups[at % threads].push(item);
    }
    groups
}

/// A line on the terminal that is written over each second.
struct Progress {
    label: &'static str,
    timing: Timing,
    is_shown: bool,
    last: (u64, u64),
}

impl Progress {
    fn new(label: &'static str, timing: Timing) -> Progress {
        Progress { label, timing, is_shown: std::io::stderr().is_terminal(), last: (timing.start, 0) }
    }

    fn show(&mut self, done: u64) {
        if !self.is_shown {
            return;
        }
        let at = now();
        let seconds = at.saturating_sub(self.timing.start) as f64 / 1e9;
        let since = (at - self.last.0) as f64 / 1e9;
        let rate = (done - self.last.1) as f64 / since;
        self.last = (at, done);
        let phase = if at < self.timing.from { ", warming up" } else { "" };
        let _ = write!(std::io::stderr(), "\r\x1b[K{} {seconds:4.0} s: {rate:.0}/s{phase}", self.label);
    }

    fn clear(&self) {
        if self.is_shown {
            let _ = write!(std::io::stderr(), "\r\x1b[K");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_count_is_shared_without_loss() {
        assert_eq!((0..3).map(|nth| share(11, nth, 3)).collect::<Vec<_>>(), [4, 4, 3]);
        assert_eq!((0..3).map(|nth| share(2, nth, 3)).sum::<u64>(), 2);
    }

    #[test]
    fn connections_are_dealt_out_and_no_thread_is_idle() {
        assert_eq!(deal(vec![1, 2, 3, 4, 5], 2), [vec![1, 3, 5], vec![2, 4]]);
        assert_eq!(deal(vec![1, 2], 8), [[1], [2]]);
    }
}
