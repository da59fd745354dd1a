//! The targets of fuzzing: one function for each kind of input, which takes any bytes.
//!
//! The functions run in the tests of this crate, on damaged copies of recorded input, and under libFuzzer (`fuzz/` includes
//! this file). Each reads its input by the same decoders as servers and clients do, and where something was read checks
//! what must hold of it: what is written again reads the same, and is within its limits.

use bytes::{Bytes, BytesMut};
use escrowmq_common::body::{self, Bounded as _, Form, RegisterBrokerBody, RegisteredTopics, ResetOffsetBody, json};
use escrowmq_common::frame::{Fields, Frame, FrameDecoder};
use escrowmq_common::header::{self, Header as _};
use escrowmq_common::limits::NAMED_TOPIC_BYTES_MAX;
use escrowmq_common::message::{
    CompressionType, MessageUnit, OffsetMessageId, Properties, PropertyEditor, RecallHandle, SysFlag, TagFilter,
    UniqueIdParts, UnitBuilder, UnitPatch, batch, compression::zstd_decoder, decode_units, pop, tags_code,
};
use escrowmq_common::name;

/// A function to fuzz.
pub(crate) struct Target {
    /// Its name, which is also that of its corpus.
    pub(crate) name: &'static str,
    /// Panics if something is wrong; any input is fine.
    pub(crate) run: fn(&[u8]),
}

/// All of them.
pub(crate) const TARGETS: &[Target] = &[
    Target { name: "frame", run: frame },
    Target { name: "header", run: header },
    Target { name: "body", run: body },
    Target { name: "unit", run: unit },
    Target { name: "batch", run: batch_body },
    Target { name: "properties", run: properties },
    Target { name: "compression", run: compression },
    Target { name: "pop", run: pop_text },
    Target { name: "id", run: id },
    Target { name: "registration", run: registration },
];

/// Most bytes that a compressed body may unpack to.
const UNPACKED_MAX: usize = 1 << 20;

/// A stream of bytes as a connection reads it.
pub(crate) fn frame(input: &[u8]) {
    let decoder = FrameDecoder::default();
    let mut stream = BytesMut::from(input);
    loop {
        let (before, declared) = (stream.len(), decoder.frame_len(&stream));
        let Ok(Some(frame)) = decoder.next(&mut stream) else { break };
        assert_eq!(declared, Ok(Some(before - stream.len())), "room is made for what is declared");
        let mut out = BytesMut::new();
        frame.encode(&mut out);
        let mut head = BytesMut::new();
        frame.encode_head(&mut head, out.len()).expect("it was written");
        assert_eq!(head.len() + frame.body.len(), out.len());
        assert!(out.starts_with(&head) && out.ends_with(&frame.body));
        let again = decoder.next(&mut out).expect("what is written is a frame").expect("a whole one");
        assert_eq!((again.code, again.opaque, again.flag), (frame.code, frame.opaque, frame.flag));
        assert_eq!((again.language, again.version, again.encoding), (frame.language, frame.version, frame.encoding));
        assert_eq!(again.remark, frame.remark);
        assert_eq!(again.fields, frame.fields);
        assert_eq!(again.body, frame.body);
    }
    drop(Frame::decode(Bytes::copy_from_slice(input)));
}

