//! A group of three brokers that are one to their clients, with two nameservers, as processes.
//!
//! Members are numbered from 0; member 1 has the seat `n1`. What a member says of itself is read from its page of
//! metrics: `escrowmq_group_role{role="leader"}`, `escrowmq_group_term` and `escrowmq_group_applied_index`.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use escrowmq_client::{Client, ClientBuilder};
use escrowmq_common::frame::Frame;
use futures_util::future::join_all;
use tempfile::TempDir;

use crate::door::{DOORS, Door};
use crate::load::Target;
use crate::metrics::Page;
use crate::network::Network;
use crate::processes::{Process, data_folder, free_port, is_serving, spawn_broker};
use crate::small_disk::SmallDisk;
use crate::stored::Stored;
use crate::wait::{DEADLINE, until};
use crate::wire::Wire;
use crate::{Nameserver, Settings};

/// Members of a group.
pub const MEMBERS: usize = 3;
const NAMESERVERS: usize = 2;

/// Bytes of a greeting between members before its names.
const GREETING_FIXED_BYTES: usize = 64;

/// A secret long enough for any rule.
const SECRET: &str = "a secret of the tests, which nobody else knows";

/// What a member is to its group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// It decides, and serves clients.
    Leader,
    /// It follows a leader, or waits for one.
    Follower,
    /// It follows without a vote.
    Learner,
    /// It asks for votes.
    Candidate,
}

/// What a member says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Its role.
    pub role: Role,
    /// The term that it knows.
    pub term: u64,
    /// The index of the entry that it applied last.
    pub applied: u64,
}

impl Standing {
    /// Reads it from a page of metrics; `None` if the page does not say all of it, or names not exactly one role.
    pub fn read(page: &Page) -> Option<Standing> {
        let mut roles = page.by_label("group_role", "role").filter(|(_, value)| *value == 1);
        let role = match roles.next()?.0 {
            "leader" => Role::Leader,
            "follower" => Role::Follower,
            "learner" => Role::Learner,
            "candidate" => Role::Candidate,
            _ => return None,
        };
        if roles.next().is_some() {
            return None;
        }
        Some(Standing { role, term: page.value("group_term")?, applied: page.value("group_applied_index")? })
    }
}

/// The leader among what members say. One whose term another member has left behind is none any more.
fn leader_of(standings: &[Option<Standing>]) -> Option<usize> {
    let newest = standings.iter().flatten().map(|standing| standing.term).max()?;
    let leads = |standing: &Standing| standing.role == Role::Leader && standing.term == newest;
    standings.iter().position(|standing| standing.as_ref().is_some_and(leads))
}

/// How a group is to be started.
#[derive(Debug)]
pub struct Plan {
    settings: Settings,
    /// Nameservers that others have started.
    names: Option<Vec<String>>,
    /// The seed of a network.
    gates: Option<u64>,
    has_doors: bool,
    disks: Vec<(usize, SmallDisk)>,
}

impl Plan {
    /// All members get these settings, besides those that make them a group. The name of the broker names the group.
    pub fn new(settings: Settings) -> Plan {
        Plan { settings, names: None, gates: None, has_doors: false, disks: Vec::new() }
    }

    /// Makes it a group of the cluster that has these nameservers, instead of two of its own.
    #[must_use]
    pub fn in_cluster(mut self, names: Vec<String>) -> Plan {
        self.names = Some(names);
        self
    }

    /// Puts a [`Network`] between the members, with this seed.
    #[must_use]
    pub fn with_network(mut self, seed: u64) -> Plan {
        self.gates = Some(seed);
        self
    }

    /// Puts a [`Door`] between each member and those of its clients that learn its address from nameservers.
    #[must_use]
    pub fn with_doors(mut self) -> Plan {
        self.settings = self.settings.with("brokerIP1", DOORS);
        self.has_doors = true;
        self
    }

    /// Gives a member this disk.
    #[must_use]
    pub fn with_disk(mut self, member: usize, disk: SmallDisk) -> Plan {
        self.disks.push((member, disk));
        self
    }
}

