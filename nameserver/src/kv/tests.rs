//! The handle, the writer and the files together.

use std::fs;

use tokio::sync::oneshot;

use super::store::journal_of;
use super::*;

async fn change(kv: &Kv, change: KvChange) -> Result<Old, String> {
    let (sender, receiver) = oneshot::channel();
    kv.change(change, move |outcome| {
        let _ = sender.send(outcome.map_err(ToString::to_string));
    });
    receiver.await.expect("every change is answered")
}

fn put(namespace: &str, key: &str, value: &str) -> KvChange {
    KvChange::Put { namespace: namespace.into(), key: key.into(), value: value.into() }
}

fn delete(namespace: &str, key: &str) -> KvChange {
    KvChange::Delete { namespace: namespace.into(), key: key.into() }
}

struct Running {
    kv: Kv,
    store: Arc<Mutex<Store>>,
    tasks: Tasks,
    shutdown: Shutdown,
}

impl Running {
    fn start(path: &Path) -> Running {
        Running::start_with(path, BYTES_MAX)
    }

    fn start_with(path: &Path, bytes_max: usize) -> Running {
        let (kv, writer) = Kv::open(path, bytes_max).unwrap();
        let store = Arc::clone(&writer.store);
        let (tasks, shutdown) = (Tasks::new(), Shutdown::new());
        tasks.spawn("kv", writer.run(tasks.clone(), shutdown.clone()));
        Running { kv, store, tasks, shutdown }
    }

    async fn stop(self) {
        self.shutdown.cancel();
        self.tasks.join().await;
    }
}

/// The files that a start after `kill -9` at this moment finds: copies of them as they are.
fn crashed(path: &Path) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let copy = folder.path().join(path.file_name().unwrap());
    for (from, to) in [(path.to_owned(), copy.clone()), (journal_of(path), journal_of(&copy))] {
        if from.exists() {
            fs::copy(from, to).unwrap();
        }
    }
    (folder, copy)
}

fn read(path: &Path) -> Kv {
    Kv::open(path, BYTES_MAX).unwrap().0
}

#[tokio::test]
async fn changes_survive_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("deep/er/kvConfig.json");
    let running = Running::start(&path);
    let kv = running.kv.clone();
    assert_eq!(change(&kv, put("N", "k", "v\"1")).await, Ok(None));
    assert_eq!(change(&kv, put("N", "gone", "x")).await, Ok(None));
    assert_eq!(change(&kv, delete("N", "gone")).await, Ok(Some("x".into())));
    assert_eq!(kv.get("N", "k").as_deref(), Some("v\"1"));
    running.stop().await;

    let again = read(&path);
    assert!(*again.tables.read() == *kv.tables.read());
    assert_eq!(again.list("N").unwrap(), r#"{"table":{"k":"v\"1"}}"#);
    let left: Vec<_> = fs::read_dir(path.parent().unwrap()).unwrap().collect();
    assert_eq!(left.len(), 1, "no journal and no temporary file stays");
}

#[tokio::test]
async fn changes_survive_a_crash_after_each_of_them() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("kvConfig.json");
    let running = Running::start(&path);
    for n in 0..20 {
        let key = format!("k{}", n % 7);
        let step = if n % 5 == 4 { delete("N", &key) } else { put("N", &key, &n.to_string()) };
        change(&running.kv, step).await.unwrap();
        let (_folder, copy) = crashed(&path);
        assert!(*read(&copy).tables.read() == *running.kv.tables.read(), "after {n}");
    }
    // And those changes go on from there.
    let (_folder, copy) = crashed(&path);
    let again = Running::start(&copy);
    change(&again.kv, put("N", "later", "v")).await.unwrap();
    let (_folder, copy) = crashed(&copy);
    assert_eq!(read(&copy).get("N", "later").as_deref(), Some("v"));
    assert_eq!(read(&copy).get("N", "k4"), running.kv.get("N", "k4"));
}

