//! The file and its journal.
//!
//! A change is one record at the journal's end. When the journal has grown to a multiple of what it is about, the file is
//! rewritten with the next generation's number, and an empty journal of that generation takes the old one's place. A
//! crash between the two leaves a journal of the generation before, whose changes the file has.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use escrowmq_common::disk::{self, FILE_MODE, Failed};

use super::journal::{self, Contents, Journal};
use super::tables::KvTables;
use super::{KvChange, KvError};

/// A journal below this is not worth a rewrite, in bytes.
const JOURNAL_MIN: u64 = 256 * 1024;
/// How many times as large as what is in the tables a journal becomes.
const JOURNAL_FACTOR: u64 = 2;

/// Where changes go.
#[derive(Debug)]
pub(super) struct Store {
    path: PathBuf,
    /// Of the file as it is on disk.
    generation: u64,
    state: State,
    /// When the journal is large enough to be done away with.
    rewrite_at: u64,
}

#[derive(Debug)]
enum State {
    /// Nothing was written since the start. There may be a journal to go on with.
    Read(Option<Contents>),
    /// Changes go here.
    Open(Journal),
    /// Which of file and journal a start would take is not sure: both are rewritten before the next change. The journal that
    /// was open is kept for its lock, so that no other process goes on with it meanwhile.
    Unsure { _held: Option<Journal> },
}

impl Store {
    /// Reads the file and its journal, neither of which need exist. Nothing is written.
    pub(super) fn open(path: &Path) -> Result<(Store, KvTables), KvError> {
        let corrupt = |path: &Path, why: String| KvError::Corrupt { path: path.to_owned(), why };
        let (mut tables, generation) = match read(path)? {
            None => (KvTables::default(), 0),
            Some(bytes) if bytes.is_empty() => return Err(corrupt(path, "it is empty".to_owned())),
            Some(bytes) => KvTables::from_file(&bytes).map_err(|error| corrupt(path, error.to_string()))?,
        };
        let journal_path = journal_of(path);
        let mut contents = None;
        if let Some(bytes) = read(&journal_path)? {
            let mut found = journal::read(&bytes).map_err(|why| corrupt(&journal_path, why))?;
            if found.generation > generation {
                let why = format!(
                    "it goes on from generation {} of {}, which is of generation {generation} and has not all changes \
                     before it",
                    found.generation,
                    path.display()
                );
                return Err(corrupt(&journal_path, why));
            }
            if found.torn > 0 {
                tracing::warn!(
                    path = %journal_path.display(), bytes = found.torn,
                    "the last change was not written completely and was never acknowledged; it is left out"
                );
            }
            // An older one was about to be replaced when the process ended: the file has what is in it.
            if found.generation == generation {
                for change in found.changes.drain(..) {
                    tables.apply(change);
                }
                contents = Some(found);
            }
        }
        let store = Store { path: path.to_owned(), generation, state: State::Read(contents), rewrite_at: JOURNAL_MIN };
        Ok((store, tables))
    }

    /// Appends changes to those before. `before` is what is in force without them.
    pub(super) fn append(&mut self, changes: &[KvChange], before: &KvTables) -> Result<(), KvError> {
        match &self.state {
            State::Read(contents) => self.state = State::Open(self.begin(contents.as_ref()).map_err(io_error)?),
            // The bytes at the journal's end are unknown: a new file and a new journal do without it.
            State::Open(journal) if journal.is_broken() => self.rewrite(before)?,
            State::Open(_) => {}
            State::Unsure { .. } => self.rewrite(before)?,
        }
        let State::Open(journal) = &mut self.state else {
            unreachable!("it was opened just now");
        };
        journal.append(changes.iter()).map_err(io_error)
    }

    /// Whether the file should be rewritten.
    pub(super) fn wants_rewrite(&self, tables: &KvTables) -> bool {
        let State::Open(journal) = &self.state else {
            return false;
        };
        journal.len() >= self.rewrite_at.max(JOURNAL_FACTOR * tables.bytes() as u64)
    }