/// Lines of `name=value`, as the fields of each kind of request and answer.
pub(crate) fn header(input: &[u8]) {
    let text = String::from_utf8_lossy(input);
    let mut fields = Fields::new();
    for (name, value) in text.split('\n').take(256).filter_map(|line| line.split_once('=')) {
        fields.insert_text(name, value);
    }
    macro_rules! each {
        ($($header:ident,)*) => {$(
            match header::$header::decode(&fields) {
                Ok(read) => {
                    let mut again = Fields::new();
                    read.encode(&mut again);
                    assert_eq!(header::$header::decode(&again).as_ref(), Ok(&read));
                }
                Err(error) => assert!(error.to_string().len() < 512, "{error}"),
            }
        )*};
    }
    each! {
        AckMessageHeader, AddWritePermResponse, BrokerConfigResponse, BrokerHeartbeatHeader, BrokerIdentityHeader,
        BrokerNameHeader, ChangeInvisibleTimeHeader, ChangeInvisibleTimeResponse, CheckTransactionStateHeader,
        CloneGroupOffsetHeader, ConsumeMessageDirectlyHeader, ConsumerGroupHeader, ConsumerSendMsgBackHeader,
        CountTransactionsHeader, CreateTopicHeader, DecideTransactionHeader, DeleteSubscriptionGroupHeader,
        DeleteTopicInNamesrvHeader, EarliestStoreTimeResponse, EndTransactionHeader, EndTransactionResponse,
        ExtendTransactionHeader, GetAllSubscriptionGroupHeader, GetAllTopicConfigHeader,
        GetBrokerConsumeStatsHeader, GetBrokerMemberGroupHeader, GetConsumeStatsHeader,
        GetConsumerListByGroupHeader, GetConsumerRunningInfoHeader, GetConsumerStatusHeader, GetKvConfigResponse,
        GetKvListByNamespaceHeader, GetMaxOffsetHeader, GetRouteInfoHeader, GetTopicConfigHeader,
        GetTopicsByClusterHeader, GetTransactionHeader, GiveUpLogHeader, GiveUpLogResponse, GroupForbiddenHeader, GroupHeader, GroupTopicHeader,
        HeartbeatResponse, JoinTransactionHeader, KvKeyHeader, ListTransactionsHeader, MemberHeader, NotificationHeader,
        NotificationResponse, NotifyConsumerIdsChangedHeader, NotifyMinBrokerIdChangeHeader, OffsetResponse,
        PeekMessageHeader, PollingInfoHeader, PollingInfoResponse, PopMessageHeader, PopMessageResponse,
        PreparedBackupHeader, ProducerGroupHeader, PullMessageHeader, PullMessageResponse, PushReplyMessageHeader,
        PutKvConfigHeader, QueryConsumeQueueHeader, QueryConsumerOffsetHeader, QueryCorrectionOffsetHeader,
        QueryDataVersionResponse, QueryMessageHeader, QueryMessageResponse, QueueHeader, RecallMessageHeader,
        RecallMessageResponse, RegisterBrokerHeader, RegisterBrokerResponse, ResetOffsetHeader,
        ResumeCheckHalfMessageHeader, SearchOffsetHeader, SendMessageHeader, SendMessageResponse,
        SendTraceResponse, TopicHeader, TransferLeaderHeader, UnregisterClientHeader, UpdateConsumerOffsetHeader, ViewBrokerStatsHeader,
        ViewMessageHeader, WipeWritePermResponse,
    }
}

/// JSON, as the body of each kind of request and answer.
pub(crate) fn body(input: &[u8]) {
    if let Ok(value) = json::from_slice::<serde_json::Value>(input) {
        let strict = json::to_bytes(&value, Form::Strict);
        assert!(serde_json::from_slice::<serde_json::Value>(&strict).is_ok(), "what is written strictly is strict");
    }
    macro_rules! each {
        ($compare:expr; $($body:ident,)*) => {$(
            if let Ok(read) = json::from_slice::<body::$body>(input) {
                assert!(read.check().is_ok(), "what was read is within its limits");
                for form in [Form::Loose, Form::Strict] {
                    let written = json::to_bytes(&read, form);
                    let again = json::from_slice::<body::$body>(&written);
                    let again = again.unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&written)));
                    assert!(!$compare || again == read, "{again:?} is not {read:?}");
                }
            }
        )*};
    }
    each! { true;
        BatchAckBody, CheckClientBody, ConsumerIdList, ConsumerStatus, DataVersion, GroupList, HeartbeatData,
        KvTable, LockBatchBody, LockBatchResponse, MessageQueue, QueryAssignmentBody, ResetOffsetBody,
        SetMessageRequestModeBody, TopicConfig, TopicConfigList, TopicList,
    }
    // Fractions, and what is passed on as it comes, need not come back to the last digit.
    each! { false;
        BrokerConsumeStats, BrokerMemberGroupBody, BrokerStatsData, ClusterInfo, ConsumeDirectlyResult,
        ConsumeQueueData, ConsumeStats, ConsumeTimeSpanBody, ConsumerConnections, ConsumerOffsetTable,
        ConsumerRunningInfo, CorrectionOffsets, GroupForbidden, ProducerConnections, ProducerTable,
        QueryAssignmentResponse, RegisterBrokerBody, SubscriptionGroupConfig, SubscriptionGroupList,
        SubscriptionGroupTable, SubscriptionOfGroup, TopicConfigTable, TopicRouteData, TopicStats,
        GroupMembers, MembersChanged, TransactionCounts, TransactionInfo, TransactionPage,
    }
    if let Ok(reset) = json::from_slice::<ResetOffsetBody>(input) {
        assert_eq!(json::from_slice::<ResetOffsetBody>(&reset.encode_as_list()).expect("a list is read too"), reset);
    }
}

