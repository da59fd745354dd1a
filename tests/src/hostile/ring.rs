//! The last requests of an attack, for whoever has to find out which of them did it.

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::path::PathBuf;

use parking_lot::Mutex;

use super::Shot;
use super::draft::Body;

/// How many are kept: more than a window has.
const KEPT: usize = 1_500;

/// Fields that are shown: usual requests have fewer.
const FIELDS_SHOWN: usize = 40;

/// Bytes of a value and of a body that are shown; the seed makes the whole of it again.
const VALUE_SHOWN: usize = 60;
const BODY_SHOWN: usize = 300;

/// The newest requests.
#[derive(Debug, Default)]
pub(super) struct Ring {
    lines: Mutex<VecDeque<String>>,
}

impl Ring {
    /// Remembers a request that is about to be sent.
    pub(super) fn add(&self, number: u64, line: usize, shot: &Shot) {
        let draft = &shot.draft;
        let encoding = if draft.binary { "binary" } else { "JSON" };
        let mut text = format!(
            "request {number} code {} to {:?} on connection {line}, {encoding}, flag {}, version {}, {:?}:",
            draft.code, shot.target, draft.flag, draft.version, draft.deeds
        );
        for (name, value) in draft.fields.iter().take(FIELDS_SHOWN) {
            text.push(' ');
            show(&mut text, name, VALUE_SHOWN);
            text.push('=');
            show(&mut text, &value.bytes(), VALUE_SHOWN);
        }
        match &draft.body {
            Body::Raw(bytes) if bytes.is_empty() => {}
            body => {
                text.push_str(" body ");
                show(&mut text, &body.written(), BODY_SHOWN);
            }
        }
        let mut lines = self.lines.lock();
        lines.push_back(text);
        if lines.len() > KEPT {
            lines.pop_front();
        }
    }

    /// Writes them down, with the ends of the processes' logs; says where.
    pub(super) fn dump(&self, name: &str, logs: &[(&str, Vec<u8>)]) -> PathBuf {
        let mut text = String::new();
        for line in self.lines.lock().iter() {
            text.push_str(line);
            text.push('\n');
        }
        for (process, log) in logs {
            let _ = write!(text, "--- log of the {process}\n{}\n", String::from_utf8_lossy(log));
        }
        let path = std::env::temp_dir().join(name);
        match std::fs::write(&path, text) {
            Ok(()) => path,
            Err(error) => PathBuf::from(format!("(not written: {error})")),
        }
    }
}

/// Appends the beginning of bytes, and their number where that is not all.
fn show(text: &mut String, bytes: &[u8], most: usize) {
    for byte in bytes.iter().take(most) {
        for shown in std::ascii::escape_default(*byte) {
            text.push(char::from(shown));
        }
    }
    if bytes.len() > most {
        let _ = write!(text, "..({} bytes)", bytes.len());
    }
}
