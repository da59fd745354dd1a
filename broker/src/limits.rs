//! The machine's resources that a process takes at its start: open files, and a data folder of its own.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use escrowmq_common::clock;
use rustix::fs::{FlockOperation, Mode, flock};
use rustix::io::Errno;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit, umask};

/// Fewer open files than this are too few for a busy broker: each connection is one, the store needs some hundred.
pub const OPEN_FILES_WANTED: u64 = 65_536 + 4_096;

/// Threads for blocking work of a broker's process. More than all that want one at a time, so that nobody waits for a thread.
pub const BLOCKING_THREADS: usize = 512;

/// Most places for searches, whatever is set: each takes one of those threads.
pub(crate) const SEARCHES_MAX: usize = 256;

/// Raises the limit of open files to what is allowed; returns the limit in force, `None` where there is none.
pub fn raise_open_files() -> Option<u64> {
    let limit = getrlimit(Resource::Nofile);
    let current = limit.current?;
    let wanted = limit.maximum.unwrap_or(u64::MAX).max(current);
    // Some systems count up to the limit when a process starts another one: a million is enough for everybody.
    let wanted = wanted.min(1 << 20).max(current);
    let raised = Rlimit { current: Some(wanted), maximum: limit.maximum };
    let in_force = if wanted > current && setrlimit(Resource::Nofile, raised).is_ok() { wanted } else { current };
    if in_force < OPEN_FILES_WANTED {
        tracing::warn!(
            limit = in_force,
            "few open files are allowed; each connection needs one. Raise the limit (ulimit -n, LimitNOFILE) to {OPEN_FILES_WANTED}"
        );
    }
    Some(in_force)
}

/// Files that this process makes are closed to all but their owner and group, and the group only reads.
const WITHHELD: u32 = 0o027;
/// How a data folder is made.
const FOLDER_MODE: u32 = 0o750;

/// Lets nobody but owner and group read what this process makes from now on, files and folders alike: messages are in
/// them. A process that withholds more keeps to that. For the binaries, once and first: it holds for the whole process.
pub fn restrict_new_files() {
    let withheld = Mode::from_raw_mode(WITHHELD);
    let before = umask(withheld);
    umask(before | withheld);
}

/// Why a data folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FolderError {
    /// Another process uses it.
    #[error("the data folder {} is used by another broker{}", folder.display(), pid.map(|pid| format!(", process {pid}")).unwrap_or_default())]
    InUse {
        /// The folder.
        folder: PathBuf,
        /// The process that uses it, if it left its number.
        pid: Option<u32>,
    },
    /// A restore into it was interrupted.
    #[error(
        "the data folder {} holds an unfinished restore: run `escrowmq restore` again, into an empty folder",
        folder.display()
    )]
    Restoring {
        /// The folder.
        folder: PathBuf,
    },
    /// It cannot be made or written.
    #[error("the data folder {} cannot be used: {source}", folder.display())]
    Io {
        /// The folder.
        folder: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
}

impl FolderError {
    /// Whether it may be usable later.
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::InUse { .. })
    }
}

/// A data folder that no other broker can use as long as this lives. The system releases it when the process dies.
#[derive(Debug)]
pub struct LockedFolder {
    path: PathBuf,
    /// `None` where there was no lock file and none was to be made.
    _lock: Option<File>,
}