    /// Rewrites the file, with all that is in force, and begins a new journal.
    pub(super) fn rewrite(&mut self, tables: &KvTables) -> Result<(), KvError> {
        // Until it succeeds it is not tried again with each change.
        if let State::Open(journal) = &self.state {
            self.rewrite_at = 2 * journal.len();
        }
        self.replace_file(tables)?;
        let journal = Journal::create(&journal_of(&self.path), self.generation).map_err(io_error)?;
        self.state = State::Open(journal);
        self.rewrite_at = JOURNAL_MIN;
        Ok(())
    }

    /// Puts a file of the next generation in place. From then on the journal that is there does not count any more.
    pub(super) fn replace_file(&mut self, tables: &KvTables) -> Result<(), KvError> {
        let generation = self.generation + 1;
        match disk::replace_file(&self.path, &tables.to_file(generation), Some(FILE_MODE)) {
            Ok(()) => {
                self.generation = generation;
                self.doubt();
                Ok(())
            }
            Err(failed) => {
                if failed.0 == disk::SYNC_FOLDER {
                    self.doubt();
                }
                Err(io_error(failed))
            }
        }
    }

    fn doubt(&mut self) {
        let held = match std::mem::replace(&mut self.state, State::Read(None)) {
            State::Open(journal) => Some(journal),
            State::Unsure { _held: held } => held,
            State::Read(_) => None,
        };
        self.state = State::Unsure { _held: held };
    }

    /// Leaves the file with all that is in force, and no journal, so that it can be read, copied and edited.
    pub(super) fn close(&mut self, tables: &KvTables) -> Result<(), KvError> {
        match &self.state {
            State::Read(None) => return Ok(()),
            // The journal is locked first, since it is taken away below: another process may write it.
            State::Read(contents) => match self.begin(contents.as_ref()) {
                Ok(journal) => self.state = State::Open(journal),
                Err((step, path, error)) => {
                    let path = path.display();
                    tracing::warn!(
                        "cannot {step} {path}: {error}. It stays, and nothing that this process wrote is in it"
                    );
                    return Ok(());
                }
            },
            State::Open(_) | State::Unsure { .. } => {}
        }
        self.replace_file(tables)?;
        let journal = journal_of(&self.path);
        let removed = match fs::remove_file(&journal) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(disk::at("remove", &journal)(error)),
            _ => Ok(()),
        };
        removed.and_then(|()| disk::sync_folder_of(&self.path)).map_err(io_error)?;
        self.state = State::Read(None);
        Ok(())
    }

    /// Opens the journal for the first change since the start.
    fn begin(&self, contents: Option<&Contents>) -> Result<Journal, Failed> {
        let path = journal_of(&self.path);
        // Its lock is held while the file is looked at.
        let journal = contents.map(|contents| Journal::go_on(&path, contents)).transpose()?;
        // Another process may have written since: its changes are not in our tables, and a journal on top of them would
        // bring back what it changed.
        let there =
            fs::read(&self.path).ok().map(|bytes| KvTables::from_file(&bytes).map(|(_, generation)| generation));
        let is_as_read = match there {
            None => self.generation == 0,
            Some(there) => there.is_ok_and(|generation| generation == self.generation),
        };
        let has_other = || {
            let other = fs::read(&path).ok().map(|bytes| journal::read(&bytes).map(|contents| contents.generation));
            other.is_some_and(|other| other.is_ok_and(|generation| generation >= self.generation))
        };
        match journal {
            Some(journal) if is_as_read => Ok(journal),
            None if is_as_read && !has_other() => Journal::create(&path, self.generation),
            _ => {
                let changed = "another nameserver has changed it: give each its own kvConfigPath, and start again";
                Err(("go on with", self.path.clone(), io::Error::other(changed)))
            }
        }
    }

    #[cfg(test)]
    pub(super) fn fail_from_now_on(&mut self) {
        let State::Open(journal) = &mut self.state else {
            panic!("nothing was written yet");
        };
        journal.fail_from_now_on();
    }
}

/// The journal stands beside its file.
pub(super) fn journal_of(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".journal");
    path.with_file_name(name)
}

fn read(path: &Path) -> Result<Option<Vec<u8>>, KvError> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(io_error(disk::at("read", path)(source))),
    }
}

fn io_error((step, path, source): Failed) -> KvError {
    KvError::Io { step, path, source }
}
