//! Recorded JSON bodies fit the types of `body`: nothing in them is lost, and what we write says the same.

use std::collections::BTreeSet;

use escrowmq_common::body::{
    BatchAckBody, Body, BrokerStatsData, CheckClientBody, ClusterInfo, ConsumeDirectlyResult, ConsumeQueueData,
    ConsumeStats, ConsumeTimeSpanBody, ConsumerConnections, ConsumerIdList, ConsumerRunningInfo, ConsumerStatus, Form,
    GroupList, HeartbeatData, KvTable, LockBatchBody, LockBatchResponse, QueryAssignmentBody, QueryAssignmentResponse,
    RegisterBrokerBody, ResetOffsetBody, SetMessageRequestModeBody, SubscriptionGroupConfig, TopicConfig,
    TopicConfigTable, TopicList, TopicRouteData, TopicStats, json,
};
use escrowmq_common::frame::Frame;
use serde::Serialize;
use serde_json::Value;

use super::vectors;

/// Reads `body` as `T`, writes it in both forms and compares everything with the plain JSON value of the recording. The
/// comparison knows no order of members, and a field that `T` lacks makes it fail.
fn check<T: Body + Serialize>(place: &str, body: &[u8]) {
    let recorded: Value = json::from_slice(body).unwrap_or_else(|error| panic!("{place}: {error}"));
    let typed: T = json::from_slice(body).unwrap_or_else(|error| panic!("{place}: {error}"));
    for form in [Form::Loose, Form::Strict] {
        let written = json::to_bytes(&typed, form);
        let again: Value = json::from_slice(&written).unwrap();
        assert!(
            lists_sorted(again) == lists_sorted(recorded.clone()),
            "{place}\nrecorded {}\nwritten  {}",
            String::from_utf8_lossy(body),
            String::from_utf8_lossy(&written),
        );
    }
    serde_json::from_slice::<Value>(&json::to_bytes(&typed, Form::Strict)).unwrap();
}

/// Java writes sets in the order of their hashes.
fn lists_sorted(value: Value) -> Value {
    match value {
        Value::Array(items) => {
            let mut items: Vec<_> = items.into_iter().map(lists_sorted).collect();
            items.sort_by_key(Value::to_string);
            Value::Array(items)
        }
        Value::Object(members) => members.into_iter().map(|(name, value)| (name, lists_sorted(value))).collect(),
        other => other,
    }
}

type Check = fn(&str, &[u8]);

/// The type of the body of a request code, or of its response.
fn type_of(code: i32, is_response: bool) -> Option<Check> {
    Some(match (code, is_response) {
        (34, false) => check::<HeartbeatData>,
        (46, false) => check::<CheckClientBody>,
        (38, true) => check::<ConsumerIdList>,
        (41 | 42, false) => check::<LockBatchBody>,
        (41, true) => check::<LockBatchResponse>,
        (103, false) => check::<RegisterBrokerBody>,
        (103 | 219, true) => check::<KvTable>,
        (105, true) => check::<TopicRouteData>,
        (106, true) => check::<ClusterInfo>,
        (200, false) => check::<SubscriptionGroupConfig>,
        (202, true) => check::<TopicStats>,
        (203, true) => check::<ConsumerConnections>,
        (206 | 224, true) => check::<TopicList>,
        (208, true) => check::<ConsumeStats>,
        (21, true) => check::<TopicConfigTable>,
        (220, false) | (222, true) => check::<ResetOffsetBody>,
        (221 | 223, true) => check::<ConsumerStatus>,
        (300, true) => check::<GroupList>,
        (303, true) => check::<ConsumeTimeSpanBody>,
        (307, true) => check::<ConsumerRunningInfo>,
        (309, true) => check::<ConsumeDirectlyResult>,
        (315, true) => check::<BrokerStatsData>,
        (321, true) => check::<ConsumeQueueData>,
        (351, true) => check::<TopicConfig>,
        (400, false) => check::<QueryAssignmentBody>,
        (400, true) => check::<QueryAssignmentResponse>,
        (401, false) => check::<SetMessageRequestModeBody>,
        (200_151, false) => check::<BatchAckBody>,
        _ => return None,
    })
}

#[test]
fn every_json_body_fits_its_type() {
    let mut seen = BTreeSet::new();
    let mut untyped = BTreeSet::new();
    for golden in vectors::frames() {
        let frame = Frame::decode(golden.bytes().slice(4..)).unwrap();
        // A hand-made body is broken on purpose unless it is a batch acknowledgement.
        if !frame.body.starts_with(b"{") || (golden.is_hand_made() && golden.code != 200_151) {
            continue;
        }
        let key = (golden.request_code(), golden.is_response());
        match type_of(key.0, key.1) {
            // The list form of a reset is written by a method of its own.
            Some(_) if frame.body.starts_with(br#"{"offsetTable":[{"#) => {
                let body: ResetOffsetBody = json::from_slice(&frame.body).unwrap();
                assert_eq!(body.encode_as_list(), frame.body, "{}", golden.place);
            }
            Some(check) => {
                check(&golden.place, &frame.body);
                seen.insert(key);
            }
            None => {
                untyped.insert((key, golden.name.clone()));
            }
        }
    }
    assert_eq!(seen.len(), 33, "{seen:?}");
    // Nobody here answers with, or reads, the state of Apache's own replication.
    assert_eq!(untyped.iter().map(|(key, _)| key.0).collect::<Vec<_>>(), [907], "{untyped:?}");
}

/// Go reads the route as text, so member order and bare keys must be exactly as recorded.
#[test]
fn routes_and_small_bodies_are_written_byte_for_byte() {
    let mut routes = 0;
    for golden in vectors::frames() {
        let frame = Frame::decode(golden.bytes().slice(4..)).unwrap();
        if golden.is_hand_made() && golden.request_code() != 105 || frame.body.is_empty() {
            continue;
        }
        let written = match (golden.request_code(), golden.is_response()) {
            (105, true) => {
                routes += 1;
                let is_loose = frame.body.windows(3).any(|three| three == b"{0:");
                let form = if is_loose { Form::Loose } else { Form::Strict };
                json::from_slice::<TopicRouteData>(&frame.body).unwrap().encode(form)
            }
            (106, true) => {
                let info: ClusterInfo = json::from_slice(&frame.body).unwrap();
                json::to_bytes(&info, Form::Loose)
            }
            (34, false) => {
                let data: HeartbeatData = json::from_slice(&frame.body).unwrap();
                json::to_bytes(&data, Form::Loose)
            }
            (41 | 42, false) => {
                let body: LockBatchBody = json::from_slice(&frame.body).unwrap();
                json::to_bytes(&body, Form::Loose)
            }
            (200, false) => {
                let config: SubscriptionGroupConfig = json::from_slice(&frame.body).unwrap();
                json::to_bytes(&config, Form::Loose)
            }
            (351, true) => {
                let config: TopicConfig = json::from_slice(&frame.body).unwrap();
                json::to_bytes(&config, Form::Loose)
            }
            _ => continue,
        };
        assert_eq!(written, frame.body, "{}", golden.place);
    }
    assert!(routes > 10, "only {routes} routes");
}
