//! The work of tools: KV configuration, settings, topics and permissions.

#![allow(unreachable_pub, reason = "the support module is shared by several test programs")]

mod support;

use escrowmq_common::code::{request, response};
use escrowmq_common::frame::Frame;
use escrowmq_nameserver::kv::{BYTES_MAX, Kv};
use support::{Stage, registration, text};

fn kv(code: i32, fields: &[(&str, &str)]) -> Frame {
    let request = Frame::request(code);
    fields.iter().fold(request, |request, (key, value)| request.with_field(key, value))
}

#[tokio::test]
async fn the_kv_configuration_survives_a_restart() {
    let stage = Stage::start().await;
    let put = kv(request::PUT_KV_CONFIG, &[("namespace", "N"), ("key", "k"), ("value", "v")]);
    assert_eq!(stage.call(put).await.code, response::SUCCESS);
    // On disk before the answer, so that even an abrupt end keeps it.
    let path = stage.folder.path().join("kvConfig.json");
    assert_eq!(Kv::open(&path, BYTES_MAX).unwrap().0.get("N", "k").as_deref(), Some("v"));
    stage.nameserver.stop().await;

    let again = Stage::start_in(stage.folder, |_| {}).await;
    let get = || kv(request::GET_KV_CONFIG, &[("namespace", "N"), ("key", "k")]);
    assert_eq!(again.call(get()).await.fields.get("value"), Some("v"));
    let delete = kv(request::DELETE_KV_CONFIG, &[("namespace", "N"), ("key", "k")]);
    assert_eq!(again.call(delete).await.code, response::SUCCESS);
    let gone = again.call(get()).await;
    assert_eq!(gone.code, response::QUERY_NOT_FOUND);
    assert_eq!(gone.remark.as_deref(), Some("No config item, Namespace: N Key: k"));
    let none = again.call(kv(request::GET_KVLIST_BY_NAMESPACE, &[("namespace", "X")])).await;
    assert_eq!(none.code, response::QUERY_NOT_FOUND);
}

