//! Three folders, and processes that crash between any two steps of a founding while folders are wiped. At no time do two folders
//! hold logs of different foundings; and undisturbed the group is founded.

use std::collections::BTreeMap;

use rand::rngs::SmallRng;
use rand::{RngExt as _, SeedableRng as _};

use super::deciding::{member, seat, seats, status};
use crate::group::founding::{Answered, Next, decide, promise};
use crate::group::identity::MemberFile;
use crate::group::question::Founding;
use crate::group::search::must_search;

struct Folder {
    file: MemberFile,
    /// The founding that its log is of.
    log: Option<u64>,
    /// What its process does: a founding, and whose promises it has.
    attempt: Option<(Founding, Vec<u64>)>,
}

struct World {
    folders: Vec<Folder>,
    next: u64,
    /// Members of each founding that began.
    begun: BTreeMap<u64, Vec<u64>>,
}

impl World {
    fn new() -> Self {
        let folders = (0..3).map(|number| Folder { file: member(number, 10 + number), log: None, attempt: None });
        Self { folders: folders.collect(), next: 100, begun: BTreeMap::new() }
    }

    fn draw(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    /// The process at a seat makes one step.
    fn step(&mut self, at: usize) {
        let folder = &self.folders[at];
        if !must_search(&folder.file, folder.log.is_some()) {
            self.replicate(at);
            return;
        }
        match self.folders[at].attempt.take() {
            None => self.begin(at),
            Some((founding, promised)) => self.go_on(at, founding, promised),
        }
    }

    fn begin(&mut self, at: usize) {
        let others = (0..3).filter(|other| *other != at).map(|other| &self.folders[other]);
        let answered: Answered =
            others.map(|folder| (folder.file.seat.clone(), Ok(status(&folder.file, folder.log.is_some())))).collect();
        if let Next::Found(members) = decide(&self.folders[at].file, &seat(at as u64), &seats(), &answered) {
            let incarnation = self.draw();
            let founding = Founding { incarnation, founder: self.folders[at].file.node, members };
            self.folders[at].attempt = Some((founding, Vec::new()));
        }
    }

    fn go_on(&mut self, at: usize, founding: Founding, mut promised: Vec<u64>) {
        let missing = (0..3).find(|other| *other != at && !promised.contains(&self.folders[*other].file.node));
        if promised.len() < 2 {
            let Some(other) = missing else { return };
            let folder = &mut self.folders[other];
            if let Ok(file) = promise(&folder.file, folder.log.is_some(), &founding) {
                promised.push(file.node);
                folder.file = file;
                self.folders[at].attempt = Some((founding, promised));
            }
            return;
        }
        let folder = &mut self.folders[at];
        if folder.file.incarnation == Some(founding.incarnation) {
            folder.log = folder.file.incarnation;
            self.begun.insert(founding.incarnation, founding.members.into_keys().collect());
        } else {
            // On disk before the log begins; a crash may come between.
            folder.file.incarnation = Some(founding.incarnation);
            folder.file.founder = Some(founding.founder);
            folder.attempt = Some((founding, promised));
        }
    }

    /// A member with a log gives it to another one of its founding.
    fn replicate(&mut self, at: usize) {
        let Some(incarnation) = self.folders[at].log else { return };
        let members = self.begun[&incarnation].clone();
        for folder in &mut self.folders {
            let is_bound = !must_search(&folder.file, folder.log.is_some());
            if is_bound && folder.file.incarnation == Some(incarnation) && members.contains(&folder.file.node) {
                folder.log = Some(incarnation);
            }
        }
    }

    fn wipe(&mut self, at: usize) {
        let node = self.draw();
        self.folders[at] = Folder { file: member(at as u64, node), log: None, attempt: None };
    }

    fn check(&self, seed: u64) {
        let mut logs: Vec<u64> = self.folders.iter().filter_map(|folder| folder.log).collect();
        logs.dedup();
        assert!(logs.len() < 2, "seed {seed}: two groups {logs:?}");
    }
}

#[test]
fn no_crash_and_no_wiped_folder_founds_a_second_group() {
    let (mut founded, mut wiped_after) = (0, 0);
    for seed in 0..20_000 {
        let mut random = SmallRng::seed_from_u64(seed);
        let mut world = World::new();
        for _ in 0..40 {
            let at = random.random_range(0..3);
            match random.random_range(0..20) {
                0 => {
                    wiped_after += u32::from(world.folders[at].log.is_some());
                    world.wipe(at);
                }
                1..=3 => world.folders[at].attempt = None,
                _ => world.step(at),
            }
            world.check(seed);
        }
        founded += u32::from(world.folders.iter().any(|folder| folder.log.is_some()));
    }
    assert!(founded > 5_000 && wiped_after > 2_000, "the world is too quiet: {founded}, {wiped_after}");
}

#[test]
fn a_founder_that_crashes_at_any_step_founds_in_the_end() {
    for crashes_before in 0..6 {
        for wiped in [None, Some(1)] {
            let mut world = World::new();
            for _ in 0..crashes_before {
                world.step(0);
            }
            world.folders[0].attempt = None;
            let has_begun = world.folders[0].log.is_some();
            if let Some(at) = wiped {
                world.wipe(at);
            }
            for _ in 0..10 {
                world.step(0);
            }
            let logs: Vec<_> = world.folders.iter().map(|folder| folder.log.is_some()).collect();
            // One that was wiped when the group had begun is another member, and joins.
            assert_eq!(logs, [true, wiped.is_none() || !has_begun, true], "{crashes_before} {wiped:?}");
        }
    }
}
