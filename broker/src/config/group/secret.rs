//! The secret of a group. It comes from a file of its own, because settings are logged and shown to tools.

use std::fmt;
use std::fs::OpenOptions;
use std::io::{self, Read as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;

/// Least bytes of a secret: fewer could be guessed from one exchange that somebody overheard.
const SECRET_BYTES_MIN: usize = 16;
/// Most bytes of its file. A larger one is some other file.
const FILE_BYTES_MAX: u64 = 4096;
/// Permissions of users who are neither the owner nor of the file's group.
const OTHERS: u32 = 0o007;
/// Permissions of all but the owner.
const ALL_BUT_OWNER: u32 = 0o077;

/// The secret of a group: its members prove to each other that they know it.
///
/// It is shown nowhere: it has no text form, and its debug form has no byte of it.
#[derive(Clone)]
pub struct GroupSecret(Box<[u8]>);

impl GroupSecret {
    /// The bytes. They are for computing proofs; they are never sent.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Reads a secret: the file's bytes without blanks and line ends around them.
    pub fn read(path: &Path) -> Result<Self, SecretError> {
        let file = OpenOptions::new()
            .read(true)
            // A pipe without a writer would be waited for.
            .custom_flags(rustix::fs::OFlags::NONBLOCK.bits().cast_signed())
            .open(path)?;
        let meta = file.metadata()?;
        if !meta.is_file() {
            return Err(SecretError::NoFile);
        }
        // The file's owner could have closed it to its group. Where another user owns it, as in volumes of
        // Kubernetes, that group may be the only way for us to read it.
        let is_own = meta.uid() == rustix::process::geteuid().as_raw();
        let forbidden = if is_own { ALL_BUT_OWNER } else { OTHERS };
        let mode = meta.mode() & 0o777;
        if mode & forbidden != 0 {
            return Err(SecretError::Open { mode });
        }
        let mut bytes = Vec::new();
        file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes)?;
        if bytes.len() as u64 > FILE_BYTES_MAX {
            return Err(SecretError::Long);
        }
        let secret = bytes.trim_ascii();
        if secret.len() < SECRET_BYTES_MIN {
            return Err(SecretError::Short { bytes: secret.len() });
        }
        Ok(Self(secret.into()))
    }
}

impl fmt::Debug for GroupSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("GroupSecret(..)")
    }
}

/// Why a file is not taken for a group's secret. Each text is the end of a sentence that begins with the file's name.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// The system's error.
    #[error("cannot be read: {0}")]
    Io(#[from] io::Error),
    /// A folder, a pipe or a device.
    #[error("is no file")]
    NoFile,
    /// Other users have permissions on it.
    #[error(
        "is open to others (its mode is {mode:04o}), so they may know the secret already: write a new one and close the file to all but the broker's user (chmod 600; defaultMode: 0400 of a secret in Kubernetes)"
    )]
    Open {
        /// The file's permissions.
        mode: u32,
    },
    /// Too few bytes.
    #[error(
        "has {bytes} bytes, at least {SECRET_BYTES_MIN} are needed; `head -c 32 /dev/urandom | base64` makes a good one, the same file for all members"
    )]
    Short {
        /// How many there are, without blanks around them.
        bytes: usize,
    },
    /// Too many bytes.
    #[error("has more than {FILE_BYTES_MAX} bytes, so it is hardly the file that was meant")]
    Long,
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;
    use std::path::PathBuf;

    use super::*;

    fn file(folder: &Path, text: &[u8], mode: u32) -> PathBuf {
        let path = folder.join(format!("secret-{mode:o}-{}", text.len()));
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        path
    }

    #[test]
    fn a_secret_is_read_without_its_line_end_and_never_shown() {
        let folder = tempfile::tempdir().unwrap();
        let secret = GroupSecret::read(&file(folder.path(), b" 0123456789abcdef \n", 0o600)).unwrap();
        assert_eq!(secret.as_bytes(), b"0123456789abcdef");
        assert!(!format!("{secret:?}").contains("0123"));
    }

    #[test]
    fn a_file_that_others_may_use_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        for mode in [0o644, 0o640, 0o604, 0o620, 0o601] {
            let error = GroupSecret::read(&file(folder.path(), b"0123456789abcdef", mode)).unwrap_err();
            assert!(matches!(error, SecretError::Open { .. }), "{mode:o}: {error}");
            assert!(error.to_string().contains("chmod 600"), "{error}");
        }
        for mode in [0o600, 0o400, 0o700] {
            GroupSecret::read(&file(folder.path(), b"0123456789abcdef", mode)).unwrap();
        }
    }

    #[test]
    fn what_is_no_secret_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let read = |text: &[u8]| GroupSecret::read(&file(folder.path(), text, 0o600));
        assert!(matches!(read(b"0123456789abcde\n\n"), Err(SecretError::Short { bytes: 15 })));
        assert!(matches!(read(b""), Err(SecretError::Short { bytes: 0 })));
        assert!(matches!(read(&[b'x'; 4097]), Err(SecretError::Long)));
        assert!(read(&[b'x'; 4096]).is_ok());
        assert!(matches!(GroupSecret::read(folder.path()), Err(SecretError::NoFile)));
        assert!(matches!(GroupSecret::read(&folder.path().join("none")), Err(SecretError::Io(_))));
    }
}
