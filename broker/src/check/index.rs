//! The index: its files, its rows, and whether it belongs to the log.

use std::path::{Path, PathBuf};

use super::{Finding, Kind, OnProgress, Progress, Report};
use crate::index::{IndexError, IndexReader, meta, open_read_only, table, verify};
use crate::shard::find_base;
use crate::terms::Position;

/// Rows of one kind of damage that are named; the others are counted.
const NAMED_MAX: usize = 10;
/// Bytes of rows between two reports of progress.
const PROGRESS_BYTES: u64 = 8 << 20;

/// Checks the index of the store in `dir`. The log has been checked.
pub(super) fn check(dir: &Path, report: &mut Report, progress: OnProgress<'_>) {
    let path = dir.join("index");
    if !path.join("CURRENT").exists() {
        return missing(&path, report);
    }
    let index = match open_read_only(&path) {
        Ok(index) => index,
        Err(error) => return unreadable(&path, &error, report),
    };
    match meta::applied(&index) {
        Ok(Some(applied)) => {
            report.figures.applied = Some((applied.index, applied.end));
            belongs(dir, &path, applied, report);
        }
        Ok(None) if report.figures.is_complete => {}
        Ok(None) => missing(&path, report),
        Err(error) => unreadable(&path, &error, report),
    }
    match meta::level(&index) {
        Ok(level) => report.find_level(&path, None, level),
        Err(error) => unreadable(&path, &error, report),
    }
    if let Err(error) = files(&path, &index, report).and_then(|total| rows(&path, &index, total, report, progress)) {
        unreadable(&path, &error, report);
    }
}

/// Checks the copy of the index that retention keeps, and says whether an index can be made from it. The log has been
/// checked.
pub(super) fn check_base(dir: &Path, report: &mut Report, progress: OnProgress<'_>) -> bool {
    let Some(path) = find_base(dir) else { return false };
    // As an index of its own, so that what is wrong with it is told from what is wrong with the index.
    let mut own = Report::default();
    (own.figures.log_start, own.figures.log_end) = (report.figures.log_start, report.figures.log_end);
    let applied = match open_read_only(&path) {
        Err(error) => {
            unreadable(&path, &error, &mut own);
            None
        }
        Ok(base) => {
            let applied = meta::applied(&base);
            let read = files(&path, &base, &mut own).and_then(|total| rows(&path, &base, total, &mut own, progress));
            match read.and(applied) {
                Ok(applied) => applied,
                Err(error) => {
                    unreadable(&path, &error, &mut own);
                    None
                }
            }
        }
    };
    report.figures.base = applied.map(|applied| (applied.index, applied.end));
    let (log_start, log_end) = (report.figures.log_start, report.figures.log_end);
    let is_log_whole = ![Kind::LogDamaged, Kind::OtherFormat, Kind::VoteLost].into_iter().any(|kind| report.has(kind));
    let fits = applied.is_some_and(|applied| (log_start..=log_end).contains(&applied.end));
    // A log that is damaged says nothing about what points into it.
    own.findings.retain(|finding| finding.kind != Kind::IndexRow || is_log_whole && fits);
    if own.findings.is_empty() && !fits && is_log_whole {
        let upto = applied.map_or(Position::ZERO, |applied| applied.end);
        let what = format!("it has applied the log up to position {upto}, the log holds {log_start} to {log_end}");
        own.find(Kind::BaseDamaged, &path, None, what);
    }
    let is_usable = own.findings.is_empty() && fits;
    let kind = |kind| if kind == Kind::OtherFormat { kind } else { Kind::BaseDamaged };
    report.findings.extend(own.findings.into_iter().map(|each| Finding { kind: kind(each.kind), ..each }));
    is_usable
}

fn missing(path: &Path, report: &mut Report) {
    if report.figures.is_complete {
        let from = if report.figures.log_start == Position::ZERO { "the log" } else { "the copy `base` and the log" };
        report.notes.push(format!("there is no index: the next start makes it from {from}"));
    } else {
        let what = format!(
            "there is no index, the log begins at position {}, and there is no whole copy `base` of an index",
            report.figures.log_start
        );
        report.find(Kind::IndexBehind, path, None, what);
    }
}

fn unreadable(path: &Path, error: &IndexError, report: &mut Report) {
    let (file, offset) = match error {
        // RocksDB's error is then about the file that it looked for.
        IndexError::Store(_) if !is_current_good(path) => (path.join("CURRENT"), None),
        _ => place_in(path, &error.to_string()),
    };
    let kind = match error {
        IndexError::OtherFormat { .. } => Kind::OtherFormat,
        IndexError::Row { .. } | IndexError::Cold { .. } => Kind::IndexRow,
        IndexError::Store(_) => Kind::IndexUnreadable,
    };
    let finding = Finding { kind, file, offset, what: error.to_string() };
    // A damaged block is met by every way to it.
    if !report.findings.iter().any(|known| known.file == finding.file && known.offset == finding.offset) {
        report.findings.push(finding);
    }
}

/// Whether the file that says which file to begin with names one that is there.
fn is_current_good(path: &Path) -> bool {
    let text = std::fs::read_to_string(path.join("CURRENT")).unwrap_or_default();
    text.strip_suffix('\n').is_some_and(|name| name.starts_with("MANIFEST-") && path.join(name).is_file())
}

