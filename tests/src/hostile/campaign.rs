//! A whole attack: windows of requests with a restart after each, and the checks.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::net::{Ipv4Addr, UdpSocket};
use std::os::unix::process::ExitStatusExt as _;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use escrowmq_common::clock;
use escrowmq_common::code::{request, response};
use tokio::sync::mpsc;

use super::attack::{Attack, STEPS_BEHIND};
use super::good::Good;
use super::line::{Common, Counts};
use super::ring::Ring;
use super::{Only, UNKNOWN_CODE, generators, succeeding};
use crate::dice::Dice;
use crate::processes::{Cluster, Settings, binary};
use crate::wait::since;

/// The signal of `kill -9`.
const KILLED: i32 = 9;

/// The broker's log has this when its store takes no more writes: no request may bring that about, not even by a promise
/// that it breaks.
const STORE_STOPPED: &str = "no writes until a restart";
/// Requests between two restarts.
pub const WINDOW: u64 = 1_000;

/// Longest time for a broker to stop after SIGTERM.
const STOPPING: Duration = Duration::from_secs(30);

/// Longest time for what may be held: pulls at most 30 s, relayed questions 10 s. Judged in the last window.
const HELD: Duration = Duration::from_secs(45);

/// The order of an attack: how much, from where on, with which codes.
#[derive(Clone, Debug)]
pub struct Campaign {
    /// Decides what is sent.
    pub seed: u64,
    /// How many requests.
    pub requests: u64,
    /// The number of the first.
    pub from: u64,
    /// Codes that are sent.
    pub only: Only,
    /// How the test is started, for the message of a failure.
    pub command: &'static str,
    /// Requests that may be held are waited for at the end, which takes up to 45 s.
    pub strict: bool,
}

/// The result of a campaign.
#[derive(Debug)]
pub struct Report {
    /// Requests and answers.
    pub counts: Counts,
    /// Messages of the good client that were acknowledged, and are there.
    pub acknowledged: usize,
    /// Steps of the good client.
    pub steps: usize,
    /// Sends of it that were refused for the moment, and taken after a while.
    pub refused: usize,
    /// The slowest of its steps.
    pub slowest: Duration,
    /// Restarts of the broker.
    pub restarts: usize,
}

/// Settings under which every handler does something.
pub fn settings() -> Settings {
    Settings::default()
        .with("recallMessageEnable", true)
        .with("enablePropertyFilter", true)
        .with("traceTopicEnable", true)
        .with("mappedFileSizeCommitLog", 64 << 20)
        // However full the machine's disk is.
        .with("diskMaxUsedSpaceRatio", 100)
        .with("diskSpaceCleanForciblyRatio", 100)
        .with("diskSpaceWarningLevelRatio", 100)
}

/// An address of this machine that is not its loop. A server that listens on the loop alone takes whoever connects from
/// there for a stranger.
fn far_address() -> Option<Ipv4Addr> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).ok()?;
    // Nothing is sent: it only asks the system which way it would go.
    socket.connect((Ipv4Addr::new(192, 0, 2, 1), 9)).ok()?;
    match socket.local_addr().ok()?.ip() {
        std::net::IpAddr::V4(address) if !address.is_loopback() && !address.is_unspecified() => Some(address),
        _ => None,
    }
}

/// Tests that are impossible on a machine that has no such address, if that is so.
fn limitation(far: Option<Ipv4Addr>) -> Option<&'static str> {
    let said = "LIMITED: this machine has no address but its loop: what strangers may not do is not tried";
    far.is_none().then_some(said)
}