#[tokio::test]
async fn ordered_topics_carry_their_order_if_enabled() {
    for enabled in [false, true] {
        let stage = Stage::start_with(|config| config.order_message_enable = enabled).await;
        let put = kv(request::PUT_KV_CONFIG, &[("namespace", "ORDER_TOPIC_CONFIG"), ("key", "T"), ("value", "a:4")]);
        stage.call(put).await;
        let answer = stage.call(registration("h:1", 0, 1, &["T", "U"])).await;
        assert_eq!(text(&answer.body), r#"{"table":{"T":"a:4"}}"#);
        let route = stage.route("T").await.unwrap();
        assert_eq!(route.contains(r#""orderTopicConf":"a:4""#), enabled, "{route}");
        assert!(!stage.route("U").await.unwrap().contains("orderTopicConf"));
    }
}

#[tokio::test]
async fn settings_are_read_changed_and_kept() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("namesrv.conf");
    std::fs::write(&file, "# mine\nenableTopicList=true\n").unwrap();
    let store = file.clone();
    let stage = Stage::start_in(folder, |config| config.config_store_path = Some(store)).await;
    let settings = text(&stage.call(Frame::request(request::GET_NAMESRV_CONFIG)).await.body);
    assert!(settings.lines().any(|line| line == "enableTopicList=true"), "{settings}");

    let update = |body: &str| Frame::request(request::UPDATE_NAMESRV_CONFIG).with_body(body.to_owned());
    let answer = stage.call(update("enableTopicList=false\norderMessageEnable=true\n")).await;
    assert_eq!(answer.code, response::SUCCESS, "{:?}", answer.remark);
    let list = stage.call(kv(request::GET_TOPICS_BY_CLUSTER, &[("cluster", "c")])).await;
    assert_eq!(list.code, response::SYSTEM_ERROR);
    let kept = std::fs::read_to_string(&file).unwrap();
    assert_eq!(kept, "# mine\nenableTopicList=false\norderMessageEnable=true\n");

    for (body, code) in [
        ("kvConfigPath=/tmp/x", response::NO_PERMISSION),
        ("configBlackList=", response::NO_PERMISSION),
        ("enableTopicLst=true", response::SYSTEM_ERROR),
        ("enableTopicList=true\nlistenPort=x", response::SYSTEM_ERROR),
        ("k=\\u12", response::SYSTEM_ERROR),
    ] {
        let answer = stage.call(update(body)).await;
        assert_eq!(answer.code, code, "{body}: {:?}", answer.remark);
        assert!(answer.remark.is_some());
    }
    assert_eq!(std::fs::read_to_string(&file).unwrap(), kept, "refused changes leave no trace");
    let list = stage.call(kv(request::GET_TOPICS_BY_CLUSTER, &[("cluster", "c")])).await;
    assert_eq!(list.code, response::SYSTEM_ERROR, "all or nothing");
}

#[tokio::test]
async fn topics_are_listed_in_all_ways() {
    let stage = Stage::start().await;
    let mut units = registration("h:1", 0, 1, &["T", "U", "V", "W"]);
    let body = text(&units.body);
    let flagged = ["T", "U", "V"].iter().zip([1, 2, 3]).fold(body, |body, (name, flag)| {
        let entry = format!(r#""topicName":"{name}","topicSysFlag":0"#);
        body.replace(&entry, &format!(r#""topicName":"{name}","topicSysFlag":{flag}"#))
    });
    units.body = flagged.into();
    stage.call(units).await;
    let names = |answer: Frame| {
        let body = text(&answer.body);
        let list = body.split_once("\"topicList\":[").unwrap().1.trim_end_matches("]}");
        let mut names: Vec<String> = list.split(',').map(|n| n.trim_matches('"').to_owned()).collect();
        names.sort();
        names.join(" ")
    };
    for (code, expected) in [
        (request::GET_ALL_TOPIC_LIST_FROM_NAMESERVER, "T U V W"),
        (request::GET_UNIT_TOPIC_LIST, "T V"),
        (request::GET_HAS_UNIT_SUB_TOPIC_LIST, "U V"),
        (request::GET_HAS_UNIT_SUB_UNUNIT_TOPIC_LIST, "U"),
        (request::GET_SYSTEM_TOPIC_LIST_FROM_NS, "a c"),
    ] {
        assert_eq!(names(stage.call(Frame::request(code)).await), expected, "{code}");
    }
    let system = stage.call(Frame::request(request::GET_SYSTEM_TOPIC_LIST_FROM_NS)).await;
    assert!(text(&system.body).starts_with(r#"{"brokerAddr":"h:1","#));
    let by_cluster = |c: &str| kv(request::GET_TOPICS_BY_CLUSTER, &[("cluster", c)]);
    assert_eq!(names(stage.call(by_cluster("c")).await), "T U V W");
    assert_eq!(names(stage.call(by_cluster("elsewhere")).await), "");
}

#[tokio::test]
async fn permissions_and_topics_are_changed_by_hand() {
    let stage = Stage::start().await;
    stage.call(registration("h:1", 0, 1, &["T", "U"])).await;
    let name = [("brokerName", "a")];
    let wiped = stage.call(kv(request::WIPE_WRITE_PERM_OF_BROKER, &name)).await;
    assert_eq!(wiped.fields.get("wipeTopicCount"), Some("2"));
    assert!(stage.route("T").await.unwrap().contains(r#""perm":4"#));
    let added = stage.call(kv(request::ADD_WRITE_PERM_OF_BROKER, &name)).await;
    assert_eq!(added.fields.get("addTopicCount"), Some("2"));
    assert!(stage.route("T").await.unwrap().contains(r#""perm":6"#));

    let elsewhere = [("topic", "T"), ("clusterName", "elsewhere")];
    stage.call(kv(request::DELETE_TOPIC_IN_NAMESRV, &elsewhere)).await;
    assert!(stage.route("T").await.is_some());
    stage.call(kv(request::DELETE_TOPIC_IN_NAMESRV, &[("topic", "T")])).await;
    assert_eq!(stage.route("T").await, None);
    let by_hand = kv(request::REGISTER_TOPIC_IN_NAMESRV, &[("topic", "T")])
        .with_body(r#"{"queueDatas":[{"brokerName":"a","perm":6,"readQueueNums":2,"writeQueueNums":2}]}"#);
    assert_eq!(stage.call(by_hand).await.code, response::SUCCESS);
    assert!(stage.route("T").await.unwrap().contains(r#""readQueueNums":2"#));

    let members = kv(request::GET_BROKER_MEMBER_GROUP, &[("clusterName", "c"), ("brokerName", "a")]);
    let members = text(&stage.call(members).await.body);
    assert_eq!(members, r#"{"brokerMemberGroup":{"brokerAddrs":{0:"h:1"},"brokerName":"a","cluster":"c"}}"#);
}

#[tokio::test]
async fn each_act_leaves_one_line_in_the_audits_file_whether_it_is_done_or_refused() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("audit.log");
    let path = file.clone();
    let stage = Stage::start_in(folder, |config| config.audit_log_file = Some(path)).await;
    let lines = || -> Vec<serde_json::Value> {
        let text = std::fs::read_to_string(&file).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    };
    stage.call(registration("h:1", 0, 1, &["T", "V"])).await;
    assert_eq!(lines().len(), 0, "a registration is no act");
    let by_hand = Frame::request(request::REGISTER_TOPIC_IN_NAMESRV).with_field("topic", "U").with_body(
        r#"{"queueDatas":[{"brokerName":"a","perm":6,"readQueueNums":4,"topicSysFlag":0,"writeQueueNums":4}],"brokerDatas":[]}"#,
    );
    let settings = Frame::request(request::UPDATE_NAMESRV_CONFIG).with_body("enableTopicList=false\n");
    for (asked, act, object, old, new) in [
        (
            kv(request::PUT_KV_CONFIG, &[("namespace", "N"), ("key", "k"), ("value", "v")]),
            "put KV value",
            "N k",
            "none",
            "'v'",
        ),
        (kv(request::DELETE_KV_CONFIG, &[("namespace", "N"), ("key", "k")]), "delete KV value", "N k", "'v'", "none"),
        (kv(request::WIPE_WRITE_PERM_OF_BROKER, &[("brokerName", "a")]), "wipe write permission", "a", "", "2 topics"),
        (kv(request::ADD_WRITE_PERM_OF_BROKER, &[("brokerName", "a")]), "add write permission", "a", "", "2 topics"),
        (by_hand, "register topic", "U", "none", "a:read=4"),
        (kv(request::DELETE_TOPIC_IN_NAMESRV, &[("topic", "T")]), "delete topic", "T", "a:read=4", "none"),
        (settings, "change setting", "enableTopicList", "true", "false"),
    ] {
        let (code, count) = (asked.code, lines().len());
        assert_eq!(stage.call(asked).await.code, response::SUCCESS, "{act}");
        let all = lines();
        assert_eq!(all.len(), count + 1, "{act}");
        let line = &all[count];
        assert_eq!((&line["act"], &line["outcome"], &line["object"]), (&act.into(), &"done".into(), &object.into()));
        let (before, after) = (line["old"].as_str().unwrap(), line["new"].as_str().unwrap());
        assert!(before.starts_with(old) && after.contains(new), "{line}");
        assert!(line["peer"].as_str().unwrap().starts_with("127.0.0.1:"), "{line}");

        // The same without what it needs.
        let refused = stage.call(Frame::request(code).with_field("mark", act).with_body("noSuchKey=1")).await;
        assert_ne!(refused.code, response::SUCCESS, "{act}");
        let all = lines();
        assert_eq!(all.len(), count + 2, "{act}");
        let line = &all[count + 1];
        assert_eq!((&line["outcome"], &line["code"]), (&"refused".into(), &refused.code.into()));
        assert!(line["asked"].as_str().unwrap().contains(act) && line["remark"].is_string(), "{line}");
    }
    let count = lines().len();
    for (name, code) in request::ALL {
        stage.call(Frame::request(*code).with_field("mark", name)).await;
    }
    assert_eq!(lines().len(), count + 7, "nothing else is an act");
}
