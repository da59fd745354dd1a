//! Headers of good and bad fields.

use super::*;
use crate::frame::{Fields, Frame};

fn fields(pairs: &[(&str, &str)]) -> Fields {
    let mut fields = Fields::new();
    for (key, value) in pairs {
        fields.insert_text(key, value);
    }
    fields
}

const SHORT: [(&str, &str); 9] = [
    ("a", "PG"),
    ("b", "T"),
    ("c", "TBW102"),
    ("d", "4"),
    ("e", "-1"),
    ("f", "4"),
    ("g", "1700000000123"),
    ("h", "0"),
    ("i", "K\u{1}v\u{2}"),
];

#[test]
fn both_spellings_of_a_send_read_the_same() {
    let short = fields(&SHORT);
    let short = SendMessageHeader::decode(&short).unwrap();
    assert_eq!(short.queue_id, -1);
    assert_eq!(short.born_timestamp, 1_700_000_000_123);
    assert_eq!(short.properties, Some("K\u{1}v\u{2}"));
    assert_eq!(short.reconsume_times, 0);
    assert!(!short.batch);
    let mut long = Fields::new();
    short.encode_long(&mut long);
    assert_eq!(long.get("producerGroup"), Some("PG"));
    assert_eq!(SendMessageHeader::decode(&long).unwrap(), short);
    let mut again = Fields::new();
    short.encode(&mut again);
    assert_eq!(again.get("a"), Some("PG"));
    assert_eq!(SendMessageHeader::decode(&again).unwrap(), short);
}

#[test]
fn errors_name_the_field_and_what_was_wrong() {
    let mut bad = fields(&SHORT);
    bad.insert("e", "x");
    let error = SendMessageHeader::decode(&bad).unwrap_err();
    assert_eq!(error.to_string(), "queueId: not a number: 'x'");
    assert_eq!(error.code(), 1);
    let error = UpdateConsumerOffsetHeader::decode(&Fields::new()).unwrap_err();
    assert_eq!(error.to_string(), "consumerGroup: missing");
    let long = "y".repeat(10_000);
    let error = OffsetResponse::decode(&fields(&[("offset", &long)])).unwrap_err();
    assert!(error.to_string().len() < 100);
}

#[test]
fn booleans_read_as_clients_write_them_and_others_are_refused() {
    for (text, value) in
        [("true", true), ("TRUE", true), ("1", true), ("false", false), ("False", false), ("0", false), ("", false)]
    {
        let fields = fields(&[("hasMsg", text)]);
        assert_eq!(NotificationResponse::decode(&fields).unwrap().has_msg, value, "{text}");
    }
    for (field, text) in [("hasMsg", "yes"), ("hasMsg", "2"), ("pollingFull", "tru")] {
        let fields = fields(&[("hasMsg", "true"), (field, text)]);
        let error = NotificationResponse::decode(&fields).unwrap_err();
        assert_eq!(error.to_string(), format!("{field}: not true or false: '{text}'"));
    }
}

#[test]
fn a_text_above_its_limit_is_refused_with_both_numbers() {
    let decode = |topic: &str| {
        UpdateConsumerOffsetHeader::decode(&fields(&[
            ("consumerGroup", "G"),
            ("topic", topic),
            ("queueId", "0"),
            ("commitOffset", "1"),
        ]))
        .map(|header| header.commit_offset)
    };
    assert_eq!(decode(&"t".repeat(255)), Ok(1));
    let error = decode(&"t".repeat(256)).unwrap_err();
    assert_eq!(error.to_string(), "topic: 256 bytes, at most 255 are taken");
    assert_eq!((error.code(), error.is_retryable()), (13, false));
    // Bytes count, not characters; and what is only there by chance is limited too.
    assert!(decode(&"ü".repeat(128)).is_err());
    let long = "v".repeat(70_000);
    let end =
        [("producerGroup", "G"), ("tranStateTableOffset", "1"), ("commitLogOffset", "2"), ("commitOrRollback", "8")];
    for optional in ["msgId", "transactionId", "topic", "bname"] {
        let mut fields = fields(&end);
        assert!(EndTransactionHeader::decode(&fields).is_ok());
        fields.insert_text(optional, &long);
        assert_eq!(EndTransactionHeader::decode(&fields).unwrap_err().field, optional);
    }
}

