//! A log of a newer feature level is refused by name, by all ways in which a build can come upon it, and nothing of it is applied.

use super::*;
use crate::shard::{Settings, SubmitError};
use crate::storage::StorageError;
use crate::terms::{FEATURE_LEVEL, FIRST_LEVEL};

async fn open_speaking(dir: &Path, level: u32) -> Result<Storage, StorageError> {
    let mut settings = settings(dir, Flush::Sync);
    settings.log.feature_level = level;
    Storage::open(settings, Clock::system()).await
}

fn change<'a>(key: &'a str, value: &'a str) -> Command<'a> {
    Command::Settings(Settings { only_missing: false, values: vec![(key, value)] })
}

#[tokio::test]
async fn an_older_build_does_not_open_a_newer_log() {
    let dir = tempfile::tempdir().expect("a folder");
    let opened = open(dir.path()).await;
    make_topic(&opened.shard, "T", 1).await;
    for command in [Command::Feature(FEATURE_LEVEL), change("k", "v")] {
        assert_eq!(opened.shard.propose(&command, Admission::Reserved).await, Ok(Outcome::Done));
    }
    opened.close().await.expect("closes");
    // The index says so, or the log itself where the index is lost.
    let error = open_speaking(dir.path(), FIRST_LEVEL).await.err().expect("refused").to_string();
    assert!(error.contains("the log is of feature level 2, and this build speaks 1"), "{error}");
    std::fs::remove_dir_all(dir.path().join("index")).expect("an index");
    let error = open_speaking(dir.path(), FIRST_LEVEL).await.err().expect("refused").to_string();
    assert!(error.contains("the log is of feature level 2 from entry"), "{error}");
    let opened = open(dir.path()).await;
    assert!(opened.shard.topics().get("T").is_some());
    assert_eq!(opened.shard.agreed().settings["k"], "v");
    opened.close().await.expect("closes");
}

#[tokio::test]
async fn an_entry_of_a_newer_level_ends_this_member_before_it_is_applied() {
    let dir = tempfile::tempdir().expect("a folder");
    let opened = open(dir.path()).await;
    make_topic(&opened.shard, "T", 1).await;
    let newer = FEATURE_LEVEL + 1;
    let raised = opened.shard.propose(&Command::Feature(newer), Admission::Reserved).await;
    assert_eq!(raised, Err(SubmitError::OutcomeUnknown), "others may have it");
    opened.shard.intake().latch().closed().await;
    let failure = opened.shard.log().failure().expect("the latch is closed").cause();
    assert!(failure.contains(&format!("the log is of feature level {newer} from entry")), "{failure}");
    assert_eq!(opened.shard.agreed().level, FIRST_LEVEL);
    let _ = opened.close().await;
    let opened = open_speaking(dir.path(), newer).await.expect("the version that speaks it");
    assert_eq!(opened.shard.agreed().level, newer);
    opened.close().await.expect("closes");
}

#[tokio::test]
async fn the_level_does_not_fall_and_missing_settings_alone_are_added() {
    let dir = tempfile::tempdir().expect("a folder");
    let opened = open(dir.path()).await;
    let values = vec![("a", "3"), ("b", "4")];
    for command in [
        Command::Feature(FEATURE_LEVEL),
        Command::Feature(FIRST_LEVEL),
        change("a", "1"),
        change("a", "2"),
        Command::Settings(Settings { only_missing: true, values }),
    ] {
        assert_eq!(opened.shard.propose(&command, Admission::Reserved).await, Ok(Outcome::Done));
    }
    opened.close().await.expect("closes");
    let opened = open(dir.path()).await;
    let agreed = opened.shard.agreed();
    assert_eq!(agreed.level, FEATURE_LEVEL);
    assert_eq!(agreed.settings, [("a", "2"), ("b", "4")].map(|(key, value)| (key.to_owned(), value.to_owned())).into());
    opened.close().await.expect("closes");
}