impl Campaign {
    /// Runs it.
    ///
    /// # Panics
    ///
    /// When something is found. The message has the command that tries it again.
    pub async fn run(&self) -> Report {
        let far = far_address();
        if let Some(limitation) = limitation(far) {
            eprintln!("{limitation}");
        }
        let mut cluster = Cluster::start(settings()).await;
        let mut good = Good::start(cluster.broker.address(), cluster.nameserver.address(), self.seed).await;
        let attack = Arc::new(Attack {
            seed: self.seed,
            only: self.only.clone(),
            broker: cluster.broker.address(),
            far,
            nameserver: cluster.nameserver.address(),
            common: Arc::new(Common::default()),
            ring: Ring::default(),
            next: AtomicU64::new(self.from),
        });
        let _again = Again {
            campaign: self.clone(),
            attack: Arc::clone(&attack),
            logs: [
                ("broker", cluster.broker.process().log_file().to_owned()),
                ("nameserver", cluster.nameserver.process().log_file().to_owned()),
            ],
        };
        let mut restarts = 0;
        while attack.next.load(Ordering::Acquire) < self.from + self.requests {
            let begin = attack.next.load(Ordering::Acquire);
            let end = (begin + WINDOW).min(self.from + self.requests);
            let is_last = end == self.from + self.requests;
            let is_kill = restarts % 2 == 1 && !is_last;
            let result = self.window(&mut cluster, &attack, &mut good, end, is_kill, is_last).await;
            restarts += 1;
            if let Err(found) = result {
                panic!("{found}\nin the window from request {begin}");
            }
        }
        cluster.broker.process().terminate();
        let status = cluster.broker.process().wait(STOPPING).await;
        assert!(status.success(), "the broker ended with {status} after SIGTERM");
        assert!(!cluster.broker.process().log().contains("panicked"), "a panic of the broker at its end");
        check_folder(&cluster);
        let counts = attack.common.counts.lock().clone();
        let (steps, refused, slowest) = good.figures();
        Report { counts, acknowledged: good.acknowledged(), steps, refused, slowest, restarts }
    }