#[test]
fn a_number_out_of_its_range_is_refused_with_the_range() {
    let error = JoinTransactionHeader::decode(&fields(&[("transactionFirst", "-1")])).unwrap_err();
    assert_eq!(error.to_string(), "transactionFirst: -1 is not between 0 and 9223372036854775807");
    assert_eq!(error.code(), 29);
    assert!(ExtendTransactionHeader::decode(&fields(&[("retryAfterMillis", "soon")])).is_err());
    assert_eq!(
        ExtendTransactionHeader::decode(&fields(&[("retryAfterMillis", "0")])).unwrap().retry_after_millis,
        Some(0)
    );
}

#[test]
fn an_empty_number_counts_as_missing() {
    let fields = fields(&[("topic", "T"), ("queueId", "1"), ("group", "G"), ("offset", ""), ("timestamp", "")]);
    let header = ResetOffsetHeader::decode(&fields).unwrap();
    assert_eq!((header.offset, header.timestamp, header.queue_id), (None, -1, Some(1)));
}

#[test]
fn early_go_spellings_are_read() {
    let fields = fields(&[("Topic", "T"), ("QueueId", "2"), ("timestamp", "5")]);
    let header = SearchOffsetHeader::decode(&fields).unwrap();
    assert_eq!((header.topic, header.queue_id, header.timestamp), ("T", 2, 5));
}

#[test]
fn a_header_travels_in_a_frame() {
    let header = EndTransactionHeader {
        producer_group: "PG",
        tran_state_table_offset: 7,
        commit_log_offset: 1 << 40,
        commit_or_rollback: 8,
        from_transaction_check: true,
        msg_id: Some("id"),
        transaction_id: None,
        topic: None,
        broker_name: None,
    };
    let frame = Frame::request(37).with_header(&header);
    assert_eq!(frame.fields.get("transactionId"), None);
    assert_eq!(frame.header::<EndTransactionHeader<'_>>().unwrap(), header);
}

#[test]
fn our_fields_go_beside_the_protocols_own() {
    let end = EndTransactionHeader {
        producer_group: "PG",
        tran_state_table_offset: 7,
        commit_log_offset: 9,
        commit_or_rollback: 0,
        from_transaction_check: false,
        msg_id: None,
        transaction_id: None,
        topic: None,
        broker_name: None,
    };
    let extend = ExtendTransactionHeader { retry_after_millis: Some(5_000) };
    let frame = Frame::request(37).with_header(&end).with_header(&extend);
    assert_eq!(frame.header::<EndTransactionHeader<'_>>().unwrap(), end);
    assert_eq!(frame.header::<ExtendTransactionHeader>().unwrap(), extend);
    let plain = Frame::request(37).with_header(&end);
    let plain = plain.header::<ExtendTransactionHeader>().unwrap();
    assert_eq!(plain.retry_after_millis, None, "its absence is told from zero");
}

#[test]
fn an_answer_to_a_decision_may_say_little() {
    let bare = Fields::new();
    let answer = EndTransactionResponse::decode(&bare).unwrap();
    assert_eq!((answer.outcome, answer.repeated, answer.queue_offset), (None, false, None));
    let told = fields(&[("outcome", "committed"), ("repeated", "true"), ("queueOffset", "3"), ("members", "9:U:0:")]);
    let answer = EndTransactionResponse::decode(&told).unwrap();
    assert_eq!((answer.outcome, answer.repeated, answer.queue_offset), (Some("committed"), true, Some(3)));
    assert_eq!(answer.members, Some("9:U:0:"));
}