/// Ports of a member, and where the others find it.
#[derive(Clone, Debug)]
struct Seat {
    clients: u16,
    metrics: u16,
    peers: u16,
    /// Its own port for peers, or the gate before it.
    address: String,
}

impl Seat {
    fn free() -> Seat {
        let peers = free_port();
        Seat { clients: free_port(), metrics: free_port(), peers, address: own(peers) }
    }
}

fn own(port: u16) -> String {
    format!("127.0.0.1:{port}")
}

/// The settings of one member, but for those that every broker here gets.
fn member_settings(all: &Settings, seats: &[Seat], member: usize, secret: &Path, names: &str) -> Settings {
    let peers: Vec<String> = (0..).zip(seats).map(|(number, seat)| format!("n{number}-{}", seat.address)).collect();
    let group = all.get("brokerName").expect("each broker has a name").to_owned();
    all.clone()
        .with("dLegerGroup", group)
        .with("dLegerPeers", peers.join(";"))
        .with("dLegerSelfId", format!("n{member}"))
        .with("groupListenAddress", own(seats[member].peers))
        .with("groupSecretFile", secret.display())
        .with("metricsPort", seats[member].metrics)
        .with("namesrvAddr", names)
}

/// Where a member has its files.
#[derive(Debug)]
enum Home {
    Folder(TempDir),
    Disk(SmallDisk),
}

impl Home {
    fn folder(&self) -> &Path {
        match self {
            Home::Folder(folder) => folder.path(),
            Home::Disk(disk) => disk.folder(),
        }
    }
}

#[derive(Debug)]
struct Member {
    process: Process,
    is_paused: bool,
    settings: Settings,
    seat: Seat,
    home: Home,
}

impl Member {
    fn spawn(settings: Settings, seat: Seat, home: Home) -> Member {
        let process = spawn_broker(&settings, seat.clients, home.folder());
        Member { process, is_paused: false, settings, seat, home }
    }

    async fn standing(&self) -> Option<Standing> {
        if self.is_paused { None } else { Standing::read(&Page::of(self.seat.metrics).await?) }
    }

    fn assert_down(&mut self) {
        assert!(self.process.ended().is_some(), "the member still runs");
    }
}

/// Three brokers and two nameservers. Everything of it ends when this is dropped.
#[derive(Debug)]
pub struct Group {
    members: Vec<Member>,
    nameservers: Vec<Nameserver>,
    network: Option<Network>,
    doors: Vec<Door>,
    _secret: TempDir,
}

impl Group {
    /// Starts all of it with empty folders, and waits until each member answers its clients. Whether there is a leader
    /// then is another matter: [`until_leader`](Group::until_leader).
    pub async fn start(plan: Plan) -> Group {
        let mut group = Self::spawn(plan, false).await;
        for member in 0..MEMBERS {
            group.until_serving(member).await;
        }
        group
    }

    /// Like [`start`](Self::start), but member 0 has been a broker alone before, and the others are paused: they join when they
    /// are resumed.
    pub async fn start_around_one(plan: Plan) -> Group {
        let mut group = Self::spawn(plan, true).await;
        group.until_serving(0).await;
        group
    }