    /// One window: attack and good client side by side, then a restart, then the checks.
    async fn window(
        &self,
        cluster: &mut Cluster,
        attack: &Arc<Attack>,
        good: &mut Good,
        end: u64,
        is_kill: bool,
        is_last: bool,
    ) -> Result<(), String> {
        let strict = (is_last && self.strict).then_some(HELD);
        let (steps, mut due) = mpsc::channel(STEPS_BEHIND);
        // The broker is killed while requests are on their way.
        let kill_at = (end - 1).saturating_sub(Dice::of_step(self.seed, end).below(60) as u64);
        let living = async move {
            while due.recv().await.is_some() {
                if is_kill && attack.next.load(Ordering::Acquire) > kill_at {
                    attack.common.is_over.store(true, Ordering::Release);
                    due.close();
                    good.before_restart(true);
                    // A request of the good client at this moment is answered, or its outcome is unknown.
                    let (_, ()) = tokio::join!(good.step(), async { cluster.broker.kill() });
                    break;
                }
                if let Err(trouble) = good.step().await {
                    due.close();
                    return (cluster, good, Err(format!("the good client: {trouble}")));
                }
            }
            (cluster, good, Ok(()))
        };
        let ((cluster, good, living), ()) = tokio::join!(living, attack.window(end, strict, steps));
        Self::judge(cluster, attack, is_kill)?;
        living?;
        let begun = clock::monotonic();
        if !is_kill {
            good.before_restart(false);
            cluster.broker.process().terminate();
            let stopping = cluster.broker.process();
            while stopping.ended().is_none() {
                if since(begun) > STOPPING {
                    return Err(format!("the broker does not stop within {STOPPING:?} after SIGTERM"));
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            if let Some(status) = cluster.broker.process().ended().filter(|status| !status.success()) {
                return Err(format!("the broker ended with {status} after SIGTERM"));
            }
        } else if cluster.broker.process().ended().is_none() {
            good.before_restart(true);
            cluster.broker.kill();
        }
        if is_kill {
            // The changes that it had answered must be on its disk, too.
            cluster.nameserver.crash().await;
        }
        cluster.broker.start_again_with_kept_settings().await;
        attack.common.is_over.store(false, Ordering::Release);
        attack.next.store(end, Ordering::Release);
        Self::judge(cluster, attack, false)?;
        cluster.until_registered().await;
        good.after_restart(is_last).await.map_err(|trouble| format!("the good client after a restart: {trouble}"))
    }

    /// The verdict by the processes' logs and the attackers' findings.
    fn judge(cluster: &mut Cluster, attack: &Attack, is_killed: bool) -> Result<(), String> {
        let mut found: Vec<String> = attack.common.findings.lock().drain(..).collect();
        found.truncate(5);
        for (name, process, is_killed) in
            [("broker", cluster.broker.process(), is_killed), ("nameserver", cluster.nameserver.process(), false)]
        {
            let log = process.log();
            for (sign, trouble) in [("panicked", "a panic"), (STORE_STOPPED, "the end of all writes")] {
                if let Some(line) = log.lines().find(|line| line.contains(sign)) {
                    let after: Vec<&str> = log.lines().skip_while(|other| *other != line).take(4).collect();
                    found.insert(0, format!("{trouble} of the {name}: {}", after.join(" | ")));
                }
            }
            if let Some(status) = process.ended()
                && !(is_killed && status.signal() == Some(KILLED))
            {
                found.insert(0, format!("the {name} has ended: {status}"));
            }
        }
        if found.is_empty() { Ok(()) } else { Err(found.join("\n")) }
    }
}

/// Says how to try it again if anything fails, from wherever.
struct Again {
    campaign: Campaign,
    attack: Arc<Attack>,
    logs: [(&'static str, PathBuf); 2],
}

impl Drop for Again {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            return;
        }
        let Campaign { seed, from, only, command, strict, requests } = &self.campaign;
        let logs = self.logs.clone().map(|(name, path)| (name, std::fs::read(path).unwrap_or_default()));
        let dump = self.attack.ring.dump(&format!("escrowmq-hostile-{seed}.txt"), &logs);
        let only = if only.is_all() { String::new() } else { format!("ESCROWMQ_HOSTILE_ONLY={only} ") };
        let done = self.attack.next.load(Ordering::Acquire).saturating_sub(*from).max(1);
        let window = from + (done - 1) / WINDOW * WINDOW;
        // Every second window ends with a kill, but never the last one.
        let windows = done.div_ceil(WINDOW);
        let done = if windows.is_multiple_of(2) { ((windows + 1) * WINDOW).min(*requests) } else { done };
        // With no time to go on, held requests are waited for and one seed is tried.
        let strict = if *strict { "ESCROWMQ_HOSTILE_SECONDS=0 " } else { "" };
        eprintln!(
            "the last requests and the logs: {}\n\
             again: ESCROWMQ_HOSTILE_SEED={seed} ESCROWMQ_HOSTILE_FROM={from} ESCROWMQ_HOSTILE_REQUESTS={done} {strict}{only}{command}\n\
             (ESCROWMQ_HOSTILE_FROM={window} tries the last window alone, ESCROWMQ_HOSTILE_ONLY=10,37 some codes, -25 all but one)",
            dump.display(),
        );
    }
}

/// Lets `escrowmq fsck` look at the folder of the stopped broker.
fn check_folder(cluster: &Cluster) {
    let checked = Command::new(binary("escrowmq")).arg("fsck").arg("--deep").arg(cluster.broker.data_folder()).output();
    let checked = checked.expect("escrowmq fsck runs");
    let (out, err) = (String::from_utf8_lossy(&checked.stdout), String::from_utf8_lossy(&checked.stderr));
    assert!(checked.status.success(), "escrowmq fsck: {}\n{out}{err}", checked.status);
}

impl Report {
    /// One line per code: how it was answered.
    pub fn table(&self) -> String {
        let mut text = String::new();
        let mut seen = BTreeSet::new();
        for generator in generators() {
            if !seen.insert((generator.target, generator.code)) {
                continue;
            }
            let name =
                if generator.code == UNKNOWN_CODE { "(unknown)" } else { request::name(generator.code).unwrap_or("?") };
            let sum = |of: &BTreeMap<_, usize>| {
                of.iter().filter(|((_, code), _)| *code == generator.code).map(|(_, count)| count).sum::<usize>()
            };
            let mut answers = BTreeMap::<i32, usize>::new();
            for ((_, code), counts) in &self.counts.answers {
                if *code == generator.code {
                    for (answer, count) in counts {
                        *answers.entry(*answer).or_default() += count;
                    }
                }
            }
            let answers = answers.iter().map(|(code, count)| format!("{code}:{count}")).collect::<Vec<_>>().join(" ");
            let _ = writeln!(text, "{:>8} {name:<44} {:>6} sent  {answers}", generator.code, sum(&self.counts.sent));
        }
        text
    }

    /// Fails where requests do not come as far as they should: then their generator is not what it says. For whole
    /// campaigns: all codes, and enough requests that each comes often.
    ///
    /// # Panics
    ///
    /// For a generator without one understood request among at least eight, and for a code of [`succeeding`] without a
    /// success.
    pub fn demand_depth(&self) {
        let missed = self.misunderstood();
        assert!(missed.is_empty(), "valid requests that nobody took for valid: {missed:?}");
        let refused = self.never_succeeded();
        assert!(refused.is_empty(), "codes whose requests never succeed any more: {refused:?}");
    }

    /// Codes that should have succeeded, with the answers that they got instead.
    fn never_succeeded(&self) -> Vec<(&'static str, BTreeMap<i32, usize>)> {
        let answers = |key| self.counts.answers.get(&key).cloned().unwrap_or_default();
        let all = succeeding().map(|key| (request::name(key.1).unwrap_or("?"), answers(key)));
        all.filter(|(_, answers)| !answers.contains_key(&response::SUCCESS)).collect()
    }

    /// Codes whose valid requests were never answered as such, with the answers that they got.
    fn misunderstood(&self) -> Vec<(i32, BTreeMap<i32, usize>)> {
        let mut missed = Vec::new();
        for generator in generators().filter(|generator| !generator.accepts.is_empty()) {
            let key = (generator.target, generator.code);
            let Some(answers) = self.counts.valid.get(&key) else { continue };
            let understood: usize = generator.accepts.iter().filter_map(|code| answers.get(code)).sum();
            if understood == 0 && answers.values().sum::<usize>() >= 8 {
                missed.push((generator.code, answers.clone()));
            }
        }
        missed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One in which each code that must succeed got this answer.
    fn report(answer: i32) -> Report {
        let answers = succeeding().map(|key| (key, BTreeMap::from([(answer, 1)]))).collect();
        let counts = Counts { answers, ..Counts::default() };
        Report { counts, acknowledged: 0, steps: 0, refused: 0, slowest: Duration::ZERO, restarts: 0 }
    }

    #[test]
    fn a_code_that_never_succeeds_is_found_out() {
        report(response::SUCCESS).demand_depth();
        assert_eq!(report(response::SYSTEM_ERROR).never_succeeded().len(), succeeding().count());
        for (target, code) in succeeding() {
            let mut report = report(response::SUCCESS);
            let refused = BTreeMap::from([(response::INVALID_PARAMETER, 100)]);
            report.counts.answers.insert((target, code), refused.clone());
            assert_eq!(report.never_succeeded(), [(request::name(code).unwrap(), refused)]);
            report.counts.answers.remove(&(target, code));
            assert_eq!(report.never_succeeded().len(), 1, "not even sent: {code}");
        }
    }

    #[test]
    fn a_machine_without_another_address_says_so() {
        assert_eq!(limitation(Some(Ipv4Addr::new(192, 0, 2, 7))), None);
        assert!(limitation(None).is_some_and(|line| line.starts_with("LIMITED:") && !line.contains('\n')));
    }
}
