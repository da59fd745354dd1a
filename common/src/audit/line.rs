//! One line, as it is logged and as it stands in the file.

use serde::Serialize;

use crate::calendar::CalendarTime;

/// The target of all lines.
const TARGET: &str = "audit";

/// One line. Fields that do not apply are left out.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub(super) struct Line<'a> {
    /// What was done, in two or three words.
    pub(super) act: &'a str,
    /// `done`, `refused`, or `unanswered`.
    pub(super) outcome: &'a str,
    /// The client, as far as the network tells it.
    pub(super) peer: &'a str,
    /// The name that the operator gave. Nothing proves it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) operator: Option<&'a str>,
    /// What it was done to, with the values before and after.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) object: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) old: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) new: Option<&'a str>,
    /// The fields of the request, where no object is named.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) asked: Option<&'a str>,
    /// Code and remark of the answer to a refused act.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) code: Option<i32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) remark: Option<&'a str>,
    /// Refused acts before this one that have no line.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) others: Option<u64>,
}

impl Line<'_> {
    /// Into the log.
    pub(super) fn log(&self) {
        let Self { act, outcome, peer, operator, object, old, new, asked, code, remark, others } = *self;
        let colon = if outcome == super::act::DONE { "" } else { ": " };
        let said = if outcome == super::act::DONE { "" } else { outcome };
        tracing::info!(
            target: TARGET, event = "audit", outcome, peer, operator, object, old, new, asked, code, remark, others,
            "{act}{colon}{said}"
        );
    }

    /// The line of the file, with its end. `now` is in milliseconds since 1970.
    pub(super) fn json(&self, now: i64) -> Vec<u8> {
        #[derive(Serialize)]
        struct Timed<'a> {
            timestamp: String,
            #[serde(flatten)]
            line: &'a Line<'a>,
        }
        let timed = Timed { timestamp: timestamp(now), line: self };
        let mut bytes = serde_json::to_vec(&timed).expect("texts and numbers alone");
        bytes.push(b'\n');
        bytes
    }
}

/// As the lines of the log have it, in milliseconds.
pub(super) fn timestamp(since_1970: i64) -> String {
    let CalendarTime { year, month, day, hour, minute, second, millis } = CalendarTime::of(since_1970);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{millis:03}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_the_file_is_one_json_object_without_what_does_not_apply() {
        let line =
            Line { act: "delete topic", outcome: "refused", peer: "10.0.0.1:5", code: Some(16), ..Line::default() };
        let text = String::from_utf8(line.json(86_400_001)).unwrap();
        let expected = r#"{"timestamp":"1970-01-02T00:00:00.001Z","act":"delete topic","outcome":"refused","peer":"10.0.0.1:5","code":16}"#;
        assert_eq!(text, format!("{expected}\n"));
        let forged = Line { old: Some("a\n{\"act\":\"x\"}"), ..line };
        assert_eq!(String::from_utf8(forged.json(0)).unwrap().matches('\n').count(), 1);
    }
}
