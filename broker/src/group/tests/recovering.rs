//! A member that goes on when the others are lost for good, and a copy of a member that begins a new group.

use std::path::Path;

use super::whole::{Bench, open_at};
use crate::check::{Folder, Kind, RepairError, RepairOptions};
use crate::group::recover::{RecoverError, Recovery};
use crate::group::{OpenError, identity};
use crate::limits::{MEMBER, RECOVERING};
use crate::storage::make_alone;
use crate::tests::support::{settings, until};

/// All files of a folder.
fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// Three members with a topic, stopped.
async fn stopped() -> Bench {
    let mut bench = Bench::new();
    bench.start(&[0, 1, 2]).await;
    bench.apply("before").await;
    for at in 0..3 {
        bench.stop(at).await;
    }
    bench
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_of_three_goes_on_and_the_old_ones_stay_out_until_they_are_empty() {
    let mut bench = stopped().await;
    let data = bench.data(1);
    let recovery = Recovery::open(&data).unwrap();
    let standing = recovery.standing().clone();
    assert_eq!((standing.seat.as_str(), standing.others.len(), standing.votes), ("n1", 2, true));
    assert!(standing.index.get() > 0 && standing.stamp.get() > 0 && !standing.is_unfinished, "{standing:?}");
    let incarnation = recovery.force().unwrap();
    assert_ne!(Some(incarnation), standing.incarnation);
    assert!(matches!(Recovery::open(&data).map(drop), Err(RecoverError::Sole)), "it is done");

    bench.start(&[1]).await;
    assert_eq!(bench.leader().await, 1);
    assert!(bench.at(1).storage.shard.topics().get("before").is_some(), "what was acknowledged is there");
    assert_eq!(bench.at(1).group.node(), standing.node, "its folder keeps its id");
    bench.apply("alone").await;
    let counts = |bench: &Bench| bench.at(1).group.inner.several.as_ref().unwrap().peers.counts();
    let before = counts(&bench).refused;
    bench.start(&[0]).await;
    until("the old member is refused", async || counts(&bench).refused > before).await;
    assert!(bench.at(0).group.leader().is_none() && bench.voters(1).len() == 1);
    bench.stop(0).await;

    for at in [0, 2] {
        std::fs::remove_dir_all(bench.data(at)).unwrap();
    }
    bench.start(&[0, 2]).await;
    until("all vote", async || (0..3).all(|at| bench.voters(at).len() == 3)).await;
    bench.apply("together").await;
    assert!((0..3).all(|at| bench.at(at).group.status().incarnation == Some(incarnation)));
    assert!((0..3).all(|at| bench.at(at).storage.shard.topics().get("alone").is_some()));
    for at in 0..3 {
        bench.stop(at).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_recovery_that_crashed_at_any_step_is_done_again_and_no_broker_starts_before() {
    let bench = stopped().await;
    for steps in 0..=3 {
        let data = bench.folder.path().join(format!("crashed-{steps}"));
        copy(&bench.data(0), &data);
        let recovery = Recovery::open(&data).unwrap();
        let whole: [fn(&Recovery); 3] = [
            |recovery| recovery.mark().unwrap(),
            |recovery| {
                recovery.renew().unwrap();
            },
            |recovery| recovery.leave().unwrap(),
        ];
        whole.iter().take(steps).for_each(|step| step(&recovery));
        drop(recovery);
        if steps > 0 {
            let error = open_at(&bench.config(0, "secret"), &data).await.map(drop).unwrap_err();
            assert!(matches!(error, OpenError::Recovering { .. }), "{steps}: {error}");
        }
        let again = Recovery::open(&data).unwrap();
        assert_eq!(again.standing().is_unfinished, steps > 0);
        let incarnation = again.force().unwrap();
        let running = open_at(&bench.config(0, "secret"), &data).await.unwrap();
        until("it leads", async || running.storage.leadership().borrow().led().is_some()).await;
        let file = identity::MemberFile::read(&data).unwrap().unwrap();
        assert_eq!((file.incarnation, file.removed.len()), (Some(incarnation), 2), "{steps}");
        assert!(running.storage.shard.topics().get("before").is_some());
        running.storage.close().await.unwrap();
        running.group.close().await;
    }
}

/// The last member that is left has a damaged log: it gives up what is behind the damage, and never votes in its old group again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_member_that_gives_bytes_up_goes_on_in_a_group_of_its_own_alone() {
    let mut bench = Bench::new();
    bench.start(&[0, 1, 2]).await;
    for topic in ["before", "damaged", "behind"] {
        bench.apply(topic).await;
    }
    for at in 0..3 {
        bench.stop(at).await;
    }
    let data = bench.data(1);
    let segment = data.join("log/00000000000000000000.log");
    let mut content = std::fs::read(&segment).unwrap();
    let at = content.windows(7).rposition(|bytes| bytes == b"damaged").unwrap();
    content[at] ^= 1;
    std::fs::write(&segment, content).unwrap();

    let folder = Folder::take(&data).unwrap();
    let report = folder.check(false, &mut |_| ()).unwrap();
    let damage = report.findings.iter().find(|finding| finding.kind == Kind::LogDamaged).unwrap();
    let drop_acknowledged_after = Some((damage.file.clone(), damage.offset.unwrap()));
    let mut options = RepairOptions { drop_acknowledged_after, ..RepairOptions::default() };
    let refused = folder.repair(&report, &options, &mut |_| ()).unwrap_err();
    assert!(matches!(refused, RepairError::OfGroup { .. }), "{refused}");
    options.others_are_lost = true;
    folder.repair(&report, &options, &mut |_| ()).unwrap();
    drop(folder);

    let error = bench.open(1, "secret").await.map(drop).unwrap_err();
    assert!(matches!(error, OpenError::Recovering { .. }), "{error}");
    Recovery::open(&data).unwrap().force().unwrap();
    assert!(!data.join(RECOVERING).exists());
    bench.start(&[1]).await;
    assert_eq!((bench.leader().await, bench.voters(1).len()), (1, 1));
    let has = |topic| bench.at(1).storage.shard.topics().get(topic).is_some();
    assert!(has("before") && !has("behind"));
    bench.stop(1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_a_member_with_others_is_recovered() {
    let bench = Bench::new();
    let data = bench.data(0);
    let alone = open_at(&settings(&data), &data).await.unwrap();
    alone.storage.close().await.unwrap();
    assert!(matches!(Recovery::open(&data).map(drop), Err(RecoverError::NoMember { .. })));
    assert!(matches!(Recovery::open(Path::new("/nowhere")).map(drop), Err(RecoverError::Folder(_))));
}

/// A backup has no identity: it would be the same member twice.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_of_a_member_begins_a_new_group_that_others_join() {
    let mut bench = stopped().await;
    let data = bench.folder.path().join("restored");
    copy(&bench.data(2), &data);
    std::fs::remove_file(data.join(MEMBER)).unwrap();
    // Nobody waits for members that are not there.
    let error = open_at(&settings(&data), &data).await.map(drop).unwrap_err();
    assert!(matches!(error, OpenError::IdentityLost { .. }), "{error}");
    make_alone(&data).unwrap();
    make_alone(&data).unwrap();
    let alone = open_at(&settings(&data), &data).await.unwrap();
    assert!(alone.storage.shard.topics().get("before").is_some());
    alone.storage.close().await.unwrap();

    for at in 0..3 {
        std::fs::remove_dir_all(bench.data(at)).unwrap();
    }
    std::fs::rename(&data, bench.data(2)).unwrap();
    bench.start(&[2]).await;
    assert_eq!(bench.leader().await, 2);
    bench.start(&[0, 1]).await;
    until("all vote", async || (0..3).all(|at| bench.voters(at).len() == 3)).await;
    bench.apply("after").await;
    assert!((0..3).all(|at| bench.at(at).storage.shard.topics().get("before").is_some()));
    for at in 0..3 {
        bench.stop(at).await;
    }
}
