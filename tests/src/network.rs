//! A network between the members of a group that tests can cut, slow down and make lossy, each way for itself.
//!
//! ```text
//!  member 0 --dials--> gate of member 1 --dials--> member 1's own port
//!                        |  a way 0 -> 1: frames that member 0 sends
//!                        `  a way 1 -> 0: the answers
//! ```
//!
//! All members know each other by the gates' addresses, so a gate has to learn who dials: the test brings a function
//! that reads it from the first frame of a connection. What the frames mean is nothing to a gate; it knows their length
//! alone, and the line that goes before the frames of a client whose requests a member passes on.
//!
//! Promises: frames are lost whole; those of one connection that arrive keep their order; a change of a way takes
//! effect at once, also for frames that are being delayed; frames that wait are bounded, and then their sender waits.
//!
//! Leaves to others: connections between clients and brokers ([`crate::proxy`]), and networks below TCP. A frame that
//! is lost here is lost while the connection goes on, which is harder on the members than what TCP does.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use escrowmq_common::clock;
use escrowmq_common::task::{Shutdown, Tasks};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};

use crate::dice::Dice;
use crate::proxy::whole;
use crate::wait::since;

/// Frames of one way of a connection that wait for their time. More make the sender wait.
const WAITING_MAX: usize = 1_024;

/// Room for one read, in bytes.
const READ: usize = 1 << 16;

/// All frames, in thousandths.
const ALL: u32 = 1_000;

/// The shortest time after which TCP sends a segment again; it doubles each time.
const RETRANSMISSION: Duration = Duration::from_millis(200);
/// And the longest one here.
const RETRANSMISSIONS_MAX: Duration = Duration::from_secs(2);

/// Tells from the first frame of a connection, its length in front, which member dialed it. `None` closes the
/// connection.
pub type Who = fn(&[u8]) -> Option<usize>;

/// What happens to frames on their way from one member to another.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Rule {
    /// Frames of a thousand that are lost.
    lost: u32,
    /// How long each one takes.
    delay: Duration,
    /// Frames of a thousand that TCP has to send again, each time.
    late: u32,
}

/// A way from one member to another, over all connections between them.
#[derive(Debug)]
struct Way {
    rule: watch::Sender<Rule>,
    passed: AtomicU64,
    lost: AtomicU64,
    delayed: AtomicU64,
}

/// Frames of a way, by their fate so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// They were handed on.
    pub passed: u64,
    /// They were lost.
    pub lost: u64,
    /// They had to wait, whatever became of them then.
    pub delayed: u64,
}

#[derive(Debug)]
struct Ways {
    members: usize,
    seed: u64,
    connections: AtomicU64,
    pairs: Vec<Way>,
}

impl Ways {
    fn way(&self, from: usize, to: usize) -> &Way {
        assert!(from < self.members && to < self.members, "no way from {from} to {to}");
        &self.pairs[from * self.members + to]
    }
}

/// The gates of all members. Ends when it is dropped.
#[derive(Debug)]
pub struct Network {
    ways: Arc<Ways>,
    addresses: Vec<String>,
    end: Shutdown,
}

impl Network {
    /// A gate before each of these members, which are addresses that need not listen yet. Nothing is lost or delayed at
    /// first; `seed` decides which frames are lost later.
    pub async fn before(members: &[String], who: Who, seed: u64) -> Network {
        let way = || Way {
            rule: watch::Sender::new(Rule::default()),
            passed: AtomicU64::new(0),
            lost: AtomicU64::new(0),
            delayed: AtomicU64::new(0),
        };
        let pairs = (0..members.len() * members.len()).map(|_| way()).collect();
        let ways = Arc::new(Ways { members: members.len(), seed, connections: AtomicU64::new(0), pairs });
        let (tasks, end) = (Tasks::new(), Shutdown::new());
        let mut addresses = Vec::new();
        for (member, own) in members.iter().enumerate() {
            let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
            addresses.push(listener.local_addr().expect("it is bound").to_string());
            let gate = Gate { member, own: own.clone(), who, ways: Arc::clone(&ways), end: end.clone() };
            let all = tasks.clone();
            let ended = end.clone();
            tasks.spawn("gate", async move {
                tokio::select! {
                    () = ended.cancelled() => {}
                    () = gate.accept(&listener, &all) => {}
                }
            });
        }
        Network { ways, addresses, end }
    }