    async fn spawn(plan: Plan, around_one: bool) -> Group {
        let mut nameservers = Vec::new();
        let names = if let Some(names) = plan.names {
            names
        } else {
            for _ in 0..NAMESERVERS {
                nameservers.push(Nameserver::start().await);
            }
            nameservers.iter().map(Nameserver::address).collect()
        };
        let mut seats: Vec<Seat> = (0..MEMBERS).map(|_| Seat::free()).collect();
        let mut network = None;
        if let Some(seed) = plan.gates {
            let own: Vec<String> = seats.iter().map(|seat| own(seat.peers)).collect();
            let gates = Network::before(&own, dialer, seed).await;
            for (member, seat) in seats.iter_mut().enumerate() {
                seat.address = gates.address(member);
            }
            network = Some(gates);
        }
        let mut doors = Vec::new();
        for seat in seats.iter().take(if plan.has_doors { MEMBERS } else { 0 }) {
            doors.push(Door::before(seat.clients).await);
        }
        let secret = tempfile::tempdir().expect("a temporary folder");
        let secret_file = write_secret(secret.path()).expect("the secret can be written");
        let mut disks = plan.disks;
        let mut members = Vec::new();
        for member in 0..MEMBERS {
            let disk = disks.iter().position(|(owner, _)| *owner == member).map(|place| disks.swap_remove(place).1);
            let folder = || Home::Folder(tempfile::tempdir().expect("a temporary folder"));
            let home = disk.map_or_else(folder, Home::Disk);
            let settings = member_settings(&plan.settings, &seats, member, &secret_file, &names.join(";"));
            if around_one && member == 0 {
                let alone = plan.settings.clone().with("namesrvAddr", names.join(";"));
                let mut process = spawn_broker(&alone, seats[member].clients, home.folder());
                assert!(is_serving(&mut process, seats[member].clients).await, "no start alone:\n{}", process.log());
                process.terminate();
                process.wait(DEADLINE).await;
            }
            members.push(Member::spawn(settings, seats[member].clone(), home));
        }
        let mut group = Group { members, nameservers, network, doors, _secret: secret };
        for member in 1..if around_one { MEMBERS } else { 0 } {
            group.pause(member);
        }
        group
    }

    /// Waits until a member answers its clients.
    pub async fn until_serving(&mut self, member: usize) {
        let Member { process, seat, .. } = &mut self.members[member];
        let is_serving = is_serving(process, seat.clients).await;
        assert!(is_serving, "member {member} ended right after its start:\n{}", self.members[member].process.log());
    }

    /// What each member says of itself; `None` for one that does not answer.
    pub async fn standings(&self) -> Vec<Option<Standing>> {
        join_all(self.members.iter().map(Member::standing)).await
    }

    /// The leader now, if there is one.
    pub async fn leader(&self) -> Option<usize> {
        leader_of(&self.standings().await)
    }

    /// Waits for a leader.
    pub async fn until_leader(&self) -> usize {
        until("a leader of the group", async || self.leader().await).await
    }

    /// Waits for a leader that is not `old`.
    pub async fn until_other_leader(&self, old: usize) -> usize {
        until("another leader of the group", async || self.leader().await.filter(|leader| *leader != old)).await
    }

    /// Waits until all members follow one leader and have applied the same: the index of that entry. Something must keep clients
    /// away meanwhile.
    pub async fn until_equal(&self) -> u64 {
        until("equal members", async || {
            let standings: Vec<Standing> = self.standings().await.into_iter().collect::<Option<_>>()?;
            let is_equal = |one: &Standing| (one.term, one.applied) == (standings[0].term, standings[0].applied);
            let leaders = standings.iter().filter(|one| one.role == Role::Leader).count();
            let followers = standings.iter().filter(|one| one.role == Role::Follower).count();
            let is_one = leaders == 1 && leaders + followers == MEMBERS && standings.iter().all(is_equal);
            is_one.then_some(standings[0].applied)
        })
        .await
    }

    /// Stops all members in good order and compares what they have on disk. fsck finds nothing in any folder, each log has at least
    /// the entries up to `applied`, and the logs are equal byte by byte as far as two of them go.
    pub async fn assert_stored_alike(&mut self, applied: u64) {
        for member in &self.members {
            member.process.terminate();
        }
        for member in &mut self.members {
            member.process.wait(DEADLINE).await;
        }
        let read = |member: usize| {
            let stored = Stored::read(&self.data_folder(member));
            assert!(stored.last_index >= applied, "member {member} ends at {}, not {applied}", stored.last_index);
            stored
        };
        let [first, second, third] = [0, 1, 2].map(read);
        let pairs = [(&first, &second), (&first, &third), (&second, &third)];
        let compared = pairs.map(|(one, other)| one.assert_same(other));
        eprintln!("the logs of all members are equal, pair by pair in {compared:?} bytes");
    }

    /// `kill -9`, also of a member that is paused.
    pub fn kill(&mut self, member: usize) {
        self.members[member].process.kill();
        self.members[member].is_paused = false;
    }

