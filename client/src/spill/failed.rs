//! The failure log: what was given up or found damaged, for a person to read, one JSON object a line.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use escrowmq_common::calendar::CalendarTime;
use escrowmq_common::message::body_crc;
use escrowmq_common::message::properties::name;
use serde_json::{Map, Value, json};

use super::FILE_MODE;
use super::record::Kept;
use crate::message::Message;

/// Its name in the folder.
const FILE: &str = "failed.jsonl";

/// A message that was given up.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct FailedMessage {
    /// When it was given up, in UTC.
    pub time: String,
    /// Why.
    pub reason: String,
    /// A broker may have it all the same: an attempt before it was spilled ended without an answer.
    pub possible_duplicate: bool,
    /// The message, with the unique id that every attempt carried.
    pub message: Message,
}

/// The file, open for more.
#[derive(Debug)]
pub(super) struct FailedLog {
    file: File,
    bytes: u64,
}

impl FailedLog {
    pub(super) fn open(folder: &Path) -> io::Result<FailedLog> {
        let mut options = OpenOptions::new();
        let mut file = options.read(true).append(true).create(true).mode(FILE_MODE).open(folder.join(FILE))?;
        // Messages are taken out elsewhere once they are here: the file must be there after a power cut.
        File::open(folder)?.sync_all()?;
        let bytes = file.metadata()?.len();
        let mut log = FailedLog { file: file.try_clone()?, bytes };
        if bytes > 0 {
            let mut last = [0];
            file.seek(SeekFrom::End(-1))?;
            file.read_exact(&mut last)?;
            if last != *b"\n" {
                // A line that was cut off: its message is still among those that wait.
                log.write(b"\n")?;
            }
        }
        Ok(log)
    }

    /// Bytes of the file.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Writes a message down, on disk for good.
    pub(super) fn message(&mut self, kept: &Kept, reason: &str, now_ms: i64) -> io::Result<()> {
        self.line(&message_line(kept, reason, now_ms))
    }

    /// Writes down that a part of a segment cannot be read.
    pub(super) fn damage(&mut self, file: &str, offset: u32, length: u32, now_ms: i64) -> io::Result<()> {
        self.line(&json!({
            "time": shown(now_ms),
            "damaged": file,
            "offset": offset,
            "bytes": length,
            "reason": "the checksum is wrong: a message or several may be lost; the bytes stay in the file",
        }))
    }

    fn line(&mut self, value: &Value) -> io::Result<()> {
        let mut line = value.to_string();
        line.push('\n');
        self.write(line.as_bytes())
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        let written = self.file.write_all(bytes).and_then(|()| self.file.sync_data());
        match written {
            Ok(()) => self.bytes += bytes.len() as u64,
            // Without the half line; if that fails too, a reader passes over it.
            Err(_) => drop(self.file.set_len(self.bytes)),
        }
        written
    }
}

/// A time as ISO 8601 writes it.
fn shown(now_ms: i64) -> String {
    let CalendarTime { year, month, day, hour, minute, second, millis } = CalendarTime::of(now_ms);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{millis:03}Z")
}

fn message_line(kept: &Kept, reason: &str, now_ms: i64) -> Value {
    let message = &kept.message;
    let properties: Map<String, Value> =
        message.properties().map(|(name, value)| (name.to_owned(), value.into())).collect();
    let (form, body) = match std::str::from_utf8(message.body()) {
        Ok(text) => ("body", text.to_owned()),
        Err(_) => ("bodyBase64", STANDARD.encode(message.body())),
    };
    json!({
        "time": shown(now_ms),
        "topic": message.topic(),
        "key": message.get(name::SHARDING_KEY),
        "uniqueId": message.get(name::UNIQUE_KEY),
        "bodyCrc": body_crc(message.body()),
        "reason": reason,
        "possibleDuplicate": kept.possible_duplicate,
        "spilled": shown(kept.since_ms),
        "flag": message.flag_value(),
        "properties": properties,
        form: body,
    })
}

/// The messages of a failure log, in the order in which they were given up. Lines about damage, and such that are not whole, are
/// passed over.
pub(super) fn read(folder: &Path) -> io::Result<Vec<FailedMessage>> {
    let text = match std::fs::read(folder.join(FILE)) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let lines = text.split(|byte| *byte == b'\n').filter_map(|line| serde_json::from_slice::<Value>(line).ok());
    Ok(lines.filter_map(|line| failed_message(&line)).collect())
}

fn failed_message(line: &Value) -> Option<FailedMessage> {
    let text = |key: &str| line[key].as_str().map(str::to_owned);
    let body = match line["bodyBase64"].as_str() {
        Some(body) => STANDARD.decode(body).ok()?,
        None => text("body")?.into_bytes(),
    };
    let flag = i32::try_from(line["flag"].as_i64()?).ok()?;
    let mut message = Message::new(text("topic")?, body).flag(flag);
    for (name, value) in line["properties"].as_object()? {
        message.restore(name.clone(), value.as_str()?);
    }
    Some(FailedMessage {
        time: text("time")?,
        reason: text("reason")?,
        possible_duplicate: line["possibleDuplicate"].as_bool()?,
        message,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_message_is_readable_by_people_and_by_programs() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut log = FailedLog::open(folder.path()).expect("a log");
        let message = Message::new("Orders", "order 17").sharding_key("c-1").tag("paid").unique_id("u1").flag(4);
        let binary = Message::new("Orders", vec![255, 0]).unique_id("u2");
        for message in [message, binary] {
            let kept = Kept { number: 1, since_ms: 1_000, possible_duplicate: true, message };
            log.message(&kept, "too \"large\"", 1_700_000_000_000).expect("written");
        }
        let text = std::fs::read_to_string(folder.path().join(FILE)).expect("text");
        assert_eq!(log.bytes(), text.len() as u64);
        for part in
            ["\"topic\":\"Orders\"", "\"key\":\"c-1\"", "\"uniqueId\":\"u1\"", "2023-11-14", "\"body\":\"order 17\""]
        {
            assert!(text.contains(part), "{part} in {text}");
        }
        drop(log);
        // The process died while it wrote a third line.
        let mut file = OpenOptions::new().append(true).open(folder.path().join(FILE)).expect("the file");
        file.write_all(b"{\"time\":\"20").expect("written");
        let mut log = FailedLog::open(folder.path()).expect("a log");
        log.damage("000000000001.spill", 20, 99, 0).expect("written");
        let failed = read(folder.path()).expect("readable");
        assert_eq!(failed.len(), 2);
        assert_eq!(failed[0].reason, "too \"large\"");
        assert_eq!(failed[0].message.get("TAGS"), Some("paid"));
        assert_eq!(&failed[1].message.body()[..], [255, 0]);
        failed[0].message.validate(100).expect("it can be sent again");
    }
}