/// The file and the offset that an error of the store names.
fn place_in(path: &Path, error: &str) -> (PathBuf, Option<u64>) {
    let shown = path.display().to_string();
    let Some(at) = error.find(&shown) else { return (path.to_owned(), None) };
    let mut words = error[at..].split_whitespace();
    let file = words.next().unwrap_or(&shown).trim_end_matches([',', ':', ';', '.']);
    let mut words = words.skip_while(|word| *word != "offset");
    let offset = words.nth(1).and_then(|word| word.trim_end_matches([',', ':', ';']).parse().ok());
    (PathBuf::from(file), offset)
}

/// Checks that all files are there and whole, and reads the parts that finding a row reads. Answers their bytes.
fn files(path: &Path, index: &IndexReader, report: &mut Report) -> Result<u64, IndexError> {
    let mut total = 0;
    for file in index.files()? {
        let file_path = path.join(&file.name);
        let found = file_path.metadata().map(|metadata| metadata.len());
        match found {
            Ok(bytes) if bytes == file.bytes => {
                // Through the filter and the file's own index.
                if let Err(error) = index.get(&file.first_key) {
                    unreadable(path, &error, report);
                }
            }
            Ok(bytes) => {
                let what = format!("it has {bytes} bytes instead of {}", file.bytes);
                report.find(Kind::IndexUnreadable, &file_path, None, what);
            }
            Err(error) => report.find(Kind::IndexUnreadable, &file_path, None, error.to_string()),
        }
        total += file.bytes;
    }
    Ok(total)
}

/// Reads and decodes every row, and checks that what it points at lies in the log.
fn rows(
    path: &Path,
    index: &IndexReader,
    total: u64,
    report: &mut Report,
    progress: OnProgress<'_>,
) -> Result<(), IndexError> {
    let (mut read, mut shown) = (0, 0);
    let mut wrong: Vec<String> = Vec::new();
    let mut more = 0;
    let figures = &mut report.figures;
    let mut note = |what: String| {
        if wrong.len() < NAMED_MAX { wrong.push(what) } else { more += 1 }
    };
    let result = index.for_all(|key, value| {
        let letter = key.first().copied().map_or('?', char::from);
        *figures.rows.entry(letter).or_default() += 1;
        let mut outside = None;
        let decoded = verify::row(key, value, |extent| {
            // A page of a queue may begin with entries that retention has given up.
            let below = extent.from < figures.log_start && key.first() != Some(&table::QUEUE);
            if below || extent.upto > figures.log_end {
                outside = Some(extent);
            }
        });
        if let Err(error) = decoded {
            note(error.to_string());
        }
        if let Some(extent) = outside {
            note(format!(
                "a row of table {letter} points at log positions {} to {}, the log holds {} to {}",
                extent.from, extent.upto, figures.log_start, figures.log_end
            ));
        }
        read += (key.len() + value.len()) as u64;
        if read >= shown + PROGRESS_BYTES {
            shown = read;
            progress(Progress { stage: "reading the index", done: read.min(total), total: Some(total) });
        }
    });
    // Where the log is damaged or lost its end, rows that point past that end say nothing new.
    if !report.has(Kind::LogDamaged) && !report.has(Kind::IndexAhead) {
        for what in wrong {
            report.find(Kind::IndexRow, path, None, what);
        }
        if more > 0 {
            report.notes.push(format!("{more} more rows of the index are wrong"));
        }
    }
    result
}

/// Whether index and log belong together.
fn belongs(dir: &Path, path: &Path, applied: meta::Applied, report: &mut Report) {
    let figures = report.figures.clone();
    if applied.end > figures.log_end && !report.has(Kind::LogDamaged) && !report.has(Kind::OtherFormat) {
        let newest = newest_segment(&dir.join("log"));
        let (file, offset) = newest.map_or((dir.join("log"), 0), |(file, start)| {
            (file, crate::log::format::SEGMENT_HEADER_BYTES + figures.log_end.since(start))
        });
        let what = format!(
            "the log ends here, at position {}, but the index has applied it up to position {} (record {})",
            figures.log_end, applied.end, applied.index
        );
        report.find(Kind::IndexAhead, &file, Some(offset), what);
    }
    if applied.end < figures.log_start {
        let what = format!(
            "the index has applied the log up to position {}, but the log begins at {}",
            applied.end, figures.log_start
        );
        report.find(Kind::IndexBehind, path, None, what);
    }
}

fn newest_segment(log: &Path) -> Option<(PathBuf, Position)> {
    let names = std::fs::read_dir(log).ok()?.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let starts = names.filter_map(|name| Some((crate::log::format::segment_start(&name)?, name)));
    starts.max().map(|(start, name)| (log.join(name), start))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_place_of_a_damaged_block_is_read_from_the_error() {
        let error = "index: Corruption: block checksum mismatch: stored = 1, computed = 2, type = 4  in /d/index/000012.sst offset 517 size 409";
        let (file, offset) = place_in(Path::new("/d/index"), error);
        assert_eq!((file.as_path(), offset), (Path::new("/d/index/000012.sst"), Some(517)));
        assert_eq!(place_in(Path::new("/d/index"), "index: else"), (PathBuf::from("/d/index"), None));
    }
}