    /// The address of a member for all others.
    pub fn address(&self, member: usize) -> String {
        self.addresses[member].clone()
    }

    /// From now on each frame from one member to another is lost.
    pub fn cut(&self, from: usize, to: usize) {
        self.lose(from, to, ALL);
    }

    /// From now on so many frames of a thousand from one member to another are lost.
    pub fn lose(&self, from: usize, to: usize, of_a_thousand: u32) {
        self.ways.way(from, to).rule.send_modify(|rule| rule.lost = of_a_thousand);
    }

    /// From now on each frame from one member to another takes this long.
    pub fn delay(&self, from: usize, to: usize, by: Duration) {
        self.ways.way(from, to).rule.send_modify(|rule| rule.delay = by);
    }

    /// From now on so many segments of a thousand from one member to another are lost below TCP, which sends them again: their frames
    /// are late, and so are those behind them on the same connection.
    pub fn lose_segments(&self, from: usize, to: usize, of_a_thousand: u32) {
        self.ways.way(from, to).rule.send_modify(|rule| rule.late = of_a_thousand);
    }

    /// Cuts both ways between the members of `side` and all others.
    pub fn part(&self, side: &[usize]) {
        for (from, to) in self.pairs() {
            if side.contains(&from) != side.contains(&to) {
                self.cut(from, to);
            }
        }
    }

    /// Nothing is lost or delayed any more. Frames that were being delayed go on at once.
    pub fn heal(&self) {
        for (from, to) in self.pairs() {
            self.ways.way(from, to).rule.send_replace(Rule::default());
        }
    }

    /// The frames of a way so far.
    pub fn counts(&self, from: usize, to: usize) -> Counts {
        let way = self.ways.way(from, to);
        let [passed, lost, delayed] = [&way.passed, &way.lost, &way.delayed].map(|count| count.load(Ordering::Relaxed));
        Counts { passed, lost, delayed }
    }

    fn pairs(&self) -> impl Iterator<Item = (usize, usize)> {
        let members = self.ways.members;
        (0..members).flat_map(move |from| (0..members).map(move |to| (from, to))).filter(|(from, to)| from != to)
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        self.end.cancel();
    }
}

/// Listens in the place of a member.
struct Gate {
    member: usize,
    own: String,
    who: Who,
    ways: Arc<Ways>,
    end: Shutdown,
}

impl Gate {
    async fn accept(&self, listener: &TcpListener, tasks: &Tasks) {
        while let Ok((dialer, _)) = listener.accept().await {
            let connection =
                Connected { member: self.member, own: self.own.clone(), who: self.who, ways: Arc::clone(&self.ways) };
            let ended = self.end.clone();
            tasks.spawn("gated connection", async move {
                // Whatever ends one way of a connection ends the connection.
                tokio::select! {
                    () = ended.cancelled() => {}
                    _ = connection.run(dialer) => {}
                }
            });
        }
    }
}

struct Connected {
    member: usize,
    own: String,
    who: Who,
    ways: Arc<Ways>,
}

impl Connected {
    async fn run(self, mut dialer: TcpStream) -> io::Result<()> {
        let mut buffer = BytesMut::new();
        let first = loop {
            if let Some(first) = whole(&mut buffer) {
                break first;
            }
            buffer.reserve(READ);
            if dialer.read_buf(&mut buffer).await? == 0 {
                return Ok(());
            }
        };
        let Some(peer) = (self.who)(&first).filter(|peer| *peer < self.ways.members) else { return Ok(()) };
        // A member that is down refuses the connection, for all that the dialer can see.
        let member = TcpStream::connect(&self.own).await?;
        dialer.set_nodelay(true)?;
        member.set_nodelay(true)?;
        let (from_dialer, to_dialer) = dialer.into_split();
        let (from_member, to_member) = member.into_split();
        let number = self.ways.connections.fetch_add(1, Ordering::Relaxed);
        let there = Carrier::new(&self.ways, peer, self.member, number * 2);
        let back = Carrier::new(&self.ways, self.member, peer, number * 2 + 1);
        tokio::select! {
            result = there.carry(Some(first), buffer, from_dialer, to_member) => result,
            result = back.carry(None, BytesMut::new(), from_member, to_dialer) => result,
        }
    }
}