    /// SIGSTOP: the member does nothing, and its connections stay.
    pub fn pause(&mut self, member: usize) {
        self.members[member].process.pause();
        self.members[member].is_paused = true;
    }

    /// SIGCONT.
    pub fn resume(&mut self, member: usize) {
        self.members[member].process.resume();
        self.members[member].is_paused = false;
    }

    /// Starts a member whose process has ended, and waits until it answers.
    pub async fn start_again(&mut self, member: usize) {
        self.spawn_again(member);
        self.until_serving(member).await;
    }

    /// Starts a member whose process has ended, and does not wait: it may be that it must not start.
    pub fn spawn_again(&mut self, member: usize) {
        let member = &mut self.members[member];
        member.assert_down();
        member.process = spawn_broker(&member.settings, member.seat.clients, member.home.folder());
    }

    /// Removes everything that a member whose process has ended had on its disk.
    pub fn wipe(&mut self, member: usize) {
        let member = &mut self.members[member];
        member.assert_down();
        empty(&data_folder(member.home.folder())).expect("the data can be removed");
    }

    /// Flips a bit in the log of a member, this many thousandths behind its beginning. Says where.
    pub fn flip_a_bit(&self, member: usize, thousandths: u64) -> (PathBuf, u64) {
        let log = data_folder(self.members[member].home.folder()).join("log");
        flip_a_bit(&log, thousandths).expect("the log can be changed")
    }

    /// The disk that the [`Plan`] gave the member, to be filled and emptied.
    pub fn disk(&self, member: usize) -> &SmallDisk {
        match &self.members[member].home {
            Home::Disk(disk) => disk,
            Home::Folder(_) => panic!("member {member} has no disk of its own"),
        }
    }

    /// The folder of a member's data.
    pub fn data_folder(&self, member: usize) -> PathBuf {
        data_folder(self.members[member].home.folder())
    }

    /// A member's page of metrics, if it answers.
    pub async fn page(&self, member: usize) -> Option<Page> {
        Page::of(self.members[member].seat.metrics).await
    }

    /// Seat and address of a member, as in `dLegerPeers`.
    pub fn seat(&self, member: usize) -> String {
        format!("n{member}-{}", self.members[member].seat.address)
    }

    /// A member's process.
    pub fn process(&mut self, member: usize) -> &mut Process {
        &mut self.members[member].process
    }

    /// Where a member listens for clients.
    pub fn address(&self, member: usize) -> String {
        own(self.members[member].seat.clients)
    }

    /// The port of a member's metrics.
    pub fn metrics_port(&self, member: usize) -> u16 {
        self.members[member].seat.metrics
    }

    /// Single frames to a member.
    pub fn wire(&self, member: usize) -> Wire {
        Wire::to(self.address(member))
    }

    /// The group as a load knows it.
    pub fn target(&self) -> Target {
        let name = self.members[0].settings.get("brokerName").expect("each broker has a name").to_owned();
        let members = (0..MEMBERS).map(|member| (self.address(member), self.members[member].seat.metrics)).collect();
        Target { name, members }
    }

    /// The members that do not lead, in turn behind `leader`.
    pub fn followers(&self, leader: usize) -> [usize; MEMBERS - 1] {
        [(leader + 1) % MEMBERS, (leader + 2) % MEMBERS]
    }

    /// The network between the members, if the [`Plan`] put one there.
    pub fn network(&self) -> &Network {
        self.network.as_ref().expect("the plan put a network between the members")
    }

    /// The door before a member, if the [`Plan`] put one there.
    pub fn door(&self, member: usize) -> &Door {
        &self.doors[member]
    }

    /// The nameservers.
    pub fn nameservers(&mut self) -> &mut [Nameserver] {
        &mut self.nameservers
    }

    /// A client that knows all nameservers.
    pub fn client_builder(&self) -> ClientBuilder {
        let names: Vec<String> = self.nameservers.iter().map(Nameserver::address).collect();
        Client::builder(names.join(";"))
    }
}

