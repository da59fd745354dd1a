//! Damaged frames are errors or other frames, never a panic; and what is inside them likewise.

use bytes::{Bytes, BytesMut};
use escrowmq_common::body::{
    ClusterInfo, ConsumerRunningInfo, ConsumerStatus, HeartbeatData, RegisterBrokerBody, ResetOffsetBody,
    TopicRouteData, json,
};
use escrowmq_common::frame::{Frame, FrameDecoder};
use escrowmq_common::message::{MessageUnit, Properties, UnitPatch, batch, decode_units};
use proptest::prelude::RngExt as _;
use proptest::test_runner::{RngAlgorithm, TestRng};

use super::vectors;

/// Damaged copies of each frame. The debug build takes ten times as long for each.
const CORRUPTIONS: usize = if cfg!(debug_assertions) { 300 } else { 3000 };

/// Feeds everything that reads bodies. The outcome does not matter, only that there is one.
fn read_body(body: &Bytes) {
    for message in decode_units(body.clone()) {
        let Ok(mut message) = message else { break };
        let _ = message.properties().iter().count();
        let _ = message.decompress(1 << 16);
    }
    for message in batch::messages(body) {
        let Ok(message) = message else { break };
        let _ = Properties::new(message.properties).iter().count();
    }
    if MessageUnit::decode(body).is_ok() {
        let mut copy = body.to_vec();
        UnitPatch::default().apply(&mut copy).expect("what decodes can be patched");
        MessageUnit::decode(&copy).expect("a patch leaves a unit a unit");
    }
    if body.first() == Some(&b'{') {
        let _ = json::from_slice::<serde_json::Value>(body);
        let _ = json::from_slice::<HeartbeatData>(body);
        let _ = json::from_slice::<TopicRouteData>(body);
        let _ = json::from_slice::<ClusterInfo>(body);
        let _ = json::from_slice::<ResetOffsetBody>(body);
        let _ = json::from_slice::<ConsumerStatus>(body);
        let _ = json::from_slice::<ConsumerRunningInfo>(body);
    }
    let _ = RegisterBrokerBody::decode(body, true);
    let _ = RegisterBrokerBody::decode(body, false);
}

#[test]
fn every_truncation_waits_for_more_or_is_an_error() {
    let decoder = FrameDecoder::default();
    for golden in vectors::frames() {
        let bytes = golden.bytes();
        for cut in 0..bytes.len() {
            let mut partial = BytesMut::from(&bytes[..cut]);
            let outcome = decoder.next(&mut partial);
            assert!(matches!(outcome, Ok(None)), "{} cut at {cut}: {outcome:?}", golden.place);
            // The same bytes as if their length field agreed with the cut.
            if cut >= 4
                && let Ok(frame) = Frame::decode(bytes.slice(4..cut))
            {
                assert!(frame.body.len() < cut, "{}", golden.place);
            }
        }
    }
}

#[test]
fn bodies_cut_anywhere_are_refused_or_read() {
    for golden in vectors::frames() {
        let frame = Frame::decode(golden.bytes().slice(4..)).unwrap();
        let step = frame.body.len() / 200 + 1;
        for cut in (0..frame.body.len()).step_by(step) {
            read_body(&frame.body.slice(..cut));
        }
    }
}

#[test]
fn random_corruptions_are_refused_or_read() {
    let mut random = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    let decoder = FrameDecoder::default();
    for golden in vectors::frames() {
        let mut bytes = golden.bytes().to_vec();
        for _ in 0..CORRUPTIONS {
            let at = random.random_range(0..bytes.len());
            let kept = bytes[at];
            bytes[at] = random.random();
            if let Ok(Some(frame)) = decoder.next(&mut BytesMut::from(&bytes[..])) {
                assert!(frame.body.len() <= bytes.len());
                let in_body = at >= bytes.len() - frame.body.len();
                // Bodies are costly to try; one in eight of the damaged ones is enough for these many frames.
                if in_body && random.random_ratio(1, 8) {
                    read_body(&frame.body);
                }
            }
            bytes[at] = kept;
        }
    }
}
