//! Openraft's own suite for storages, on our log and our view of a state machine.
//!
//! Each of its tests runs by itself, on a fresh log. The adapter gives entries that the suite makes up a place in the log, which
//! entries have that are read from it; nothing else is changed.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use futures_util::{Stream, StreamExt as _};
use openraft::StorageError;
use openraft::storage::{EntryResponder, RaftStateMachine};
use openraft::testing::log::{StoreBuilder, Suite};
use openraft::type_config::alias::{SnapshotMetaOf, SnapshotOf};

use super::super::entry::Place;
use super::super::log_store::LogStore;
use super::super::state::{Snapshots, State};
use super::super::{LogId, StoredMembership, TypeConfig};
use super::stand::{Machine, Stand};
use crate::executor::Blocking;
use crate::terms::Position;

type Store = LogStore<Machine>;

/// Gives entries that the suite makes up a place.
struct Placed(State<Machine>);

impl RaftStateMachine<TypeConfig> for Placed {
    type SnapshotData = ();
    type SnapshotBuilder = Snapshots<Machine>;

    async fn applied_state(&mut self) -> io::Result<(Option<LogId>, StoredMembership)> {
        self.0.applied_state().await
    }

    async fn apply<S>(&mut self, entries: S) -> io::Result<()>
    where
        S: Stream<Item = io::Result<EntryResponder<TypeConfig>>> + Unpin + Send,
    {
        let place = Place { position: Position::ZERO, payload: Position::ZERO, end: Position::ZERO, crc: 0 };
        self.0
            .apply(entries.map(move |next| {
                next.map(|(mut entry, responder)| {
                    entry.place.get_or_insert(place);
                    (entry, responder)
                })
            }))
            .await
    }

    async fn get_snapshot_builder(&mut self) -> Snapshots<Machine> {
        self.0.get_snapshot_builder().await
    }

    async fn install_snapshot(&mut self, meta: &SnapshotMetaOf<TypeConfig>, (): ()) -> io::Result<()> {
        self.0.install_snapshot(meta, ()).await
    }

    async fn get_current_snapshot(&mut self) -> io::Result<Option<SnapshotOf<TypeConfig, ()>>> {
        self.0.get_current_snapshot().await
    }
}

/// Names the suite's type; the tests make their storages themselves.
struct Builder;

impl StoreBuilder<TypeConfig, Store, Placed> for Builder {
    async fn build(&self) -> Result<((), Store, Placed), StorageError<TypeConfig>> {
        let (store, state) = storage(&Stand::new());
        Ok(((), store, state))
    }
}

type Tests = Suite<TypeConfig, Store, Placed, Builder, ()>;
type Running = Pin<Box<dyn Future<Output = io::Result<()>> + Send>>;
type Test = (&'static str, fn(Store, Placed) -> Running);

/// The tests of these names.
macro_rules! tests {
    ($($name:ident)+) => {
        [$((stringify!($name), (|store, state| Box::pin(Tests::$name(store, state))) as fn(Store, Placed) -> Running)),+]
    };
}

fn storage(stand: &Stand) -> (Store, Placed) {
    let machine = Arc::<Machine>::default();
    let (log, executor, latch) = (stand.log.clone(), stand.executor.clone(), stand.latch.clone());
    let has_peers = Arc::new(AtomicBool::new(true));
    let state = State::new(Arc::clone(&machine), log.clone(), latch.clone());
    let store = LogStore::new(log, executor, Blocking::inline(), machine, latch, has_peers);
    (store, Placed(state))
}

/// Why a test fails; `None` if it passes.
fn failure(test: fn(Store, Placed) -> Running) -> Option<String> {
    let stand = Stand::new();
    let (store, state) = storage(&stand);
    let running = test(store, state);
    // The executor catches a panic, and the log has its text.
    match catch_unwind(AssertUnwindSafe(|| stand.drive(running))) {
        Ok(Some(Ok(()))) => None,
        Ok(Some(Err(error))) => Some(error.to_string()),
        Ok(None) | Err(_) => Some("it panicked, or waits for ever".to_owned()),
    }
}

#[test]
fn our_storage_passes_what_it_is_meant_to() {
    let tests = tests!(
        last_membership_in_log_initial last_membership_in_log last_membership_in_log_multi_step get_membership_initial
        get_membership_from_log_and_empty_sm get_membership_from_empty_log_and_sm
        get_membership_from_log_le_sm_last_applied get_membership_from_log_gt_sm_last_applied_1
        get_membership_from_log_gt_sm_last_applied_2 get_initial_state_without_init
        get_initial_state_membership_from_empty_log_and_sm get_initial_state_membership_from_sm_inlog_is_smaller
        get_initial_state_with_state get_initial_state_last_log_gt_sm get_initial_state_last_log_lt_sm
        get_initial_state_inverted_log_order get_initial_state_conflict_at_same_index save_vote get_log_entries
        limited_get_log_entries leader_bounded_stream log_reader_reads_new_entries initial_logs last_id_in_log
        last_applied_state delete_logs_after_5 delete_logs_after_0 delete_logs_after_none snapshot_meta
        snapshot_meta_optional apply_single apply_multiple
    );
    let failed: Vec<_> = tests.iter().filter_map(|(name, test)| Some((name, failure(*test)?))).collect();
    assert!(failed.is_empty(), "{failed:?}");
    println!("{} tests of openraft's suite pass", tests.len());
}

/// Old entries go by whole files, later, and the newest file stays. These tests want each entry gone at once, or let entries go
/// that the log never had. What openraft needs is less: that the log says what is gone, and has the rest.
#[test]
fn entries_go_by_whole_files() {
    left_out(&tests!(
        get_initial_state_membership_from_log_insm_is_smaller get_initial_state_log_ids
        get_initial_state_re_apply_committed try_get_log_entry get_log_state get_log_id purge_logs_upto_0
        purge_logs_upto_5 purge_logs_upto_20 append_to_log
    ));
}

/// Our log is stricter. It cuts nothing behind its end, as that would be an error of the caller. And a stream of entries that
/// ends before the range asked for is an error: the entries are committed, so they are lost.
#[test]
fn our_log_is_stricter() {
    left_out(&tests!(delete_logs_after_11 entries_stream));
}

/// Those that start to pass belong above. `transfer_snapshot` is left out without a try, as it takes a builder: a state comes
/// from another member beside Raft, and not through `install_snapshot`.
fn left_out(tests: &[Test]) {
    for (name, test) in tests {
        assert!(failure(*test).is_some(), "{name} passes");
    }
}
