//! The costs of processes: CPU time and memory, from `/proc`.

use std::path::Path;

use serde_json::{Value, json};

use super::report::rounded;

/// A look at the processor time used so far, in seconds.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct CpuTimes {
    /// By the processes that are watched.
    pub(super) watched: f64,
    /// By this process.
    pub(super) own: f64,
    /// By everything on the machine.
    pub(super) machine: f64,
    /// That there was, used or not.
    pub(super) capacity: f64,
}

/// Memory of the watched processes together, in MiB.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Memory {
    /// All that is resident, mapped files included.
    pub(super) resident: f64,
    /// Resident memory that belongs to no file.
    pub(super) anonymous: f64,
}

/// Processes that are watched, mostly a broker's.
#[derive(Clone, Debug)]
pub(super) struct Watched {
    pids: Vec<u32>,
}

impl Watched {
    /// An error if there is no such process.
    pub(super) fn new(pids: &[u32]) -> anyhow::Result<Watched> {
        for pid in pids {
            if process_seconds(&pid.to_string()).is_none() {
                anyhow::bail!("there is no process {pid} (--pid)");
            }
        }
        Ok(Watched { pids: pids.to_vec() })
    }

    pub(super) fn is_empty(&self) -> bool {
        self.pids.is_empty()
    }

    pub(super) fn cpu(&self) -> CpuTimes {
        let (machine, capacity) = machine_seconds().unwrap_or_default();
        CpuTimes {
            watched: self.pids.iter().filter_map(|pid| process_seconds(&pid.to_string())).sum(),
            own: process_seconds("self").unwrap_or_default(),
            machine,
            capacity,
        }
    }

    pub(super) fn memory(&self) -> Memory {
        let mut memory = Memory::default();
        for pid in &self.pids {
            let Ok(status) = std::fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("status")) else {
                continue;
            };
            let mib = |name: &str| {
                let line = status.lines().find_map(|line| line.strip_prefix(name))?;
                line.split_whitespace().next()?.parse::<f64>().ok().map(|kib| kib / 1024.0)
            };
            memory.resident += mib("VmRSS:").unwrap_or_default();
            memory.anonymous += mib("RssAnon:").unwrap_or_default();
        }
        memory
    }
}

impl Memory {
    /// The greater of each.
    pub(super) fn max(self, other: Memory) -> Memory {
        Memory { resident: self.resident.max(other.resident), anonymous: self.anonymous.max(other.anonymous) }
    }

    pub(super) fn json(self) -> Value {
        json!({ "resident_mib": rounded(self.resident, 1), "anonymous_mib": rounded(self.anonymous, 1) })
    }
}

/// User and system time of a process, in seconds.
fn process_seconds(pid: &str) -> Option<f64> {
    let stat = std::fs::read_to_string(Path::new("/proc").join(pid).join("stat")).ok()?;
    // The name in brackets may hold anything.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    let user: f64 = fields.nth(11)?.parse().ok()?;
    let system: f64 = fields.next()?.parse().ok()?;
    Some((user + system) / ticks())
}

/// Busy and all time of all processors, in seconds.
fn machine_seconds() -> Option<(f64, f64)> {
    let stat = std::fs::read_to_string("/proc/stat").ok()?;
    let fields = stat.lines().next()?.split_whitespace().skip(1).take(8);
    let fields: Vec<f64> = fields.filter_map(|field| field.parse().ok()).collect();
    let all: f64 = fields.iter().sum();
    let idle = fields.get(3)? + fields.get(4)?;
    Some(((all - idle) / ticks(), all / ticks()))
}

fn ticks() -> f64 {
    rustix::param::clock_ticks_per_second() as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_seen() {
        let watched = Watched::new(&[std::process::id()]).unwrap();
        let before = watched.cpu();
        let mut sum = 0u64;
        while watched.cpu().own < before.own + 0.05 {
            sum = (0..10_000).fold(sum, u64::wrapping_add);
        }
        let after = watched.cpu();
        assert!(after.watched >= before.watched + 0.04 && after.capacity > before.capacity, "{sum}");
        let memory = watched.memory();
        assert!(memory.resident >= memory.anonymous && memory.anonymous > 0.1);
        assert!(Watched::new(&[u32::MAX]).is_err());
    }
}
