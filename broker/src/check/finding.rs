//! Everything that can be wrong, in an operator's words.

use std::fmt;
use std::path::PathBuf;

/// A thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The kind of fault.
    pub kind: Kind,
    /// The file, or the folder if a file is missing.
    pub file: PathBuf,
    /// The byte in the file, where one can be named.
    pub offset: Option<u64>,
    /// A description of what was seen there.
    pub what: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.kind.name(), self.file.display())?;
        if let Some(offset) = self.offset {
            write!(f, " at byte {offset}")?;
        }
        write!(f, ": {}", self.what)
    }
}

/// The kinds of faults.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// An unacknowledged write at the log's end that a crash cut short.
    TornTail,
    /// Bytes in the free space of a finished segment.
    StrayBytes,
    /// A good record whose note about durability is damaged.
    RecordNote,
    /// One of the two copies of the vote is damaged.
    VoteCopy,
    /// Acknowledged bytes of the log are altered or missing.
    LogDamaged,
    /// The vote is lost.
    VoteLost,
    /// A good record holds a message whose checksum is wrong.
    MessageDamaged,
    /// A good record does not decode.
    CommandMalformed,
    /// A file was written by another version.
    OtherFormat,
    /// A file of the index is damaged or missing.
    IndexUnreadable,
    /// A row of the index does not decode, or points at nothing.
    IndexRow,
    /// The index has applied more than the log holds.
    IndexAhead,
    /// The log begins after the last entry that the index has applied, or there is no index and the log does not begin
    /// at 0.
    IndexBehind,
    /// The index differs from what the log says.
    IndexDiffers,
    /// The copy of the index that a lost one would be made from cannot be used.
    BaseDamaged,
    /// A file of the key index is damaged.
    KeysDamaged,
}

impl Kind {
    /// A name for programs.
    pub fn name(self) -> &'static str {
        match self {
            Self::TornTail => "torn-tail",
            Self::StrayBytes => "stray-bytes",
            Self::RecordNote => "record-note",
            Self::VoteCopy => "vote-copy",
            Self::LogDamaged => "log-damaged",
            Self::VoteLost => "vote-lost",
            Self::MessageDamaged => "message-damaged",
            Self::CommandMalformed => "command-malformed",
            Self::OtherFormat => "other-format",
            Self::IndexUnreadable => "index-unreadable",
            Self::IndexRow => "index-row",
            Self::IndexAhead => "index-ahead",
            Self::IndexBehind => "index-behind",
            Self::IndexDiffers => "index-differs",
            Self::BaseDamaged => "base-damaged",
            Self::KeysDamaged => "keys-damaged",
        }
    }

    /// The meaning of the fault, in words.
    pub fn meaning(self) -> &'static str {
        match self {
            Self::TornTail => "a crash cut a write short that had not been acknowledged; nothing is lost",
            Self::StrayBytes => {
                "bytes behind the last record of a segment, which nobody reads, are not blank; nothing is lost"
            }
            Self::RecordNote => {
                "a record is whole, but the note beside it, which recovery uses to tell torn writes from damage, is not; \
                 nothing is lost"
            }
            Self::VoteCopy => "one of the two copies of the vote is damaged; the other one is good and is used",
            Self::LogDamaged => {
                "bytes that had been acknowledged as durable are altered or missing; the broker does not start"
            }
            Self::VoteLost => {
                "the broker's vote and its claim how far the log is durable are lost; the broker does not start"
            }
            Self::MessageDamaged => {
                "a message was written with a checksum that it does not have: memory failed at that time, or a bug; the \
                 message is never served"
            }
            Self::CommandMalformed => {
                "a record is what was written, but this program cannot make sense of it: a bug, or another version"
            }
            Self::OtherFormat => {
                "the file was written by another version of this program; nothing is known to be wrong"
            }
            Self::IndexUnreadable => {
                "the index, which is derived from the log, is damaged; reads of the damaged part fail"
            }
            Self::IndexRow => "the index, which is derived from the log, holds a row that cannot be right",
            Self::IndexAhead => {
                "the index has applied records that the log no longer has: the log has lost acknowledged bytes at its \
                 end, or the two folders do not belong together; the broker does not start"
            }
            Self::IndexBehind => {
                "records between what the index has applied and the beginning of the log are missing; the state cannot \
                 be made whole from these files"
            }
            Self::IndexDiffers => {
                "the stored index is not what the log leads to: a bug, or damage that a checksum did not see"
            }
            Self::BaseDamaged => {
                "the copy of the index from which a lost one would be made, now that old records are gone from the log, \
                 cannot be used; nothing reads it while the index is whole"
            }
            Self::KeysDamaged => "a file that finds messages by key is damaged; it is derived from the log",
        }
    }

    /// The advice for it.
    pub fn advice(self) -> &'static str {
        match self {
            Self::TornTail => "nothing: the next start cuts it off; --repair does so now",
            Self::StrayBytes | Self::RecordNote => {
                "--repair makes it good; a byte of the disk has changed, so look after the disk and the memory"
            }
            Self::VoteCopy => "nothing: the next start writes it anew; --repair does so now; look after the disk",
            Self::LogDamaged => {
                "restore a backup, or in a replicated group empty the folder and let the broker rejoin; without either, \
                 --repair --drop-acknowledged-after FILE:OFFSET, with the place named here, gives up this record and all \
                 later ones and keeps what is before"
            }
            Self::VoteLost => "restore a backup, or in a replicated group empty the folder and let the broker rejoin",
            Self::MessageDamaged => "the message is lost, others are not; send it again; report it",
            Self::CommandMalformed => {
                "use the version that wrote it; if that is this one, report it: the broker does not start, and \
                 --repair --quarantine RECORD sets the record aside and says what is lost with it"
            }
            Self::OtherFormat => "use the version that wrote it",
            Self::IndexUnreadable | Self::IndexRow | Self::IndexDiffers => {
                "--repair makes the index anew from the log, and from the copy `base` where old records are gone from the \
                 log; without a whole copy restore a backup"
            }
            Self::IndexAhead => {
                "restore a backup, or in a replicated group empty the folder and let the broker rejoin; without either, \
                 --repair --drop-acknowledged-after FILE:OFFSET, with the place named here, accepts the loss and \
                 makes the index anew from what is left, if that leads to one"
            }
            Self::IndexBehind => "restore a backup",
            Self::BaseDamaged => {
                "--repair makes it anew from the index, if that is whole; the broker does so by itself when it next lets \
                 old records go; look after the disk"
            }
            Self::KeysDamaged => "nothing: the broker builds it anew; --repair removes it now",
        }
    }
}
