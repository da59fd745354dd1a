//! Whole members over loopback: log, Raft and connections, without the side of clients.

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use escrowmq_common::clock::Clock;
use futures_util::future::try_join_all;
use tempfile::TempDir;

use crate::config::BrokerConfig;
use crate::group::{Group, OpenError, Role, identity, open};
use crate::limits::MEMBER;
use crate::log::LogSettings;
use crate::metrics::Waiting;
use crate::peer::{Lane, Phase};
use crate::shard::{Admission, Command, Outcome};
use crate::storage::{Storage, StorageSettings};
use crate::terms::{FEATURE_LEVEL, FIRST_LEVEL, TopicSettings, encode_cold};
use crate::tests::support::{settings, three_seats, until};

const SECRET: &str = "a secret of sixteen bytes or more";

/// A group of three seats, of which some run.
pub(super) struct Bench {
    pub(super) folder: TempDir,
    pub(super) peers: String,
    pub(super) running: [Option<Running>; 3],
}

pub(super) struct Running {
    pub(super) storage: Storage,
    pub(super) group: Group,
}

impl Bench {
    pub(super) fn new() -> Self {
        let bench = Self { folder: tempfile::tempdir().unwrap(), peers: three_seats(), running: [None, None, None] };
        bench.write_secret("secret", SECRET);
        bench
    }

    fn write_secret(&self, name: &str, secret: &str) {
        let path = self.folder.path().join(name);
        std::fs::write(&path, secret).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    }

    pub(super) fn data(&self, at: usize) -> PathBuf {
        self.folder.path().join(format!("n{at}"))
    }

    pub(super) fn config(&self, at: usize, secret: &str) -> BrokerConfig {
        let config = BrokerConfig {
            replication_peers: self.peers.parse().unwrap(),
            replication_self: format!("n{at}"),
            group_secret_file: Some(self.folder.path().join(secret)),
            ..settings(&self.data(at))
        };
        config.validate().unwrap();
        config
    }

    pub(super) async fn open(&self, at: usize, secret: &str) -> Result<Running, OpenError> {
        open_at(&self.config(at, secret), &self.data(at)).await
    }

    pub(super) async fn start(&mut self, seats: &[usize]) {
        // The others wait for one that cannot start.
        let opened = try_join_all(seats.iter().map(|at| self.open(*at, "secret"))).await.unwrap();
        for (at, opened) in seats.iter().zip(opened) {
            self.running[*at] = Some(opened);
        }
    }

    pub(super) async fn stop(&mut self, at: usize) {
        let Running { storage, group } = self.running[at].take().unwrap();
        storage.close().await.unwrap();
        group.close().await;
    }

    pub(super) fn at(&self, at: usize) -> &Running {
        self.running[at].as_ref().unwrap()
    }

    pub(super) fn alive(&self) -> impl Iterator<Item = (usize, &Running)> {
        self.running.iter().enumerate().filter_map(|(at, one)| one.as_ref().map(|one| (at, one)))
    }

    /// The seat of the leader that all who run agree on.
    pub(super) async fn leader(&self) -> usize {
        let leading = || self.alive().find(|(_, one)| one.storage.leadership().borrow().led().is_some());
        let is_known = || {
            let Some((_, leader)) = leading() else { return false };
            self.alive().all(|(_, one)| one.group.leader().is_some_and(|known| known.node == leader.group.node()))
        };
        until("one leader, known to all", async || is_known()).await;
        leading().unwrap().0
    }

    /// A command is applied on all that run.
    pub(super) async fn apply(&self, topic: &str) {
        let value = encode_cold(&TopicSettings::new(topic, 1));
        until("the command is taken", async || {
            let leader = self.leader().await;
            let proposed = self.at(leader).storage.shard.propose(&Command::PutTopic(&value), Admission::Normal).await;
            matches!(proposed, Ok(Outcome::Done))
        })
        .await;
        let has = |one: &Running| one.storage.shard.topics().get(topic).is_some();
        until("it is applied on all", async || self.alive().all(|(_, one)| has(one))).await;
    }

    /// Waits until those that run have refused a member that is being opened.
    async fn until_refused(&self, opening: impl Future<Output = Result<Running, OpenError>>) {
        let peers = |one: &Running| one.group.inner.several.as_ref().unwrap().peers.counts().refused;
        let refused = || self.alive().map(|(_, one)| peers(one)).sum::<u64>();
        let before = refused();
        tokio::select! {
            opened = opening => panic!("it is in: {:?}", opened.map(drop)),
            () = until("it is refused", async || refused() > before) => {}
        }
    }

    /// Ids of the voters, as a member sees them.
    pub(super) fn voters(&self, at: usize) -> BTreeSet<u64> {
        let members = self.at(at).group.status().members;
        members.into_iter().filter(|member| member.role != Role::Learner).map(|member| member.node).collect()
    }
}

pub(super) async fn open_at(config: &BrokerConfig, data: &Path) -> Result<Running, OpenError> {
    open_speaking(config, data, FEATURE_LEVEL).await
}

