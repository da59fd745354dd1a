//! The history of a half before its decision: whom checks went to, and the acts of operators. Its row holds it, and
//! then the row of its decision.

use bytes::BufMut;
use escrowmq_common::limits;

use crate::terms::{Cursor, Malformed, Stamp, put_text, to_u8};

/// The number of checks that are remembered of those that were sent.
pub(crate) const ASKED_MAX: usize = 16;
/// The number of operators' acts that are remembered.
pub(crate) const ACTS_MAX: usize = 8;
const _: () = assert!(if ASKED_MAX > ACTS_MAX { ASKED_MAX } else { ACTS_MAX } < 256, "a row counts them in a byte");

/// Most bytes of a history whose names are within the limits.
pub(super) const HISTORY_BYTES_MAX: usize = 2
    + ASKED_MAX * (8 + 2 + limits::CLIENT_ID_BYTES_MAX)
    + ACTS_MAX * (8 + 1 + 4 + limits::OPERATOR_BYTES_MAX + limits::REASON_BYTES_MAX);

/// A check that was sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    /// When.
    pub at: Stamp,
    /// Client id of the instance that was asked.
    pub client: String,
}

/// An operator's act on a half, short of deciding it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Act {
    /// When.
    pub at: Stamp,
    /// Parked, or else resumed.
    pub parked: bool,
    /// The operator.
    pub by: String,
    /// Why.
    pub why: String,
}

/// Writes whom checks went to and what operators did.
pub(super) fn put_history(out: &mut Vec<u8>, asked: &[Asked], acts: &[Act]) {
    out.put_u8(to_u8(asked.len()));
    for asked in asked {
        out.put_u64(asked.at.get());
        put_text(out, &asked.client);
    }
    out.put_u8(to_u8(acts.len()));
    for act in acts {
        out.put_u64(act.at.get());
        out.put_u8(u8::from(act.parked));
        put_text(out, &act.by);
        put_text(out, &act.why);
    }
}

/// Reads what [`put_history`] wrote.
pub(super) fn read_history(row: &mut Cursor<'_>) -> Result<(Vec<Asked>, Vec<Act>), Malformed> {
    let (mut all_asked, mut acts) = (Vec::new(), Vec::new());
    for _ in 0..row.u8("asked")? {
        all_asked.push(Asked { at: Stamp(row.u64("asked at")?), client: row.text("asked")?.to_owned() });
    }
    for _ in 0..row.u8("acts")? {
        let (at, parked) = (Stamp(row.u64("act at")?), row.u8("act")? != 0);
        let (by, why) = (row.text("by")?.to_owned(), row.text("why")?.to_owned());
        acts.push(Act { at, parked, by, why });
    }
    Ok((all_asked, acts))
}