/// A frame on its way.
struct Waiting {
    /// When it came.
    came: Duration,
    /// How long TCP has to send it again.
    late: Duration,
    frame: Bytes,
}

/// Carries the frames of one connection one way.
struct Carrier {
    ways: Arc<Ways>,
    from: usize,
    to: usize,
    dice: Dice,
}

impl Carrier {
    fn new(ways: &Arc<Ways>, from: usize, to: usize, number: u64) -> Carrier {
        Carrier { ways: Arc::clone(ways), from, to, dice: Dice::of_step(ways.seed, number) }
    }

    /// Ends with the connection.
    async fn carry(
        mut self,
        first: Option<Bytes>,
        buffer: BytesMut,
        from: OwnedReadHalf,
        to: OwnedWriteHalf,
    ) -> io::Result<()> {
        let (frames, waiting) = mpsc::channel(WAITING_MAX);
        let ways = Arc::clone(&self.ways);
        let way = ways.way(self.from, self.to);
        tokio::select! {
            result = self.collect(way, first, buffer, from, frames) => result,
            result = hand_on(way, waiting, to) => result,
        }
    }

    /// Whether something happens to this frame that happens to so many of a thousand.
    fn falls_on(&mut self, of_a_thousand: u32) -> bool {
        (self.dice.below(ALL as usize) as u32) < of_a_thousand
    }

    /// Reads frames, and notes when each one came.
    async fn collect(
        &mut self,
        way: &Way,
        first: Option<Bytes>,
        mut buffer: BytesMut,
        mut from: OwnedReadHalf,
        frames: mpsc::Sender<Waiting>,
    ) -> io::Result<()> {
        let mut next = first;
        loop {
            while let Some(frame) = next.take().or_else(|| whole(&mut buffer)) {
                let rule = *way.rule.borrow();
                if self.falls_on(rule.lost) {
                    way.lost.fetch_add(1, Ordering::Relaxed);
                    continue;
                }
                let (mut late, mut again) = (Duration::ZERO, RETRANSMISSION);
                while self.falls_on(rule.late) && again <= RETRANSMISSIONS_MAX {
                    late += again;
                    again *= 2;
                }
                if frames.send(Waiting { came: clock::monotonic(), late, frame }).await.is_err() {
                    return Ok(());
                }
            }
            buffer.reserve(READ);
            if from.read_buf(&mut buffer).await? == 0 {
                return Ok(());
            }
        }
    }
}

