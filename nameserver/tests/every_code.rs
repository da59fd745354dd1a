//! Every request of a nameserver with hostile fields and bodies, beside a client that means well: the process goes on, that
//! client's routes and KV entries stay as they are, and what is on disk opens again.

#![allow(unreachable_pub, reason = "the support module is shared by several test programs")]

mod support;

use bytes::BytesMut;
use escrowmq_common::code::{request, response};
use escrowmq_common::frame::{Frame, FrameDecoder};
use escrowmq_nameserver::Refusal;
use support::{PATIENCE, Stage, registration};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// A request with its fields, and bodies that it would take.
struct Kind {
    code: i32,
    fields: &'static [(&'static str, &'static str)],
    bodies: &'static [&'static str],
}

const REGISTRATION: &str =
    r#"{"topicConfigSerializeWrapper":{"dataVersion":{"counter":1},"topicConfigTable":{"E1":{},"E2":{}}}}"#;

/// All requests that a nameserver knows. A code that is missing here fails the test below.
const KINDS: &[Kind] = &[
    Kind { code: request::PUT_KV_CONFIG, fields: &[("namespace", "evil"), ("key", "k"), ("value", "v")], bodies: &[] },
    Kind { code: request::GET_KV_CONFIG, fields: &[("namespace", "evil"), ("key", "k")], bodies: &[] },
    Kind { code: request::DELETE_KV_CONFIG, fields: &[("namespace", "evil"), ("key", "k")], bodies: &[] },
    Kind {
        code: request::REGISTER_BROKER,
        fields: &[
            ("brokerName", "evil"),
            ("brokerAddr", "e:1"),
            ("clusterName", "evil"),
            ("haServerAddr", "e:2"),
            ("brokerId", "0"),
            ("heartbeatTimeoutMillis", "10000"),
            ("enableActingMaster", "true"),
            ("compressed", "false"),
            ("bodyCrc32", "0"),
            ("__ZONE_NAME", "z"),
            ("escrowmqPart", "true"),
        ],
        bodies: &[REGISTRATION],
    },
    Kind {
        code: request::UNREGISTER_BROKER,
        fields: &[
            ("brokerName", "evil"),
            ("brokerAddr", "e:1"),
            ("clusterName", "evil"),
            ("brokerId", "0"),
            ("escrowmqTerm", "0"),
        ],
        bodies: &[],
    },
    Kind {
        code: request::GET_ROUTEINFO_BY_TOPIC,
        fields: &[("topic", "E1"), ("acceptStandardJsonOnly", "true"), ("__ZONE_NAME", "z"), ("__ZONE_MODE", "true")],
        bodies: &[],
    },
    Kind { code: request::GET_BROKER_CLUSTER_INFO, fields: &[], bodies: &[] },
    Kind { code: request::WIPE_WRITE_PERM_OF_BROKER, fields: &[("brokerName", "evil")], bodies: &[] },
    Kind { code: request::ADD_WRITE_PERM_OF_BROKER, fields: &[("brokerName", "evil")], bodies: &[] },
    Kind { code: request::GET_ALL_TOPIC_LIST_FROM_NAMESERVER, fields: &[], bodies: &[] },
    Kind { code: request::DELETE_TOPIC_IN_NAMESRV, fields: &[("topic", "E1"), ("clusterName", "evil")], bodies: &[] },
    Kind {
        code: request::REGISTER_TOPIC_IN_NAMESRV,
        fields: &[("topic", "E3")],
        bodies: &[
            r#"{"queueDatas":[{"brokerName":"evil","perm":6,"readQueueNums":2,"writeQueueNums":2}]}"#,
            r#"{"queueDatas":[{"brokerName":"evil","perm":6,"readQueueNums":2147483647,"writeQueueNums":-1}]}"#,
        ],
    },
    Kind { code: request::GET_KVLIST_BY_NAMESPACE, fields: &[("namespace", "evil")], bodies: &[] },
    Kind { code: request::GET_TOPICS_BY_CLUSTER, fields: &[("cluster", "evil")], bodies: &[] },
    Kind { code: request::GET_SYSTEM_TOPIC_LIST_FROM_NS, fields: &[], bodies: &[] },
    Kind { code: request::GET_UNIT_TOPIC_LIST, fields: &[], bodies: &[] },
    Kind { code: request::GET_HAS_UNIT_SUB_TOPIC_LIST, fields: &[], bodies: &[] },
    Kind { code: request::GET_HAS_UNIT_SUB_UNUNIT_TOPIC_LIST, fields: &[], bodies: &[] },
    Kind {
        code: request::UPDATE_NAMESRV_CONFIG,
        fields: &[],
        bodies: &["listenPort=1", "kvConfigPath=/x", "scanNotActiveBrokerInterval=0", "a=b=c\\u00", "routeBytesMax=-1"],
    },
    Kind { code: request::GET_NAMESRV_CONFIG, fields: &[], bodies: &[] },
    Kind {
        code: request::QUERY_DATA_VERSION,
        fields: &[("brokerName", "evil"), ("brokerAddr", "e:1"), ("clusterName", "evil"), ("brokerId", "0")],
        bodies: &[r#"{"counter":9223372036854775807,"stateVersion":-1,"timestamp":0}"#],
    },
    Kind {
        code: request::GET_BROKER_MEMBER_GROUP,
        fields: &[("clusterName", "evil"), ("brokerName", "evil")],
        bodies: &[],
    },
    Kind {
        code: request::BROKER_HEARTBEAT,
        fields: &[
            ("clusterName", "evil"),
            ("brokerAddr", "e:1"),
            ("brokerName", "evil"),
            ("heartbeatTimeoutMills", "1"),
        ],
        bodies: &[],
    },
];

/// Values that a field may have on the wire.
fn hostile_values() -> Vec<String> {
    let mut values: Vec<String> =
        ["", " ", "-1", "9223372036854775807", "99999999999999999999", "true", "null", "0x10"]
            .map(str::to_owned)
            .into();
    values.extend([65_535, 65_536, 70_000, 300_000].map(|length| "x".repeat(length)));
    values.extend(
        ["\u{0}", "a\nb", "\u{feff}", "\u{202e}evil", "\u{10ffff}", "e\u{301}", "\"\\", "\u{7f}"].map(str::to_owned),
    );
    values
}

fn hostile_bodies() -> Vec<Vec<u8>> {
    let mut bodies: Vec<Vec<u8>> = vec![
        b"{".to_vec(),
        b"[1,2".to_vec(),
        b"{}".to_vec(),
        b"null".to_vec(),
        vec![0],
        vec![0xff, 0xfe],
        b"\xed\xa0\x80".to_vec(),
        "[".repeat(100_000).into_bytes(),
        vec![b'x'; 70_000],
        b"{\"queueDatas\":[{}],\"topicConfigSerializeWrapper\":{\"topicConfigTable\":{\"\":{},\"\\u0000\":{}}}}"
            .to_vec(),
    ];
    // A stream that says it is zlib, and is none after its first bytes.
    bodies.push([&[0x78, 0x9c][..], &[0xaa; 100]].concat());
    bodies
}

/// A connection that sends what it is told to, and reads the answers that come.
struct Wire {
    stream: TcpStream,
    input: BytesMut,
    opaque: i32,
}

impl Wire {
    async fn to(stage: &Stage) -> Wire {
        let stream = TcpStream::connect(stage.nameserver.local_addr()).await.unwrap();
        Wire { stream, input: BytesMut::new(), opaque: 0 }
    }

    /// Sends all requests, then reads as many answers; they may come in another order.
    async fn ask(&mut self, requests: Vec<Frame>) -> Vec<Frame> {
        let mut out = BytesMut::new();
        let Wire { stream, input, opaque } = self;
        let first = *opaque;
        for mut request in requests {
            request.opaque = *opaque;
            *opaque += 1;
            request.encode(&mut out);
        }
        let wanted = (*opaque - first) as usize;
        let mut answers = Vec::with_capacity(wanted);
        let (mut reading, mut writing) = stream.split();
        let exchange = async {
            let write = async { writing.write_all(&out).await.unwrap() };
            let read = async {
                loop {
                    while let Some(answer) = FrameDecoder::default().next(input).unwrap() {
                        answers.push(answer);
                    }
                    if answers.len() >= wanted {
                        break;
                    }
                    assert!(reading.read_buf(input).await.unwrap() > 0, "closed instead of answered");
                }
            };
            tokio::join!(write, read)
        };
        tokio::time::timeout(PATIENCE, exchange).await.expect("every request is answered");
        answers.sort_by_key(|answer| answer.opaque);
        let opaques: Vec<_> = answers.iter().map(|answer| answer.opaque).collect();
        assert_eq!(opaques, (first..*opaque).collect::<Vec<_>>(), "each is answered once");
        answers
    }
}

fn requests_of(kind: &Kind) -> Vec<Frame> {
    let whole = |without: Option<&str>| {
        let fields = kind.fields.iter().filter(|(key, _)| Some(*key) != without);
        fields.fold(Frame::request(kind.code), |frame, (key, value)| frame.with_field(key, value))
    };
    let mut requests = Vec::new();
    let first_body = kind.bodies.first().copied().unwrap_or_default();
    for body in kind.bodies {
        requests.push(whole(None).with_body(*body));
    }
    requests.push(Frame::request(kind.code));
    for (key, _) in kind.fields {
        requests.push(whole(Some(key)).with_body(first_body));
        for value in hostile_values() {
            requests.push(whole(Some(key)).with_field(key, value).with_body(first_body));
        }
    }
    for body in hostile_bodies() {
        requests.push(whole(None).with_body(body.clone()));
        requests.push(whole(Some("compressed")).with_field("compressed", true).with_body(body));
    }
    requests
}

/// The client that means well: its broker, its topics, its entries.
struct Good {
    broker: support::Line,
}

impl Good {
    async fn start(stage: &Stage) -> Good {
        let broker = stage.connect().await;
        assert_eq!(broker.call(registration("good:1", 0, 1, &["Good", "Better"])).await.code, response::SUCCESS);
        let put = Frame::request(request::PUT_KV_CONFIG)
            .with_field("namespace", "good")
            .with_field("key", "k")
            .with_field("value", "v");
        assert_eq!(broker.call(put).await.code, response::SUCCESS);
        Good { broker }
    }

    async fn is_as_it_was(&self, stage: &Stage, after: &str) {
        for topic in ["Good", "Better"] {
            let route = stage.route(topic).await.unwrap_or_else(|| panic!("{topic} has no route after {after}"));
            assert!(route.contains("good:1") && route.contains(r#""perm":6"#), "{after}: {route}");
        }
        let get = Frame::request(request::GET_KV_CONFIG).with_field("namespace", "good").with_field("key", "k");
        assert_eq!(self.broker.call(get).await.fields.get("value"), Some("v"), "{after}");
    }
}

#[tokio::test]
async fn no_request_harms_anybody_else() {
    let stage = Stage::start().await;
    let good = Good::start(&stage).await;
    let mut wire = Wire::to(&stage).await;
    let mut asked = 0;
    for kind in KINDS {
        // In one go: they wait for each other in the queues after the dispatch.
        for some in requests_of(kind).chunks(64) {
            asked += some.len();
            let answers = wire.ask(some.to_vec()).await;
            for answer in answers {
                assert!(answer.is_response(), "{}", kind.code);
                assert!(answer.code == response::SUCCESS || answer.remark.is_some(), "{}: {}", kind.code, answer.code);
            }
        }
        good.is_as_it_was(&stage, &format!("request {}", kind.code)).await;
    }
    assert!(asked > 1000, "{asked} requests");
    assert!(stage.nameserver.refused(Refusal::Malformed) > 100);
    assert_eq!(stage.nameserver.refused(Refusal::Busy), 0, "one connection that waits for its answers is not too much");
    let path = stage.folder.path().join("kvConfig.json");
    stage.nameserver.stop().await;
    let again = Stage::start_in(stage.folder, |_| {}).await;
    let get = Frame::request(request::GET_KV_CONFIG).with_field("namespace", "good").with_field("key", "k");
    assert_eq!(again.call(get).await.fields.get("value"), Some("v"));
    assert!(path.exists());
}

#[tokio::test]
async fn the_list_above_has_every_request_that_a_nameserver_answers() {
    let stage = Stage::start().await;
    for code in (0..1200).chain(30_000..30_020).chain(200_000..200_200) {
        let answer = stage.call(Frame::request(code)).await;
        let is_known = answer.code != response::REQUEST_CODE_NOT_SUPPORTED;
        assert_eq!(is_known, KINDS.iter().any(|kind| kind.code == code), "request {code}: {:?}", answer.remark);
    }
}

#[tokio::test]
async fn a_header_is_refused_by_its_longest_field() {
    let stage = Stage::start().await;
    let put = Frame::request(request::PUT_KV_CONFIG)
        .with_field("namespace", "N")
        .with_field("key", "k")
        .with_field("value", "v".repeat(300_000));
    let answer = stage.call(put).await;
    assert_eq!(answer.code, response::MESSAGE_ILLEGAL);
    let remark = answer.remark.unwrap();
    assert!(remark.contains("value: 300000 bytes") && remark.contains("262144"), "{remark}");
    let put = Frame::request(request::PUT_KV_CONFIG)
        .with_field("namespace", "N")
        .with_field("key", "k")
        .with_field("value", "v".repeat(65_537));
    let answer = stage.call(put).await;
    assert_eq!(answer.code, response::MESSAGE_ILLEGAL);
    let remark = answer.remark.unwrap();
    assert!(remark.contains("value: 65537 bytes") && remark.contains("65536"), "{remark}");
    assert_eq!(stage.nameserver.refused(Refusal::Malformed), 2);
}

#[tokio::test]
async fn one_connection_sees_what_it_did_before() {
    let stage = Stage::start().await;
    let mut wire = Wire::to(&stage).await;
    let kv = |code: i32, value: Option<usize>| {
        let request = Frame::request(code).with_field("namespace", "N").with_field("key", "k");
        value.into_iter().fold(request, |request, value| request.with_field("value", value))
    };
    let route = || Frame::request(request::GET_ROUTEINFO_BY_TOPIC).with_field("topic", "T");
    let goodbye = || {
        let fields = [("brokerName", "a"), ("brokerAddr", "h:1"), ("clusterName", "c"), ("brokerId", "0")];
        fields
            .iter()
            .fold(Frame::request(request::UNREGISTER_BROKER), |frame, (key, value)| frame.with_field(key, value))
    };
    let list = || Frame::request(request::GET_ALL_TOPIC_LIST_FROM_NAMESERVER);
    let mut requests = Vec::new();
    for n in 0..10 {
        requests.extend([
            kv(request::PUT_KV_CONFIG, Some(n)),
            kv(request::GET_KV_CONFIG, None),
            registration("h:1", 0, 1, &["T", "U"]),
            route(),
            list(),
            goodbye(),
            route(),
        ]);
    }
    let answers = wire.ask(requests).await;
    for (n, round) in answers.chunks(7).enumerate() {
        let codes: Vec<_> = round.iter().map(|answer| answer.code).collect();
        assert_eq!(codes, [0, 0, 0, 0, 0, 0, response::TOPIC_NOT_EXIST], "round {n}");
        assert_eq!(round[1].fields.get("value"), Some(n.to_string().as_str()));
        assert!(support::text(&round[4].body).contains("\"T\""), "round {n}");
    }
    // More requests than may wait for the first one: the excess is told so, and the rest is answered.
    let many = std::iter::once(kv(request::PUT_KV_CONFIG, Some(1)))
        .chain(std::iter::repeat_with(|| kv(request::GET_KV_CONFIG, None)).take(2000));
    let answers = wire.ask(many.collect()).await;
    assert!(answers.iter().all(|answer| matches!(answer.code, response::SUCCESS | response::SYSTEM_BUSY)));
    assert!(answers.iter().filter(|answer| answer.code == response::SUCCESS).count() >= 256);
}