/// The number of the member whose greeting this is: its seat stands behind the fields of fixed length and the name of its group
/// (`broker/src/peer/greeting.rs`).
fn dialer(frame: &[u8]) -> Option<usize> {
    let frame = Frame::decode(Bytes::copy_from_slice(frame.get(4..)?)).ok()?;
    let mut rest = frame.body.get(GREETING_FIXED_BYTES..)?;
    let mut name = || {
        let (length, behind) = rest.split_first_chunk::<2>()?;
        let (name, behind) = behind.split_at_checked(usize::from(u16::from_be_bytes(*length)))?;
        rest = behind;
        std::str::from_utf8(name).ok()
    };
    let _group = name()?;
    name()?.strip_prefix('n')?.parse().ok()
}

/// A file that nobody else may read.
fn write_secret(folder: &Path) -> io::Result<PathBuf> {
    let path = folder.join("secret");
    let mut file = File::options().write(true).create_new(true).mode(0o600).open(&path)?;
    file.write_all(SECRET.as_bytes())?;
    Ok(path)
}

/// Removes what is in a folder. The folder stays, as a file system may be mounted there.
fn empty(folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() { fs::remove_dir_all(entry.path())? } else { fs::remove_file(entry.path())? }
    }
    Ok(())
}

fn flip_a_bit(log: &Path, thousandths: u64) -> io::Result<(PathBuf, u64)> {
    let mut files = Vec::new();
    for entry in fs::read_dir(log)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "log") {
            // Space that was set aside is zero: what is flipped there damages nothing.
            let bytes = fs::read(&path)?;
            let used = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last as u64 + 1);
            files.push((path, used));
        }
    }
    files.sort();
    let all: u64 = files.iter().map(|(_, used)| used).sum();
    let mut at = (all * thousandths / 1_000).min(all.saturating_sub(1));
    for (path, used) in files {
        if at < used {
            let file = File::options().read(true).write(true).open(&path)?;
            let mut byte = [0];
            file.read_exact_at(&mut byte, at)?;
            file.write_all_at(&[byte[0] ^ 0x10], at)?;
            return Ok((path, at));
        }
        at -= used;
    }
    Err(io::Error::new(io::ErrorKind::NotFound, "the log is empty"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn members_know_each_other_and_themselves() {
        let mut seats: Vec<Seat> = (0..MEMBERS).map(|_| Seat::free()).collect();
        seats[1].address = "127.0.0.1:1111".to_owned();
        let all = Settings::default().with("brokerName", "broker-x");
        let settings: Vec<Settings> = (0..MEMBERS)
            .map(|member| member_settings(&all, &seats, member, Path::new("/folder/secret"), "127.0.0.1:1;127.0.0.1:2"))
            .collect();
        let peers = format!("n0-127.0.0.1:{};n1-127.0.0.1:1111;n2-127.0.0.1:{}", seats[0].peers, seats[2].peers);
        for (member, settings) in settings.iter().enumerate() {
            assert_eq!(settings.get("dLegerGroup"), Some("broker-x"));
            assert_eq!(settings.get("dLegerPeers"), Some(peers.as_str()));
            assert_eq!(settings.get("dLegerSelfId"), Some(format!("n{member}").as_str()));
            assert_eq!(settings.get("groupListenAddress"), Some(own(seats[member].peers).as_str()));
            assert_eq!(settings.get("metricsPort"), Some(seats[member].metrics.to_string().as_str()));
            assert_eq!(settings.get("groupSecretFile"), Some("/folder/secret"));
            assert_eq!(settings.get("namesrvAddr"), Some("127.0.0.1:1;127.0.0.1:2"));
        }
        let mut ports: Vec<u16> =
            seats.iter().flat_map(|seat| [seat.clients, seat.clients - 2, seat.metrics, seat.peers]).collect();
        ports.sort_unstable();
        ports.dedup();
        assert_eq!(ports.len(), 4 * MEMBERS);
    }

    fn page(role: &str, term: u64, applied: u64) -> Page {
        let roles = ["leader", "follower", "learner", "candidate"];
        let roles = roles.map(|each| format!("escrowmq_group_role{{role=\"{each}\"}} {}\n", u8::from(each == role)));
        let rest = format!("escrowmq_group_term {term}\nescrowmq_group_applied_index {applied}\n");
        Page::from_text(&(roles.concat() + &rest))
    }

    #[test]
    fn a_page_says_where_a_member_stands() {
        let standing = |role| Some(Standing { role, term: 7, applied: 42 });
        assert_eq!(Standing::read(&page("leader", 7, 42)), standing(Role::Leader));
        assert_eq!(Standing::read(&page("follower", 7, 42)), standing(Role::Follower));
        assert_eq!(Standing::read(&page("learner", 7, 42)), standing(Role::Learner));
        assert_eq!(Standing::read(&page("candidate", 7, 42)), standing(Role::Candidate));
        assert_eq!(Standing::read(&page("nothing known", 7, 42)), None);
        assert_eq!(Standing::read(&Page::from_text("escrowmq_group_role{role=\"leader\"} 1\n")), None);
        let two = "escrowmq_group_role{role=\"leader\"} 1\nescrowmq_group_role{role=\"learner\"} 1\n\
                   escrowmq_group_term 1\nescrowmq_group_applied_index 1\n";
        assert_eq!(Standing::read(&Page::from_text(two)), None);
    }

    #[test]
    fn a_leader_of_an_older_term_is_none() {
        let standings = |all: [(&str, u64); 3]| all.map(|(role, term)| Standing::read(&page(role, term, 1)));
        assert_eq!(leader_of(&standings([("follower", 3), ("leader", 3), ("follower", 3)])), Some(1));
        assert_eq!(leader_of(&standings([("leader", 4), ("leader", 3), ("follower", 3)])), Some(0));
        assert_eq!(leader_of(&standings([("candidate", 4), ("leader", 3), ("follower", 3)])), None);
        assert_eq!(leader_of(&standings([("", 4), ("leader", 3), ("", 3)])), Some(1));
        assert_eq!(leader_of(&[None, None, None]), None);
    }

    #[test]
    fn a_bit_is_flipped_where_something_was_written() {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str| folder.path().join(name);
        fs::write(file("0.log"), [1; 100]).unwrap();
        fs::write(file("1.log"), [vec![1; 100], vec![0; 5_000]].concat()).unwrap();
        fs::write(file("vote"), [1; 100]).unwrap();
        for (thousandths, name, at) in [(0, "0.log", 0), (500, "1.log", 0), (750, "1.log", 50), (1_000, "1.log", 99)] {
            assert_eq!(flip_a_bit(folder.path(), thousandths).unwrap(), (file(name), at));
            assert_eq!(fs::read(file(name)).unwrap()[at as usize], 0x11);
            // The same again restores it.
            flip_a_bit(folder.path(), thousandths).unwrap();
            assert_eq!(fs::read(file(name)).unwrap()[at as usize], 1);
        }
        empty(folder.path()).unwrap();
        assert!(folder.path().is_dir() && flip_a_bit(folder.path(), 0).is_err());
    }

    #[test]
    fn a_greeting_says_who_dials() {
        let names = [&[0, 8][..], b"broker-a", &[0, 2], b"n2", &[0, 3], b"1.0"].concat();
        let framed = |body: Vec<u8>| {
            let mut bytes = bytes::BytesMut::new();
            Frame::request(1).with_body(body).encode(&mut bytes);
            dialer(&bytes)
        };
        assert_eq!(framed([&[7; GREETING_FIXED_BYTES][..], &names].concat()), Some(2));
        assert_eq!(framed([&[7; GREETING_FIXED_BYTES][..], &names[..11]].concat()), None);
        assert_eq!(framed(Vec::new()), None);
        assert_eq!(dialer(b"nonsense"), None);
    }

    #[test]
    fn nobody_else_may_read_the_secret() {
        let folder = tempfile::tempdir().unwrap();
        let path = write_secret(folder.path()).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(fs::read_to_string(path).unwrap().len() >= 16);
    }
}
