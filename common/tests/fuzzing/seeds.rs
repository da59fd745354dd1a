//! Seeds of each target: the recorded frames, and the parts within them.

use std::collections::BTreeSet;

use bytes::{BufMut as _, Bytes};
use escrowmq_common::frame::Frame;
use escrowmq_common::message::{CompressionType, RecallHandle};

use super::vectors::{self, Golden};

/// The inputs of a target, each once.
pub(crate) fn of(target: &str) -> BTreeSet<Vec<u8>> {
    let mut seeds = BTreeSet::new();
    for golden in vectors::frames() {
        let Ok(frame) = Frame::decode(golden.bytes().slice(4..)) else { continue };
        add(target, &golden, &frame, &mut seeds);
    }
    match target {
        "compression" => {
            for (mark, kind) in (0_u8..).zip([CompressionType::Lz4, CompressionType::Zstd, CompressionType::Zlib]) {
                for plain in [&b""[..], b"rocket rocket rocket rocket", &[7; 3000]] {
                    seeds.insert([&[mark], &*kind.compress(plain, 5).expect("anything can be compressed")].concat());
                }
            }
        }
        "id" => {
            let (topic, broker) = ("T".to_owned(), "b".to_owned());
            let handle = RecallHandle { topic, broker, deliver_timestamp: 5, unique_key: "U".to_owned() };
            seeds.insert(handle.to_string().into_bytes());
        }
        _ => {}
    }
    assert!(!seeds.is_empty(), "no recorded frame holds anything for {target}");
    seeds
}

fn add(target: &str, golden: &Golden, frame: &Frame, seeds: &mut BTreeSet<Vec<u8>>) {
    let is_json = frame.body.starts_with(b"{") || frame.body.starts_with(b"[");
    let named = |names: &[&str]| -> Vec<Vec<u8>> {
        let fields = frame.fields.iter().filter(|(name, _)| names.contains(name));
        fields.map(|(_, value)| value.as_bytes().to_vec()).collect()
    };
    match target {
        "frame" => drop(seeds.insert(golden.bytes().to_vec())),
        "header" => {
            let lines: Vec<String> = frame.fields.iter().map(|(name, value)| format!("{name}={value}")).collect();
            seeds.insert(lines.join("\n").into_bytes());
        }
        "body" if is_json => drop(seeds.insert(frame.body.to_vec())),
        "unit" if golden.decoded_messages.is_some() => drop(seeds.insert(frame.body.to_vec())),
        "batch" if golden.request_code() == 320 && !golden.is_response() => drop(seeds.insert(frame.body.to_vec())),
        "properties" => seeds.extend(named(&["i", "properties", "subscription"])),
        "pop" => {
            seeds.extend(named(&["extraInfo", "startOffsetInfo", "msgOffsetInfo", "orderCountInfo"]));
            if golden.request_code() == 200_151 {
                let bits = serde_json::from_slice(&frame.body).ok().and_then(|body: serde_json::Value| {
                    body.pointer("/acks/0/b").and_then(|bits| bits.as_str().map(|bits| bits.as_bytes().to_vec()))
                });
                seeds.extend(bits);
            }
        }
        "id" => seeds.extend(named(&["msgId", "offsetMsgId", "transactionId", "originMsgId"])),
        "registration" if golden.request_code() == 103 && !golden.is_response() => registrations(&frame.body, seeds),
        _ => {}
    }
}

/// A registration as it came, and unpacked.
fn registrations(body: &Bytes, seeds: &mut BTreeSet<Vec<u8>>) {
    let marked = |mark: u8, bytes: &[u8]| {
        let mut seed = Vec::with_capacity(bytes.len() + 1);
        seed.put_u8(mark);
        seed.put_slice(bytes);
        seed
    };
    match CompressionType::Zlib.decompress(body, 1 << 20) {
        Ok(plain) => seeds.extend([marked(1, body), marked(2, &plain)]),
        Err(_) => drop(seeds.insert(marked(0, body))),
    }
}
