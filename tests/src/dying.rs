//! Processes that kill themselves wherever they wait.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use escrowmq_common::clock;
use rustix::process::{Signal, getpid, kill_process};
use tokio::runtime::{Builder, Runtime};

use crate::dice::Dice;

/// A runtime whose process ends by SIGKILL when its thread goes to sleep for the `point`-th time since `counts` was set: at every
/// such moment all of its tasks wait for something.
///
/// # Panics
///
/// If the system is short of something.
pub fn dying_at_sleep(point: u32, counts: Arc<AtomicBool>) -> Runtime {
    let sleeps = AtomicU32::new(0);
    let fall_asleep = move || {
        if counts.load(Ordering::Relaxed) && sleeps.fetch_add(1, Ordering::Relaxed) + 1 == point {
            kill_process(getpid(), Signal::KILL).expect("a process may kill itself");
        }
    };
    Builder::new_current_thread().enable_all().on_thread_park(fall_asleep).build().expect("a runtime")
}

/// Points for [`dying_at_sleep`], up to `max`: each once, or as many random ones as `ESCROWMQ_CRASH_POINTS` says.
#[derive(Debug)]
pub struct CrashPoints {
    points: Vec<u32>,
    is_random: bool,
}

impl CrashPoints {
    /// See the type.
    ///
    /// # Panics
    ///
    /// If the variable holds no number.
    pub fn up_to(max: u32) -> CrashPoints {
        let Ok(wanted) = std::env::var("ESCROWMQ_CRASH_POINTS") else {
            return CrashPoints { points: (1..=max).collect(), is_random: false };
        };
        let wanted: u32 = wanted.parse().expect("ESCROWMQ_CRASH_POINTS is a number");
        let mut dice = Dice::new(clock::wall_ms().unsigned_abs());
        let points = (0..wanted).map(|_| 1 + dice.below(max as usize) as u32).collect();
        CrashPoints { points, is_random: true }
    }

    /// So many of them at a time, with their numbers.
    pub fn lanes(&self, count: usize) -> impl Iterator<Item = Vec<(usize, u32)>> {
        let numbered: Vec<(usize, u32)> = self.points.iter().copied().enumerate().collect();
        numbered.chunks(count).map(<[_]>::to_vec).collect::<Vec<_>>().into_iter()
    }

    /// Whether there is no need for later ones when nobody has died.
    pub fn ends_without_death(&self) -> bool {
        !self.is_random
    }
}