#[tokio::test]
async fn a_torn_tail_costs_the_change_that_nobody_was_told_of() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("kvConfig.json");
    let running = Running::start(&path);
    change(&running.kv, put("N", "a", "1")).await.unwrap();
    let before = fs::metadata(journal_of(&path)).unwrap().len();
    change(&running.kv, put("N", "b", "2")).await.unwrap();
    let journal = fs::read(journal_of(&path)).unwrap();
    for cut in before as usize..journal.len() {
        let (_folder, copy) = crashed(&path);
        fs::write(journal_of(&copy), &journal[..cut]).unwrap();
        let again = Running::start(&copy);
        assert_eq!(again.kv.get("N", "a").as_deref(), Some("1"), "{cut}");
        assert_eq!(again.kv.get("N", "b"), None, "{cut}");
        change(&again.kv, put("N", "c", "3")).await.unwrap();
        let (_folder, copy) = crashed(&copy);
        assert_eq!(read(&copy).get("N", "c").as_deref(), Some("3"), "{cut}");
    }
}

#[tokio::test]
async fn damaged_files_are_refused_by_name_and_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("kvConfig.json");
    let refused = |said: &str| {
        let error = Kv::open(&path, BYTES_MAX).unwrap_err();
        assert!(matches!(error, KvError::Corrupt { .. }), "{error}");
        assert!(error.to_string().contains(said), "{error}");
        assert!(!error.is_retryable());
    };
    for text in ["", "{\"configTable\":{\"N\":", "[1]", "{\"configTable\":7}"] {
        fs::write(&path, text).unwrap();
        refused("kvConfig.json is");
        assert_eq!(fs::read_to_string(&path).unwrap(), text);
    }
    fs::remove_file(&path).unwrap();
    for cut in [0, 1, 27] {
        fs::write(journal_of(&path), vec![b'E'; cut]).unwrap();
        refused("kvConfig.json.journal");
    }
    fs::remove_file(journal_of(&path)).unwrap();

    let running = Running::start(&path);
    for key in ["a", "b", "c"] {
        change(&running.kv, put("N", key, "1")).await.unwrap();
    }
    let (_folder, copy) = crashed(&path);
    let mut journal = fs::read(journal_of(&copy)).unwrap();
    journal[45] ^= 1;
    fs::write(journal_of(&copy), &journal).unwrap();
    let error = Kv::open(&copy, BYTES_MAX).unwrap_err().to_string();
    assert!(error.contains("whole ones behind it"), "{error}");
    assert_eq!(fs::read(journal_of(&copy)).unwrap(), journal);
}

#[tokio::test]
async fn a_journal_without_its_file_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("kvConfig.json");
    let running = Running::start(&path);
    change(&running.kv, put("N", "a", "1")).await.unwrap();
    running.store.lock().rewrite(&running.kv.tables.read()).unwrap();
    change(&running.kv, put("N", "b", "2")).await.unwrap();
    let (_folder, copy) = crashed(&path);
    assert_eq!(read(&copy).get("N", "a").as_deref(), Some("1"));
    fs::remove_file(&copy).unwrap();
    let error = Kv::open(&copy, BYTES_MAX).unwrap_err().to_string();
    assert!(error.contains("generation 1"), "{error}");
}

#[tokio::test]
async fn a_crash_between_the_new_file_and_the_new_journal_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("kvConfig.json");
    let running = Running::start(&path);
    change(&running.kv, put("N", "k", "1")).await.unwrap();
    let old_journal = fs::read(journal_of(&path)).unwrap();
    running.store.lock().rewrite(&running.kv.tables.read()).unwrap();
    let (_folder, copy) = crashed(&path);
    fs::write(journal_of(&copy), &old_journal).unwrap();
    let again = Running::start(&copy);
    assert!(*again.kv.tables.read() == *running.kv.tables.read());
    change(&again.kv, put("N", "k", "2")).await.unwrap();
    let (_folder, copy) = crashed(&copy);
    assert_eq!(read(&copy).get("N", "k").as_deref(), Some("2"));
}

