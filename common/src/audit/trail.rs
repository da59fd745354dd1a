//! Where lines go.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::net::IpAddr;
use std::os::unix::fs::{FileExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use parking_lot::Mutex;

use super::line::{Line, timestamp};
use crate::clock;
use crate::remoting::LogGate;

/// Lines of acts that were refused to other machines: one in this time.
const REFUSED_GAP: Duration = Duration::from_millis(50);
/// Lines about a file that cannot be written: one in this time.
const FAILED_GAP: Duration = Duration::from_secs(60);
/// Its owner writes it, its group reads it: settings and names are in it.
const FILE_MODE: u32 = 0o640;

/// Where the lines of a server go: the log, and a file if one is named.
///
/// The file is only appended to. A line is one write, without a buffer in this process, so that it survives the end of the process at any
/// moment; a power cut may take the last seconds. A file that was renamed or removed is made anew with the next line, so that rotation
/// needs no signal.
///
/// A line that cannot be written there stops nobody: an operator must be able to help a server whose disk is full, and the same line is in
/// the log. The log says that the file lacks lines, and so does the file as soon as it takes lines again.
#[derive(Debug)]
pub struct Trail {
    file: Option<Mutex<Appended>>,
    refused: LogGate,
    failed: LogGate,
}

/// Why a file cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("cannot write the audit's file {}: {source}; auditLogFile names another one", path.display())]
pub struct TrailError {
    /// The file.
    pub path: PathBuf,
    /// The system's answer.
    pub source: io::Error,
}

impl Default for Trail {
    /// The log alone.
    fn default() -> Self {
        Self { file: None, refused: LogGate::new(REFUSED_GAP), failed: LogGate::new(FAILED_GAP) }
    }
}

impl Trail {
    /// The log, and this file if there is one; it is made if it is not there.
    pub fn open(path: Option<&Path>) -> Result<Self, TrailError> {
        let Some(path) = path else { return Ok(Self::default()) };
        let failed = |source| TrailError { path: path.to_owned(), source };
        let opened = Opened::new(path).map_err(failed)?;
        let is_torn = opened.ends_within_a_line().map_err(failed)?;
        let file = Appended { path: path.to_owned(), opened: Some(opened), missing: 0, is_torn };
        Ok(Self { file: Some(Mutex::new(file)), ..Self::default() })
    }

    /// Whether the line of a refusal may be written; if so, how many before it have none.
    pub(super) fn refusal(&self, peer: IpAddr) -> Option<u64> {
        if peer.to_canonical().is_loopback() { Some(0) } else { self.refused.open() }
    }

    /// Writes a line.
    pub(super) fn put(&self, line: Line<'_>) {
        line.log();
        let Some(file) = &self.file else { return };
        let now = clock::wall_ms();
        let bytes = line.json(now);
        let mut file = file.lock();
        if let Err(error) = file.append(&bytes, now)
            && let Some(others) = self.failed.open()
        {
            let (path, missing) = (file.path.display(), file.missing);
            tracing::error!(
                event = "audit_file_failed", %path, %error, missing, others,
                "the audit's file lacks lines, which are in this log alone; acts go on"
            );
        }
    }
}

#[derive(Debug)]
struct Appended {
    path: PathBuf,
    opened: Option<Opened>,
    /// Lines that the file lacks.
    missing: u64,
    /// A write ended within a line.
    is_torn: bool,
}

#[derive(Debug)]
struct Opened {
    file: File,
    device: u64,
    inode: u64,
}

impl Opened {
    fn new(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new().read(true).append(true).create(true).mode(FILE_MODE).open(path)?;
        let metadata = file.metadata()?;
        Ok(Self { file, device: metadata.dev(), inode: metadata.ino() })
    }

    /// Whether a process ended before its last line was whole.
    fn ends_within_a_line(&self) -> io::Result<bool> {
        let bytes = self.file.metadata()?.len();
        let mut last = [b'\n'];
        if bytes > 0 {
            self.file.read_exact_at(&mut last, bytes - 1)?;
        }
        Ok(last != [b'\n'])
    }

    fn is_at(&self, path: &Path) -> bool {
        fs::metadata(path).is_ok_and(|found| (found.dev(), found.ino()) == (self.device, self.inode))
    }
}

impl Appended {
    fn append(&mut self, line: &[u8], now: i64) -> io::Result<()> {
        let result = self.write(line, now);
        match result {
            Ok(()) => (self.missing, self.is_torn) = (0, false),
            Err(_) => self.missing += 1,
        }
        result
    }

    fn write(&mut self, line: &[u8], now: i64) -> io::Result<()> {
        let kept = self.opened.take().filter(|opened| opened.is_at(&self.path));
        let opened = if let Some(opened) = kept {
            opened
        } else {
            self.is_torn = false;
            Opened::new(&self.path)?
        };
        let mut bytes = Vec::with_capacity(line.len());
        if self.is_torn {
            bytes.push(b'\n');
        }
        if self.missing > 0 {
            let (timestamp, missing) = (timestamp(now), self.missing);
            let gap =
                serde_json::json!({ "timestamp": timestamp, "act": "none", "outcome": "missing", "others": missing });
            bytes.extend_from_slice(format!("{gap}\n").as_bytes());
        }
        bytes.extend_from_slice(line);
        let mut rest = &bytes[..];
        let mut file = &self.opened.insert(opened).file;
        while !rest.is_empty() {
            match file.write(rest) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => {
                    rest = &rest[written..];
                    self.is_torn = !rest.is_empty();
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(act: &str) -> Line<'_> {
        Line { act, outcome: "done", peer: "127.0.0.1:1", ..Line::default() }
    }

    fn acts(path: &Path) -> Vec<String> {
        let text = fs::read_to_string(path).unwrap();
        let lines = text.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
        lines.map(|line| format!("{} {}", line["act"].as_str().unwrap(), line["outcome"].as_str().unwrap())).collect()
    }

    #[test]
    fn a_file_that_was_moved_away_is_made_anew_and_lines_before_a_start_stay() {
        let folder = tempfile::tempdir().unwrap();
        let (path, moved) = (folder.path().join("audit.log"), folder.path().join("audit.log.1"));
        Trail::open(Some(&path)).unwrap().put(line("a"));
        // A machine that lost power may have kept a part of the last line.
        let torn = fs::read(&path).unwrap();
        fs::write(&path, [&torn[..], b"{\"act\":"].concat()).unwrap();
        let trail = Trail::open(Some(&path)).unwrap();
        trail.put(line("b"));
        fs::rename(&path, &moved).unwrap();
        trail.put(line("c"));
        let kept = fs::read_to_string(&moved).unwrap();
        let (first, torn, next) = (kept.lines().next().unwrap(), kept.lines().nth(1), kept.lines().nth(2).unwrap());
        assert!(
            first.contains(r#""act":"a""#) && next.contains(r#""act":"b""#) && torn == Some(r#"{"act":"#),
            "{kept}"
        );
        assert_eq!(acts(&path), ["c done"]);
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o137, 0);
    }

    #[test]
    fn lines_that_could_not_be_written_are_counted_in_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let inner = folder.path().join("inner");
        fs::create_dir(&inner).unwrap();
        let path = inner.join("audit.log");
        let trail = Trail::open(Some(&path)).unwrap();
        fs::remove_dir_all(&inner).unwrap();
        trail.put(line("a"));
        trail.put(line("b"));
        fs::create_dir(&inner).unwrap();
        trail.put(line("c"));
        assert_eq!(acts(&path), ["none missing", "c done"]);
        assert!(fs::read_to_string(&path).unwrap().contains(r#""others":2"#));
    }

    #[test]
    fn a_full_device_costs_the_line_and_is_told_apart_from_the_next_one() {
        // Takes no byte.
        let trail = Trail::open(Some(Path::new("/dev/full"))).unwrap();
        trail.put(line("a"));
        let file = trail.file.as_ref().unwrap().lock();
        assert_eq!((file.missing, file.is_torn), (1, false));
        drop(file);
        let refused = Trail::open(Some(Path::new("/nowhere/at/all"))).unwrap_err().to_string();
        assert!(refused.contains("/nowhere/at/all") && refused.contains("auditLogFile"), "{refused}");
    }
}