/// Opens a member of a version that speaks this level at most.
async fn open_speaking(config: &BrokerConfig, data: &Path, feature_level: u32) -> Result<Running, OpenError> {
    std::fs::create_dir_all(data).unwrap();
    let log = LogSettings { segment_bytes: 64 << 10, reserve_bytes: 16 << 10, feature_level, ..LogSettings::default() };
    let (storage, group) =
        open(config, StorageSettings { dir: data.to_owned(), log }, Clock::system(), &Waiting::default()).await?;
    Ok(Running { storage, group })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_group_founds_itself_survives_its_leader_and_takes_a_wiped_member_back() {
    let mut bench = Bench::new();
    bench.start(&[0, 1, 2]).await;
    bench.apply("first").await;
    let ids: Vec<u64> = bench.alive().map(|(_, one)| one.group.node()).collect();
    let incarnation = bench.at(0).group.status().incarnation;
    assert!(incarnation.is_some() && bench.alive().all(|(_, one)| one.group.status().incarnation == incarnation));
    assert_eq!(bench.voters(2), ids.iter().copied().collect());
    // Those who never stood for election have connections for votes as well: the first election finds them open.
    let ways = |one: &Running| {
        let links = one.group.inner.several.as_ref().expect("it has others").peers.links();
        links.iter().filter(|link| link.lane == Lane::Pulse && link.phase == Phase::Connected).count()
    };
    until("all have connections for votes", async || bench.alive().all(|(_, one)| ways(one) == 2)).await;

    let leader = bench.leader().await;
    bench.stop(leader).await;
    bench.apply("without").await;
    bench.start(&[leader]).await;
    bench.apply("with").await;
    assert!(bench.at(leader).storage.shard.topics().get("without").is_some());
    assert_eq!(bench.at(leader).group.node(), ids[leader], "a folder keeps its id");

    let wiped = (bench.leader().await + 1) % 3;
    bench.stop(wiped).await;
    std::fs::remove_dir_all(bench.data(wiped)).unwrap();
    bench.start(&[wiped]).await;
    let new = bench.at(wiped).group.node();
    let expected: BTreeSet<u64> = ids.iter().map(|id| if *id == ids[wiped] { new } else { *id }).collect();
    assert!(!ids.contains(&new));
    until("it votes in the place of its old id", async || (0..3).all(|at| bench.voters(at) == expected)).await;
    until("its old id is gone", async || (0..3).all(|at| bench.at(at).group.status().members.len() == 3)).await;
    assert_eq!(bench.at(wiped).group.status().incarnation, incarnation);
    // Its vote is needed now.
    let other = (0..3).find(|at| *at != wiped).unwrap();
    bench.stop(other).await;
    bench.apply("by the new one").await;
    for at in (0..3).filter(|at| *at != other) {
        bench.stop(at).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strangers_and_folders_of_others_stay_out() {
    let mut bench = Bench::new();
    bench.write_secret("other", "another secret of sixteen bytes");
    bench.start(&[0, 1, 2]).await;
    bench.apply("first").await;
    let all = bench.voters(0);
    let victim = (bench.leader().await + 1) % 3;
    bench.stop(victim).await;
    let kept = bench.folder.path().join("kept");
    std::fs::rename(bench.data(victim), &kept).unwrap();
    bench.until_refused(bench.open(victim, "other")).await;
    assert_eq!(bench.voters((victim + 1) % 3), all, "nobody has joined");

    let wrong = bench.config((victim + 1) % 3, "secret");
    let error = open_at(&wrong, &kept).await.map(drop).unwrap_err();
    assert!(matches!(error, OpenError::OtherMember { .. }), "{error}");
    let alone = settings(&kept);
    let error = open_at(&alone, &kept).await.map(drop).unwrap_err();
    assert!(matches!(error, OpenError::NotAlone { .. }), "{error}");
    std::fs::remove_file(kept.join(MEMBER)).unwrap();
    let error = open_at(&bench.config(victim, "secret"), &kept).await.map(drop).unwrap_err();
    assert!(matches!(error, OpenError::IdentityLost { .. }), "{error}");
    for at in (0..3).filter(|at| *at != victim) {
        bench.stop(at).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_speaks_less_than_the_group_is_refused_and_the_level_is_written_down() {
    let mut bench = Bench::new();
    bench.start(&[0, 1, 2]).await;
    let written = |at: usize| identity::MemberFile::read(&bench.data(at)).unwrap().unwrap().feature_level;
    until("all have written down the level", async || (0..3).all(|at| written(at) == FEATURE_LEVEL)).await;
    let victim = (bench.leader().await + 1) % 3;
    bench.stop(victim).await;
    // Its own folder says so; one with an empty folder is told by the others.
    let (config, data) = (bench.config(victim, "secret"), bench.data(victim));
    let error = open_speaking(&config, &data, FIRST_LEVEL).await.map(drop).unwrap_err();
    assert!(matches!(error, OpenError::TooNew { level: FEATURE_LEVEL, speaks: FIRST_LEVEL, .. }), "{error}");
    bench.until_refused(open_speaking(&config, &bench.folder.path().join("empty"), FIRST_LEVEL)).await;
    bench.start(&[victim]).await;
    bench.apply("by all again").await;
    for at in 0..3 {
        bench.stop(at).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_was_alone_becomes_the_first_of_three() {
    let mut bench = Bench::new();
    let data = bench.data(0);
    let alone = open_at(&settings(&data), &data).await.unwrap();
    assert!(alone.group.is_alone() && alone.group.leader().is_some_and(|leader| leader.node == 1));
    let value = encode_cold(&TopicSettings::new("old", 1));
    alone.storage.shard.propose(&Command::PutTopic(&value), Admission::Normal).await.unwrap();
    alone.storage.close().await.unwrap();
    bench.start(&[0]).await;
    assert_eq!(bench.leader().await, 0);
    bench.start(&[1, 2]).await;
    until("all vote", async || (0..3).all(|at| bench.voters(at).len() == 3)).await;
    bench.apply("new").await;
    assert!(bench.alive().all(|(_, one)| one.storage.shard.topics().get("old").is_some()));
    let handed = bench.at(bench.leader().await).group.hand_over(Some("n2")).await.unwrap();
    until("n2 leads", async || bench.leader().await == 2).await;
    assert_eq!(handed.node, bench.at(2).group.node());
    for at in 0..3 {
        bench.stop(at).await;
    }
}