#[tokio::test]
async fn the_journal_is_written_into_the_file_when_it_has_grown() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("kvConfig.json");
    let running = Running::start(&path);
    let value = "v".repeat(VALUE_BYTES_MAX);
    let mut largest = 0;
    for n in 0..40 {
        change(&running.kv, put("N", &format!("k{}", n % 2), &value)).await.unwrap();
        largest = largest.max(fs::metadata(journal_of(&path)).unwrap().len());
    }
    let bound = 2 * running.kv.tables.read().bytes() as u64 + 3 * VALUE_BYTES_MAX as u64;
    assert!(largest <= bound, "a journal of {largest} bytes, for {bound}");
    let (_folder, copy) = crashed(&path);
    assert!(*read(&copy).tables.read() == *running.kv.tables.read());
}

#[tokio::test]
async fn a_file_of_the_java_nameserver_is_taken_over() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("kvConfig.json");
    fs::write(&path, r#"{"configTable":{"ORDER_TOPIC_CONFIG":{"T":"a:4"}}}"#).unwrap();
    let running = Running::start(&path);
    assert_eq!(running.kv.get(ORDER_TOPIC_CONFIG, "T").as_deref(), Some("a:4"));
    change(&running.kv, put(ORDER_TOPIC_CONFIG, "U", "b:4")).await.unwrap();
    running.stop().await;
    // And given back: a member more is nothing to it.
    let text: serde_json::Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    assert_eq!(text["configTable"], serde_json::json!({"ORDER_TOPIC_CONFIG": {"T": "a:4", "U": "b:4"}}));
}

#[tokio::test]
async fn a_change_that_cannot_be_written_is_not_in_force() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("sub/kvConfig.json");
    let running = Running::start(&path);
    let kv = &running.kv;
    change(kv, put("N", "k", "old")).await.unwrap();
    running.store.lock().fail_from_now_on();
    // The temporary file's place is taken by a folder, so that rewriting everything fails as well.
    fs::create_dir(folder.path().join("sub/kvConfig.json.tmp")).unwrap();
    for said in ["kvConfig.json.journal", "kvConfig.json.tmp", "kvConfig.json.tmp"] {
        let refused = change(kv, put("N", "k", "new")).await.unwrap_err();
        assert!(refused.contains(said), "{refused}");
        assert_eq!(kv.get("N", "k").as_deref(), Some("old"));
        let (_folder, copy) = crashed(&path);
        assert_eq!(read(&copy).get("N", "k").as_deref(), Some("old"));
    }
    fs::remove_dir(folder.path().join("sub/kvConfig.json.tmp")).unwrap();
    change(kv, put("N", "k", "new")).await.unwrap();
    assert_eq!(kv.get("N", "k").as_deref(), Some("new"));
    let (_folder, copy) = crashed(&path);
    assert_eq!(read(&copy).get("N", "k").as_deref(), Some("new"));
}

#[tokio::test]
async fn two_nameservers_do_not_write_one_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("kvConfig.json");
    let (one, two) = (Running::start(&path), Running::start(&path));
    change(&one.kv, put("N", "k", "one")).await.unwrap();
    let refused = change(&two.kv, put("N", "k", "two")).await.unwrap_err();
    assert!(refused.contains("kvConfigPath"), "{refused}");
    one.stop().await;
    let refused = change(&two.kv, put("N", "k", "two")).await.unwrap_err();
    assert!(refused.contains("another nameserver has changed it"), "{refused}");
    two.stop().await;
    assert_eq!(read(&path).get("N", "k").as_deref(), Some("one"));
}

#[tokio::test]
async fn a_nameserver_that_wrote_nothing_takes_nothing_of_another_one_away() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("kvConfig.json");
    let one = Running::start(&path);
    change(&one.kv, put("N", "a", "1")).await.unwrap();
    // The second one has read the journal that the first one writes.
    let two = Running::start(&path);
    two.stop().await;
    change(&one.kv, put("N", "b", "2")).await.unwrap();
    let (_folder, copy) = crashed(&path);
    assert!(*read(&copy).tables.read() == *one.kv.tables.read());
}

