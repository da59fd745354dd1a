//! Callers that send one after the other, and what is counted of it.

use std::fmt::Display;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout_at};

use crate::arguments::Arguments;
use crate::sample::Sample;

const WARMUP: u8 = 0;
const MEASURED: u8 = 1;
const OVER: u8 = 2;

/// How long a call may take to end after that.
const LAST_CALLS: Duration = Duration::from_secs(30);

/// What a caller has seen.
#[derive(Default)]
struct Seen {
    /// Messages that were acknowledged, and those of them in the time that is measured.
    acknowledged: usize,
    measured: usize,
    /// Of each call that ended in that time, in microseconds.
    latencies: Vec<u32>,
    errors: usize,
    error: Option<String>,
}

/// Runs `--in-flight` callers, each of which awaits `call` again and again, for `--warmup` and then `--seconds`. A call sends `messages`.
pub async fn sending<C, F, E>(arguments: &Arguments, messages: usize, call: C) -> Value
where
    C: Fn() -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Result<(), E>> + Send + 'static,
    E: Display + Send + 'static,
{
    let phase = Arc::new(AtomicU8::new(WARMUP));
    let mut callers = JoinSet::new();
    for _ in 0..arguments.count("in-flight") {
        callers.spawn(caller(Arc::clone(&phase), messages, call.clone()));
    }
    sleep(arguments.time("warmup")).await;
    let began = Sample::now();
    phase.store(MEASURED, Ordering::Relaxed);
    sleep(arguments.time("seconds")).await;
    phase.store(OVER, Ordering::Relaxed);
    let (seconds, cpu_us) = Sample::now().since(&began);
    let mut all = Seen::default();
    let until = Instant::now() + LAST_CALLS;
    loop {
        let seen = match timeout_at(until, callers.join_next()).await {
            Ok(Some(seen)) => seen.expect("no caller panics"),
            Ok(None) => break,
            Err(_) => {
                let waiting = callers.len();
                let failed = format!("{waiting} calls had no answer {} s after the end", LAST_CALLS.as_secs());
                return json!({ "failed": failed });
            }
        };
        all.acknowledged += seen.acknowledged;
        all.measured += seen.measured;
        all.latencies.extend(seen.latencies);
        all.errors += seen.errors;
        all.error = all.error.or(seen.error);
    }
    all.latencies.sort_unstable();
    let at = |share: f64| {
        let last = all.latencies.len().checked_sub(1)?;
        Some(f64::from(all.latencies[(last as f64 * share) as usize]) / 1e3)
    };
    json!({
        "messages": all.measured, "seconds": seconds, "cpu_us": cpu_us, "p50_ms": at(0.5), "p99_ms": at(0.99),
        "acknowledged": all.acknowledged, "errors": all.errors, "error": all.error,
    })
}

async fn caller<C, F, E>(phase: Arc<AtomicU8>, messages: usize, call: C) -> Seen
where
    C: Fn() -> F + Send,
    F: Future<Output = Result<(), E>> + Send,
    E: Display,
{
    let mut seen = Seen::default();
    while phase.load(Ordering::Relaxed) != OVER {
        let began = Instant::now();
        match call().await {
            Ok(()) => {
                seen.acknowledged += messages;
                if phase.load(Ordering::Relaxed) == MEASURED {
                    seen.measured += messages;
                    seen.latencies.push(u32::try_from(began.elapsed().as_micros()).unwrap_or(u32::MAX));
                }
            }
            Err(error) => {
                seen.errors += 1;
                seen.error.get_or_insert_with(|| error.to_string());
            }
        }
    }
    seen
}