/// Stored messages one after another, as an answer to a pull brings them.
pub(crate) fn unit(input: &[u8]) {
    let shared = Bytes::copy_from_slice(input);
    let mut taken = 0;
    for message in decode_units(shared.clone()) {
        let Ok(mut message) = message else { break };
        taken += message.store_size;
        assert!(taken <= input.len());
        assert!(message.keys().all(|key| !key.is_empty()));
        let _ = (message.message_id(), message.tag().is_some(), message.decompress(UNPACKED_MAX));
    }
    let Ok(unit) = MessageUnit::decode(input) else { return };
    let mut patched = unit.bytes().to_vec();
    UnitPatch::default().apply(&mut patched).expect("what decodes can be patched");
    MessageUnit::decode(&patched).expect("a patch leaves a unit a unit");
    let properties = unit.properties_text();
    let pieces = [&*properties];
    let mut out = BytesMut::new();
    if UnitBuilder::rewrite(&unit, unit.topic(), &pieces).write(&mut out).is_ok() {
        let again = MessageUnit::decode(&out).expect("what is written is a unit");
        assert_eq!((again.topic(), again.body(), again.queue_id()), (unit.topic(), unit.body(), unit.queue_id()));
        assert_eq!((again.born_host().port(), again.flag()), (unit.born_host().port(), unit.flag()));
        assert_eq!(again.properties_text(), properties);
    }
    let _ = (unit.check_crc(), unit.sys_flag().without(SysFlag::COMPRESSED), unit.offset_message_id().to_string());
}

/// The body of a send of several messages.
pub(crate) fn batch_body(input: &[u8]) {
    let read: Result<Vec<_>, _> = batch::messages(input).collect();
    let Ok(messages) = read else { return };
    let mut out = BytesMut::new();
    for message in &messages {
        message.write(&mut out).expect("what was read can be written");
        let _ = Properties::new(message.properties).iter().count();
    }
    let again: Result<Vec<_>, _> = batch::messages(&out).collect();
    assert_eq!(again.expect("what is written is a batch"), messages);
}

/// A message's properties; also an expression over tags.
pub(crate) fn properties(input: &[u8]) {
    let text = String::from_utf8_lossy(input);
    let properties = Properties::new(&text);
    for (name, value) in properties.iter() {
        assert!(properties.get(name).is_some() && properties.contains(name), "{name:?} {value:?}");
    }
    assert!(properties.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>() <= text.len());
    let _ = (tags_code(properties), properties.number::<i64>("DELAY"), properties.is_true("TRAN_MSG"));
    let mut editor = PropertyEditor::new(&text);
    editor.remove("DELAY");
    let set = editor.set("KEYS", "k").is_ok();
    let edited = editor.finish();
    let edited = Properties::new(&edited);
    assert_eq!(edited.get("DELAY"), None);
    assert_eq!(edited.get("KEYS"), Some("k").filter(|_| set));
    if let Ok(filter) = TagFilter::parse(&text) {
        // The hash never passes over what the words take.
        for tag in text.split("||").map(str::trim).filter(|tag| filter.matches(Some(tag))) {
            let property = format!("TAGS\u{1}{tag}\u{2}");
            let code = tags_code(Properties::new(&property));
            assert!(tag.contains(['\u{1}', '\u{2}']) || tag.is_empty() || filter.may_match(code), "{tag:?}");
        }
    }
    let (topic, group) = (name::validate_topic(&text), name::validate_group(&text));
    assert!(topic.is_ok() || group.is_err() || text.len() > 127, "a group's name is a topic's too");
}