#[tokio::test]
async fn changes_that_another_nameserver_made_since_the_start_are_not_written_over() {
    for rewritten in [false, true] {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("kvConfig.json");
        let one = Running::start(&path);
        change(&one.kv, put("N", "a", "1")).await.unwrap();
        let two = Running::start(&path);
        change(&one.kv, put("N", "b", "2")).await.unwrap();
        if rewritten {
            // Only the file: the process ends before the new journal is there.
            one.store.lock().replace_file(&one.kv.tables.read()).unwrap();
        }
        let (_folder, copy) = crashed(&path);
        let all = one.kv.list("N");
        drop(one);
        let refused = change(&two.kv, put("N", "c", "3")).await.unwrap_err();
        assert!(refused.contains("start again") || refused.contains("another nameserver"), "{refused}");
        two.stop().await;
        for path in [&copy, &path] {
            assert_eq!(read(path).list("N"), all, "rewritten: {rewritten}");
        }
    }
}

#[tokio::test]
async fn more_than_there_is_room_for_is_refused_and_deleting_makes_room() {
    let folder = tempfile::tempdir().unwrap();
    let running = Running::start_with(&folder.path().join("kv.json"), 1000);
    let kv = &running.kv;
    change(kv, put("N", "k", &"v".repeat(800))).await.unwrap();
    let refused = change(kv, put("N", "l", &"v".repeat(800))).await.unwrap_err();
    assert!(refused.contains("kvBytesMax") && refused.contains("1000"), "{refused}");
    // In one batch: the second one sees the room that the first one made.
    let (one, two) = tokio::join!(change(kv, delete("N", "k")), change(kv, put("N", "l", &"v".repeat(800))));
    assert_eq!((one.map(|old| old.is_some()), two), (Ok(true), Ok(None)));
}

#[tokio::test]
async fn more_changes_than_may_wait_are_refused_as_busy() {
    let folder = tempfile::tempdir().unwrap();
    let (kv, _writer_that_never_runs) = Kv::open(&folder.path().join("kv.json"), BYTES_MAX).unwrap();
    for _ in 0..CHANGES_WAITING_MAX {
        kv.change(put("N", "k", "v"), |_| {});
    }
    let refused = change(&kv, put("N", "k", "v")).await.unwrap_err();
    assert_eq!(refused, KvError::Busy.to_string());
}

#[tokio::test]
async fn a_refusal_is_answered_without_the_lock_of_the_tables() {
    let folder = tempfile::tempdir().unwrap();
    let running = Running::start(&folder.path().join("kv.json"));
    let (sender, receiver) = oneshot::channel();
    let tables = Arc::clone(&running.kv.tables);
    running.kv.change(put("N", "k", &"v".repeat(VALUE_BYTES_MAX + 1)), move |outcome| {
        let _ = sender.send((outcome.is_err(), tables.try_write().is_some()));
    });
    assert_eq!(receiver.await, Ok((true, true)), "refused, and free for whoever goes on");
}

#[tokio::test]
async fn a_list_is_made_without_the_lock_of_the_tables() {
    let folder = tempfile::tempdir().unwrap();
    let running = Running::start(&folder.path().join("kv.json"));
    let kv = &running.kv;
    change(kv, put("N", "k", "1")).await.unwrap();
    // `Kv::list` holds this while it makes the list.
    let before = kv.tables.read().namespace("N").unwrap();
    assert_eq!(change(kv, put("N", "k", "2")).await, Ok(Some("1".into())), "a change does not wait for the list");
    let changing = kv.tables.write();
    assert_eq!(before.list(), r#"{"table":{"k":"1"}}"#, "the list does not wait for a change");
    drop(changing);
    assert_eq!(kv.list("N").unwrap(), r#"{"table":{"k":"2"}}"#);
}
