//! Settings, running figures and the requests that only tools send.

use escrowmq_common::code::{request, response};
use escrowmq_common::frame::Frame;

use super::support::{Bench, of_topic};
use crate::terms::DiskUse;

fn update(text: &'static str) -> Frame {
    Frame::request(request::UPDATE_BROKER_CONFIG).with_body(text)
}

async fn setting(bench: &Bench, key: &str) -> Option<String> {
    let answer = bench.done(Frame::request(request::GET_BROKER_CONFIG)).await;
    assert!(answer.fields.get("version").is_some_and(|version| version.starts_with('{')));
    let text = String::from_utf8(answer.body.to_vec()).unwrap();
    text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('=').map(str::to_owned))
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_are_shown_and_changed() {
    let bench = Bench::start().await;
    for key in ["brokerName", "brokerClusterName", "autoCreateTopicEnable", "transactionTimeOut", "flushDiskType"] {
        assert!(setting(&bench, key).await.is_some(), "{key}");
    }
    bench.done(update("transactionCheckMax=7\nautoCreateTopicEnable=false\n")).await;
    assert_eq!(setting(&bench, "transactionCheckMax").await.as_deref(), Some("7"));
    // In force at once.
    let refused = bench.call(super::support::send_request("NewTopic", &[])).await;
    assert_eq!(refused.code, response::TOPIC_NOT_EXIST);
    // All or none.
    for (text, why) in [
        ("transactionCheckMax=8\nnoSuchKey=1\n", "noSuchKey"),
        ("transactionCheckMax=8\nmaxMessageSize=x\n", "maxMessageSize"),
        ("transactionCheckMax=8\nbrokerName=other\n", "brokerName"),
        ("transactionCheckMax=8\naclEnable=true\n", "not checked"),
        ("transactionCheckMax=8\nsendMessageThreadPoolNums=1\n", "means nothing"),
        ("transactionCheckMax=8\nregionId=\\u12\n", "line 2"),
    ] {
        let answer = bench.call(update(text)).await;
        let expected = if why == "brokerName" { response::NO_PERMISSION } else { response::SYSTEM_ERROR };
        assert_eq!(answer.code, expected);
        assert!(answer.remark.unwrap().contains(why));
        assert_eq!(setting(&bench, "transactionCheckMax").await.as_deref(), Some("7"));
    }
    bench.done(update("")).await;
    bench.broker.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn tools_find_the_figures_they_parse() {
    let bench = Bench::start().await;
    bench.send("T", &[("UNIQ_KEY", "u")]).await;
    let info = bench.json(Frame::request(request::GET_BROKER_RUNTIME_INFO)).await;
    let figure = |name: &str| info["table"][name].as_str().unwrap_or_else(|| panic!("no {name}")).to_owned();
    for name in ["putTps", "getTransferredTps", "getFoundTps", "getMissTps", "getTotalTps"] {
        assert_eq!(figure(name).split(' ').filter(|rate| rate.parse::<f64>().is_ok()).count(), 3, "{name}");
    }
    for name in [
        "bootTimestamp",
        "earliestMessageTimeStamp",
        "pageCacheLockTimeMills",
        "sendThreadPoolQueueSize",
        "pullThreadPoolQueueSize",
        "sendThreadPoolQueueHeadWaitTimeMills",
        "pullThreadPoolQueueHeadWaitTimeMills",
        "timerReadBehind",
        "timerOffsetBehind",
        "timerCongestNum",
        "msgPutTotalYesterdayMorning",
        "msgPutTotalTodayMorning",
        "msgGetTotalTodayNow",
        "brokerVersion",
    ] {
        assert!(figure(name).parse::<i64>().is_ok(), "{name}");
    }
    for name in ["commitLogDiskRatio", "timerEnqueueTps", "timerDequeueTps"] {
        assert!(figure(name).parse::<f64>().is_ok(), "{name}");
    }
    // As `df` counts, which is also what the metric shows: other processes may write meanwhile.
    let disk = DiskUse::of(&bench.broker.broker().config().data_folder()).unwrap();
    let shown: f64 = figure("commitLogDiskRatio").parse().unwrap();
    assert!((shown - disk.ratio()).abs() < 0.05, "{shown} {disk:?}");
    assert_eq!(figure("msgPutTotalTodayNow"), "1");
    assert_eq!(figure("brokerVersionDesc"), "V5_3_3");
    assert!(figure("earliestMessageTimeStamp").parse::<i64>().unwrap() > 1_600_000_000_000);
    assert!(figure("runtime").starts_with("[ 0 days, 0 hours, "));
    assert!(figure("commitLogDirCapacity").starts_with("Total : "));
    bench.broker.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_needs_no_work_is_done_and_what_nobody_knows_is_refused() {
    let bench = Bench::start().await;
    for code in [
        request::CLEAN_EXPIRED_CONSUMEQUEUE,
        request::CLEAN_UNUSED_TOPIC,
        request::DELETE_EXPIRED_COMMITLOG,
        request::TRIGGER_DELETE_FILES,
        request::GET_ALL_DELAY_OFFSET,
        request::GET_SYSTEM_TOPIC_LIST_FROM_BROKER,
        request::GET_BROKER_HA_STATUS,
        request::GET_BROKER_EPOCH_CACHE,
    ] {
        bench.done(Frame::request(code)).await;
    }
    let stats = of_topic(request::VIEW_BROKER_STATS_DATA, "T").with_field("statsName", "X").with_field("statsKey", "T");
    assert_eq!(bench.call(stats).await.remark.as_deref(), Some("The stats <X> not exist"));
    let unknown = bench.call(Frame::request(9999)).await;
    assert_eq!(unknown.code, response::REQUEST_CODE_NOT_SUPPORTED);
    assert_eq!(unknown.remark.as_deref(), Some(" request type 9999 not supported"));
    bench.broker.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_logged_is_not_changed_where_the_log_is_somebody_elses() {
    let bench = Bench::start().await;
    let change = |value: &str| Frame::request(request::UPDATE_BROKER_CONFIG).with_body(format!("logLevel={value}\n"));
    for (value, why) in [
        ("debug", "a log of its own"),
        ("loud", "'loud' is no level"),
        ("info,escrowmq_brokr=debug", "escrowmq_broker"),
        ("info,escrowmq_broker::retenton=debug", "escrowmq_broker::retention"),
    ] {
        let answer = bench.call(change(value)).await;
        assert_eq!(answer.code, response::SYSTEM_ERROR, "{value}");
        assert!(answer.remark.as_deref().unwrap_or_default().contains(why), "{value}: {:?}", answer.remark);
    }
    bench.done(change("info")).await;
    bench.broker.stop().await.unwrap();
}