/// A compressed body; the first byte chooses how.
pub(crate) fn compression(input: &[u8]) {
    let Some((kind, body)) = input.split_first() else { return };
    let kind = [CompressionType::Lz4, CompressionType::Zstd, CompressionType::Zlib][usize::from(kind % 3)];
    if let Ok(plain) = kind.decompress(body, UNPACKED_MAX) {
        assert!(plain.len() <= UNPACKED_MAX);
    }
    let packed = kind.compress(body, 1).expect("anything can be compressed");
    assert_eq!(kind.decompress(&packed, body.len()).expect("and is read back"), body);
    if kind == CompressionType::Zstd {
        // The other decoder lets some damage pass that the library refuses; what both take is the same.
        if let Ok(plain) = zstd_decoder::decompress(body, UNPACKED_MAX) {
            assert!(plain.len() <= UNPACKED_MAX);
            assert!(kind.decompress(body, UNPACKED_MAX).map_or(true, |other| other == plain));
        }
        assert_eq!(zstd_decoder::decompress(&packed, body.len()).expect("and is read back"), body);
    }
}

/// The texts of pops: receipts, lists of offsets, sets of bits.
pub(crate) fn pop_text(input: &[u8]) {
    let text = String::from_utf8_lossy(input);
    if let Ok(receipt) = text.parse::<pop::PopReceipt>() {
        assert_eq!(receipt.to_string().parse(), Ok(receipt));
    }
    if let Ok(items) = pop::parse_start_offsets(&text) {
        assert_eq!(pop::parse_start_offsets(&pop::write_start_offsets(&items)), Ok(items));
    }
    if let Ok(items) = pop::parse_message_offsets(&text) {
        assert_eq!(pop::parse_message_offsets(&pop::write_message_offsets(&items)), Ok(items));
    }
    if let Ok(items) = pop::parse_order_counts(&text) {
        assert_eq!(pop::parse_order_counts(&pop::write_order_counts(&items)), Ok(items));
    }
    if let Ok(bits) = pop::parse_ack_bits(&text) {
        let written = pop::write_ack_bits(&bits).expect("what was read can be written");
        assert_eq!(pop::parse_ack_bits(&written), Ok(bits));
    }
}

/// Ids of messages, and handles of those that wait.
pub(crate) fn id(input: &[u8]) {
    let text = String::from_utf8_lossy(input);
    if let Ok(id) = text.parse::<OffsetMessageId>() {
        assert_eq!(id.to_string().parse(), Ok(id));
    }
    let _ = text.parse::<UniqueIdParts>();
    if let Ok(handle) = text.parse::<RecallHandle>() {
        assert_eq!(handle.to_string().parse(), Ok(handle));
    }
}

/// A broker's account of itself to a nameserver; the first byte says whether it is packed. The second kind of packed input
/// is plain here, so that damage reaches what is inside.
pub(crate) fn registration(input: &[u8]) {
    let Some((kind, rest)) = input.split_first() else { return };
    let packed;
    let (bytes, is_packed) = match kind % 3 {
        0 => (rest, false),
        1 => (rest, true),
        _ => {
            packed = CompressionType::Zlib.compress(rest, 1).expect("anything can be compressed");
            (&*packed, true)
        }
    };
    if let Ok(body) = RegisterBrokerBody::decode(bytes, is_packed) {
        RegisterBrokerBody::decode(&body.encode(), false).expect("what was read can be written");
    }
    if let Ok(read) = RegisteredTopics::decode(bytes, is_packed) {
        assert!(read.topics.iter().all(|topic| topic.name.len() <= NAMED_TOPIC_BYTES_MAX));
        assert!(read.mappings.iter().all(|mapping| !mapping.topic.is_empty()));
    }
    drop(RegisteredTopics::decode_bare(rest));
}
