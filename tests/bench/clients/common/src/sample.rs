//! Clocks.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use tokio::time::Instant;

/// Time, and the processor time that all threads of this process have used until then, in user mode and in the kernel.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sample {
    at: Instant,
    cpu: Duration,
}

impl Sample {
    pub(crate) fn now() -> Sample {
        let cpu = clock_gettime(ClockId::ProcessCPUTime);
        let cpu = Duration::try_from(cpu).expect("processor time is not negative");
        Sample { at: Instant::now(), cpu }
    }

    /// Seconds since `earlier`, and microseconds of processor time.
    pub(crate) fn since(&self, earlier: &Sample) -> (f64, f64) {
        ((self.at - earlier.at).as_secs_f64(), (self.cpu - earlier.cpu).as_secs_f64() * 1e6)
    }
}