/// Writes each frame when its time has come.
async fn hand_on(way: &Way, mut frames: mpsc::Receiver<Waiting>, mut to: OwnedWriteHalf) -> io::Result<()> {
    let mut rule = way.rule.subscribe();
    while let Some(Waiting { came, late, frame }) = frames.recv().await {
        let mut has_waited = false;
        loop {
            let now = *rule.borrow_and_update();
            if now.lost >= ALL {
                break;
            }
            let late = if now.late > 0 { late } else { Duration::ZERO };
            let left = (now.delay + late).saturating_sub(since(came));
            if left.is_zero() {
                break;
            }
            if !std::mem::replace(&mut has_waited, true) {
                way.delayed.fetch_add(1, Ordering::Relaxed);
            }
            tokio::select! {
                () = tokio::time::sleep(left) => {}
                // The sender lives as long as the way.
                _ = rule.changed() => {}
            }
        }
        // What was on its way when the way was cut is lost as well.
        if rule.borrow().lost >= ALL {
            way.lost.fetch_add(1, Ordering::Relaxed);
            continue;
        }
        to.write_all(&frame).await?;
        way.passed.fetch_add(1, Ordering::Relaxed);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wait::until;

    /// The dialer's first frame is its number.
    fn who(frame: &[u8]) -> Option<usize> {
        frame.get(4).map(|byte| usize::from(*byte))
    }

    fn frame(body: &[u8]) -> Vec<u8> {
        [&(body.len() as u32).to_be_bytes(), body].concat()
    }

    /// A member that sends back each frame.
    async fn echo(tasks: &Tasks) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let all = tasks.clone();
        tasks.spawn("echo", async move {
            while let Ok((stream, _)) = listener.accept().await {
                all.spawn("echoed connection", async move {
                    let (mut from, mut to) = stream.into_split();
                    let _ = tokio::io::copy(&mut from, &mut to).await;
                });
            }
        });
        address
    }

    async fn three() -> Network {
        let tasks = Tasks::new();
        let members = [echo(&tasks).await, echo(&tasks).await, echo(&tasks).await];
        Network::before(&members, who, 1).await
    }

    struct Dialed(TcpStream);

    impl Dialed {
        async fn from(member: u8, to: usize, network: &Network) -> Dialed {
            let mut dialed = Dialed(TcpStream::connect(network.address(to)).await.unwrap());
            dialed.send(&[member]).await;
            dialed
        }

        async fn send(&mut self, body: &[u8]) {
            self.0.write_all(&frame(body)).await.unwrap();
        }

        /// The next frame that comes back.
        async fn next(&mut self) -> Vec<u8> {
            until("a frame", async || {
                let mut length = [0; 4];
                self.0.read_exact(&mut length).await.ok()?;
                let mut body = vec![0; u32::from_be_bytes(length) as usize];
                self.0.read_exact(&mut body).await.ok()?;
                Some(body)
            })
            .await
        }
    }

    #[tokio::test]
    async fn frames_pass_both_ways_in_order() {
        let network = three().await;
        let mut dialed = Dialed::from(0, 1, &network).await;
        // More than one read, and more than one frame in a read.
        for number in 0..200_u8 {
            dialed.send(&vec![number; 1 + usize::from(number) * 50]).await;
        }
        assert_eq!(dialed.next().await, [0]);
        for number in 0..200_u8 {
            assert_eq!(dialed.next().await, vec![number; 1 + usize::from(number) * 50]);
        }
        until("the count", async || (network.counts(1, 0).passed == 201).then_some(())).await;
        assert_eq!(network.counts(0, 1), Counts { passed: 201, lost: 0, delayed: 0 });
        assert_eq!(network.counts(0, 2), Counts::default());
    }

    #[tokio::test]
    async fn a_way_is_cut_alone() {
        let network = three().await;
        let mut dialed = Dialed::from(0, 1, &network).await;
        let mut other = Dialed::from(2, 1, &network).await;
        assert_eq!((dialed.next().await, other.next().await), (vec![0], vec![2]));
        // The answers are lost, the questions are not.
        network.cut(1, 0);
        dialed.send(b"lost answer").await;
        until("the loss", async || (network.counts(1, 0).lost == 1).then_some(())).await;
        assert_eq!(network.counts(0, 1), Counts { passed: 2, lost: 0, delayed: 0 });
        // Now the questions, but not those of another member.
        network.heal();
        network.cut(0, 1);
        dialed.send(b"lost question").await;
        until("the loss", async || (network.counts(0, 1).lost == 1).then_some(())).await;
        other.send(b"through").await;
        assert_eq!(other.next().await, b"through");
        network.heal();
        dialed.send(b"after all").await;
        assert_eq!(dialed.next().await, b"after all");
    }

    #[tokio::test]
    async fn a_parted_member_hears_nobody_and_the_others_hear_each_other() {
        let network = three().await;
        network.part(&[2]);
        let mut inside = Dialed::from(0, 1, &network).await;
        assert_eq!(inside.next().await, [0]);
        let mut to_it = Dialed::from(0, 2, &network).await;
        let _from_it = Dialed::from(2, 0, &network).await;
        let losses = async || (network.counts(0, 2).lost == 1 && network.counts(2, 0).lost == 1).then_some(());
        until("both losses", losses).await;
        assert_eq!([network.counts(0, 2).passed, network.counts(2, 0).passed], [0, 0]);
        network.heal();
        to_it.send(b"again").await;
        assert_eq!(to_it.next().await, b"again");
    }

    #[tokio::test]
    async fn a_delay_takes_its_time_and_ends_with_the_rule() {
        let network = three().await;
        let mut dialed = Dialed::from(0, 1, &network).await;
        assert_eq!(dialed.next().await, [0]);
        let delay = Duration::from_millis(20);
        network.delay(0, 1, delay);
        let sent = clock::monotonic();
        dialed.send(b"slow").await;
        assert_eq!(dialed.next().await, b"slow");
        assert!(since(sent) >= delay);
        // Longer than any test waits.
        network.delay(0, 1, Duration::from_secs(3_600));
        dialed.send(b"one").await;
        dialed.send(b"two").await;
        // The slow one before, and the first of these: the second one waits behind it.
        until("the wait", async || (network.counts(0, 1).delayed == 2).then_some(())).await;
        network.heal();
        assert_eq!((dialed.next().await, dialed.next().await), (b"one".to_vec(), b"two".to_vec()));
    }

    #[tokio::test]
    async fn lost_segments_make_frames_late_and_lose_none() {
        let network = three().await;
        let mut dialed = Dialed::from(0, 1, &network).await;
        assert_eq!(dialed.next().await, [0]);
        network.lose_segments(0, 1, 500);
        for number in 0..10_u8 {
            dialed.send(&[number]).await;
        }
        let began = clock::monotonic();
        for number in 0..10_u8 {
            assert_eq!(dialed.next().await, [number]);
        }
        assert!(since(began) >= RETRANSMISSION / 2, "one of ten was sent again");
        assert!(network.counts(0, 1).delayed >= 1);
        assert_eq!(network.counts(0, 1).lost, 0);
    }

    #[tokio::test]
    async fn frames_that_wait_when_a_way_is_cut_are_lost() {
        let network = three().await;
        let mut dialed = Dialed::from(0, 1, &network).await;
        assert_eq!(dialed.next().await, [0]);
        network.delay(0, 1, Duration::from_secs(3_600));
        dialed.send(b"on its way").await;
        until("the wait", async || (network.counts(0, 1).delayed == 1).then_some(())).await;
        network.cut(0, 1);
        until("the loss", async || (network.counts(0, 1).lost == 1).then_some(())).await;
    }

    #[tokio::test]
    async fn a_part_of_the_frames_is_lost_and_whole_ones_arrive() {
        let network = three().await;
        let mut dialed = Dialed::from(0, 1, &network).await;
        assert_eq!(dialed.next().await, [0]);
        network.lose(0, 1, 300);
        for number in 0..200_u8 {
            dialed.send(&[number; 100]).await;
        }
        let all_seen = async || {
            let counts = network.counts(0, 1);
            (counts.passed + counts.lost == 201).then_some(counts)
        };
        let counts = until("all frames", all_seen).await;
        assert!((30..100).contains(&counts.lost), "{counts:?}");
        let mut last = None;
        for _ in 1..counts.passed {
            let next = dialed.next().await;
            assert!(next.len() == 100 && next.iter().all(|byte| *byte == next[0]) && Some(next[0]) > last);
            last = Some(next[0]);
        }
    }

    #[tokio::test]
    async fn a_stranger_and_a_member_that_is_down_are_cut_off() {
        let network = three().await;
        let mut stranger = Dialed::from(7, 1, &network).await;
        let mut rest = Vec::new();
        until("the end", async || stranger.0.read_to_end(&mut rest).await.ok()).await;
        assert!(rest.is_empty());
        let down = Network::before(&["127.0.0.1:1".to_owned()], who, 1).await;
        let mut dialed = Dialed::from(0, 0, &down).await;
        until("the end", async || dialed.0.read_to_end(&mut rest).await.ok()).await;
        assert!(rest.is_empty());
    }
}