impl LockedFolder {
    /// The folder.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// The folder in a data folder that a restore works in, and that is there until it is done.
pub const RESTORING: &str = "restoring";

/// The folder in a data folder that a copy of a group's state is fetched into.
pub const FETCHED: &str = "fetched";
/// The file in that folder that says that the copy counts, and is to be moved to the place of the old state.
pub const SWITCH: &str = "switch";

/// The file in a data folder that says which member of a group of several it is, or was.
pub const MEMBER: &str = "member";
/// The file in a data folder whose member is to go on without the others, until that is done. No broker starts there.
pub const RECOVERING: &str = "recovering";

/// Keeps brokers from a member's folder until a recovery of it has ended. The mark is on disk when this returns.
pub fn mark_recovering(folder: &Path) -> io::Result<()> {
    File::create(folder.join(RECOVERING))?.sync_all()?;
    File::open(folder)?.sync_all()
}

/// How long a broker waits for a data folder that another process has: one that was killed lets it go when its threads
/// have come back from the disk, and a supervisor starts the next one at once.
pub const PATIENCE: Duration = Duration::from_secs(5);
/// Between looks.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Makes the data folder if there is none, and takes it. Refuses one that a restore did not finish.
pub fn lock_folder(folder: &Path) -> Result<LockedFolder, FolderError> {
    if folder.join(RESTORING).exists() {
        return Err(FolderError::Restoring { folder: folder.to_owned() });
    }
    lock_folder_for_restore(folder)
}

/// Like [`lock_folder`], and waits up to `patience` for a process that still has it. `on_wait` hears that, once.
pub async fn wait_for_folder(
    folder: &Path,
    patience: Duration,
    on_wait: impl FnOnce(&FolderError),
) -> Result<LockedFolder, FolderError> {
    let since = clock::monotonic();
    let mut on_wait = Some(on_wait);
    loop {
        let error = match lock_folder(folder) {
            Err(error) if error.is_retryable() => error,
            result => return result,
        };
        if clock::monotonic().saturating_sub(since) >= patience {
            return Err(error);
        }
        if let Some(on_wait) = on_wait.take() {
            on_wait(&error);
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// Takes a data folder for the broker that starts, see [`wait_for_folder`], and says so if it has to wait, or if others
/// may read what is in it.
pub(crate) async fn take_folder(folder: &Path) -> Result<LockedFolder, FolderError> {
    let waited = wait_for_folder(folder, PATIENCE, |error| {
        tracing::warn!("{error}; waiting up to {} s for it to end", PATIENCE.as_secs());
    });
    let taken = waited.await?;
    if let Ok(metadata) = folder.metadata()
        && metadata.mode() & 0o007 != 0
    {
        let mode = metadata.mode() & 0o777;
        tracing::warn!("every user of this machine may look into {} ({mode:o}): chmod 750", folder.display());
    }
    Ok(taken)
}

/// Like [`lock_folder`], for the restore itself.
pub fn lock_folder_for_restore(folder: &Path) -> Result<LockedFolder, FolderError> {
    let failed = |source| FolderError::Io { folder: folder.to_owned(), source };
    DirBuilder::new().recursive(true).mode(FOLDER_MODE).create(folder).map_err(failed)?;
    let open = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(folder.join("lock"));
    let mut file = open.map_err(failed)?;
    take(&mut file, folder)?;
    // Only for the message above: a folder whose lock cannot be written is refused all the same.
    file.set_len(0).map_err(failed)?;
    writeln!(file, "{}", std::process::id()).map_err(failed)?;
    Ok(LockedFolder { path: folder.to_owned(), _lock: Some(file) })
}

/// Takes a data folder that exists, without making or changing anything in it: for tools that look at a stopped broker.
pub fn lock_existing_folder(folder: &Path) -> Result<LockedFolder, FolderError> {
    let failed = |source| FolderError::Io { folder: folder.to_owned(), source };
    if !folder.is_dir() {
        return Err(failed(io::ErrorKind::NotFound.into()));
    }
    match File::open(folder.join("lock")) {
        Ok(mut file) => {
            take(&mut file, folder)?;
            Ok(LockedFolder { path: folder.to_owned(), _lock: Some(file) })
        }
        // No broker ever ran here, so none has it.
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            Ok(LockedFolder { path: folder.to_owned(), _lock: None })
        }
        Err(error) => Err(failed(error)),
    }
}

fn take(file: &mut File, folder: &Path) -> Result<(), FolderError> {
    match flock(&*file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(()),
        Err(Errno::WOULDBLOCK) => {
            let mut text = String::new();
            let _ = file.rewind();
            let _ = file.read_to_string(&mut text);
            Err(FolderError::InUse { folder: folder.to_owned(), pid: text.trim().parse().ok() })
        }
        Err(errno) => Err(FolderError::Io { folder: folder.to_owned(), source: errno.into() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_broker_is_refused_and_told_who_has_the_folder() {
        let parent = tempfile::tempdir().unwrap();
        let folder = parent.path().join("a/b");
        let first = lock_folder(&folder).unwrap();
        assert_eq!(first.path(), folder);
        let Err(FolderError::InUse { pid, .. }) = lock_folder(&folder) else { panic!("two have it") };
        assert_eq!(pid, Some(std::process::id()));
        drop(first);
        lock_folder(&folder).unwrap();
    }

    #[tokio::test]
    async fn a_folder_is_waited_for_until_its_holder_lets_go() {
        let parent = tempfile::tempdir().unwrap();
        let held = lock_folder(parent.path()).unwrap();
        let (waits, told) = tokio::sync::oneshot::channel();
        let holder = async {
            told.await.unwrap();
            drop(held);
        };
        let next = wait_for_folder(parent.path(), Duration::from_secs(60), |error| {
            waits.send(error.is_retryable()).unwrap();
        });
        let (next, ()) = tokio::join!(next, holder);
        next.unwrap();
    }

    #[tokio::test]
    async fn patience_ends() {
        let parent = tempfile::tempdir().unwrap();
        let _held = lock_folder(parent.path()).unwrap();
        let mut waited = false;
        let refused = wait_for_folder(parent.path(), Duration::from_millis(1), |_| waited = true).await;
        assert!(matches!(refused, Err(FolderError::InUse { .. })) && waited);
        // A fault that waiting does not mend is not waited for.
        let file = tempfile::NamedTempFile::new().unwrap();
        let other = wait_for_folder(file.path(), Duration::from_secs(60), |_| panic!("waits")).await;
        assert!(matches!(other, Err(FolderError::Io { .. })));
    }

    #[test]
    fn a_new_folder_is_not_for_everybody() {
        let parent = tempfile::tempdir().unwrap();
        let folder = parent.path().join("a/b");
        let _taken = lock_folder(&folder).unwrap();
        assert_eq!(folder.metadata().unwrap().mode() & 0o027, 0);
    }

    #[test]
    fn a_folder_that_cannot_be_made_is_named() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let error = lock_folder(&file.path().join("x")).unwrap_err();
        assert!(!error.is_retryable() && error.to_string().contains("cannot be used"), "{error}");
    }

    #[test]
    fn the_limit_of_open_files_does_not_shrink() {
        let before = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
        assert!(raise_open_files().unwrap_or(u64::MAX) >= before);
    }
}
