//! Files of the log that are not there while the broker runs.

use std::fs;
use std::path::{Path, PathBuf};

use escrowmq_common::code::request;
use escrowmq_common::frame::Frame;

use super::support::{Client, Node, messages, number, pull, pull_request};

fn segments(folder: &Path) -> Vec<PathBuf> {
    let mut segments: Vec<PathBuf> = fs::read_dir(folder.join("log"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.file_name().unwrap().to_string_lossy().starts_with('0'))
        .collect();
    segments.sort();
    segments
}

/// A broker with several files of the log, of which it has in memory none but the newest.
async fn filled() -> (Node, Client) {
    let mut node = Node::with(|config| config.segment_bytes = 1 << 20).await;
    let client = node.client("c");
    let body = vec![b'x'; 100_000];
    for _ in 0..25 {
        client.send("T", 0, &body, &[]).await;
    }
    client.close().await;
    node.restart().await;
    let client = node.client("c");
    client.join("G", "T", "*").await;
    client.join("H", "T", "*").await;
    (node, client)
}

fn give_up(position: &str) -> Frame {
    Frame::request(request::GIVE_UP_LOG)
        .with_field("position", position)
        .with_field("operator", "ann")
        .with_field("reason", "the disk died")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_file_is_skipped_by_nobody_until_an_operator_says_so() {
    let (node, client) = filled().await;
    // Cut short rather than moved: a file that is open stays readable when it has no name any more.
    let first = segments(node.folder()).remove(0);
    let content = fs::read(&first).unwrap();
    fs::write(&first, b"").unwrap();
    let mut named = String::new();
    // Each time, for each group, with a tag filter or without, at the beginning and in the middle.
    for (group, offset) in [("G", 0), ("H", 0), ("G", 0), ("H", 4)] {
        let refused = client.call(pull_request(&pull(group, "T", 0, offset))).await;
        let remark = refused.remark.clone().unwrap_or_default();
        assert_eq!(refused.code, 1, "{remark}");
        assert!(remark.contains(&first.display().to_string()), "{remark}");
        let (_, command) = remark.split_once("give-up ").unwrap();
        let digits = command.chars().take_while(char::is_ascii_digit).collect::<String>();
        if named.is_empty() {
            named = digits;
        }
    }
    assert!(node.running().broker().metrics.messages_unreadable.get() >= 4);
    // A message in another file is served.
    assert_eq!(messages(&client.call(pull_request(&pull("G", "T", 0, 20))).await)[0].queue_offset, 20);
    // Back, it is served again.
    fs::write(&first, content).unwrap();
    let answer = client.call(pull_request(&pull("G", "T", 0, 0))).await;
    assert_eq!(messages(&answer)[0].queue_offset, 0);
    // A message that can be read is not given up. Neither is a place in the middle of one, which looks like a damaged message.
    assert_eq!(client.call(give_up(&named)).await.code, 604);
    let within = named.parse::<u64>().unwrap() + 7;
    assert_eq!(client.call(give_up(&within.to_string())).await.code, 604);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_given_up_is_passed_by_all_groups_and_counted() {
    let (node, client) = filled().await;
    let first = segments(node.folder()).remove(0);
    fs::write(&first, b"").unwrap();
    let refused = client.call(pull_request(&pull("G", "T", 0, 2))).await;
    let remark = refused.remark.unwrap();
    let position = remark.split_once("give-up ").unwrap().1.split('`').next().unwrap().to_owned();
    assert_eq!(client.call(give_up("-1")).await.code, 29);
    assert_eq!(client.call(give_up("12345678901")).await.code, 604);
    assert_eq!(client.call(give_up(&position).with_field("reason", " ")).await.code, 29);
    let given = client.call(give_up(&position)).await;
    assert_eq!(given.code, 0, "{:?}", given.remark);
    let lost = number(&given, "messages");
    assert!((8..12).contains(&lost), "{lost}");
    for group in ["G", "H"] {
        let mut next = 0;
        let mut seen = Vec::new();
        while next < 25 {
            let answer = client.call(pull_request(&pull(group, "T", 0, next))).await;
            assert!(matches!(answer.code, 0 | 20), "{:?}", answer.remark);
            seen.extend(messages(&answer).iter().map(|message| message.queue_offset));
            next = number(&answer, "nextBeginOffset");
        }
        assert_eq!(seen, (lost..25).collect::<Vec<_>>(), "what is left, in order");
    }
    assert_eq!(node.running().broker().shard.lost().messages(), lost.cast_unsigned());
    assert_eq!(client.call(give_up(&position)).await.code, 604, "once is enough");
    node.stop().await;
}
