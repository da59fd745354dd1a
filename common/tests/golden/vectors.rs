//! Loading the vectors.

use std::path::Path;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::Value;

/// One recorded frame.
#[derive(Debug, Deserialize)]
pub(crate) struct Golden {
    pub(crate) code: i32,
    pub(crate) req_code: Option<i32>,
    pub(crate) name: String,
    pub(crate) kind: String,
    pub(crate) header_encoding: String,
    pub(crate) made_by: String,
    pub(crate) body_len: usize,
    pub(crate) decoded: Value,
    pub(crate) decoded_messages: Option<Vec<Value>>,
    hex: String,
    /// File and line, for messages.
    #[serde(skip)]
    pub(crate) place: String,
}

impl Golden {
    /// The frame with its length bytes.
    pub(crate) fn bytes(&self) -> Bytes {
        hex(&self.hex)
    }

    /// The code of the request that this frame is, or answers.
    pub(crate) fn request_code(&self) -> i32 {
        self.req_code.unwrap_or(self.code)
    }

    pub(crate) fn is_response(&self) -> bool {
        self.kind == "response"
    }

    pub(crate) fn is_hand_made(&self) -> bool {
        self.made_by.starts_with("hand-made")
    }
}

const FRAME_FILES: &[&str] = &[
    "admin",
    "binary_consume_membership",
    "binary_produce_transactions_admin",
    "consume",
    "errors_and_edge_cases",
    "membership",
    "nameserver",
    "pop",
    "produce",
    "request_reply",
    "transactions",
];

/// All recorded frames.
pub(crate) fn frames() -> Vec<Golden> {
    let mut all = Vec::new();
    for file in FRAME_FILES {
        for (number, line) in lines(file).iter().enumerate() {
            let place = format!("{file}.jsonl:{}", number + 1);
            let golden = serde_json::from_str(line).unwrap_or_else(|error| panic!("{place}: {error}"));
            all.push(Golden { place, ..golden });
        }
    }
    assert!(all.len() > 700, "vectors are missing");
    all
}

/// All lines of `codec.jsonl` of one kind.
pub(crate) fn codec(kind: &str) -> Vec<Value> {
    let found: Vec<Value> = lines("codec")
        .iter()
        .map(|line| serde_json::from_str::<Value>(line).unwrap())
        .filter(|value| value["kind"] == kind)
        .collect();
    assert!(!found.is_empty(), "no vector of kind {kind}");
    found
}

fn lines(file: &str) -> Vec<String> {
    // This file is compiled into other packages of the repository too.
    let mut folders = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().map(|at| at.join("common/tests/vectors"));
    let folder = folders.find(|folder| folder.is_dir()).expect("the vectors lie in the repository");
    let text = std::fs::read_to_string(folder.join(format!("{file}.jsonl"))).unwrap();
    text.lines().map(str::to_owned).collect()
}

/// Bytes of hexadecimal text.
pub(crate) fn hex(text: &str) -> Bytes {
    let pair = |at: usize| u8::from_str_radix(&text[at..at + 2], 16).unwrap();
    (0..text.len()).step_by(2).map(pair).collect()
}

/// Text of a vector's field.
pub(crate) fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value[field].as_str().unwrap_or_else(|| panic!("{field} of {value}"))
}

/// Bytes of a vector's hexadecimal field.
pub(crate) fn hex_field(value: &Value, field: &str) -> Bytes {
    hex(text(value, field))
}
