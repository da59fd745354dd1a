//! Settings out of their sources, and back into the file.

use std::collections::BTreeMap;
use std::path::Path;
use std::{env, fs};

use super::properties::{self, Entry};
use super::{FileName, Key, Place, SettingError};
use crate::disk::replace_file;

/// A value for a key, with the place where it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setting {
    /// Where.
    pub place: Place,
    /// The key, known or not.
    pub key: String,
    /// The value with the blanks around it.
    pub value: String,
}

/// All settings of a start in the order in which they count: those of the file, those variables of the environment that
/// belong to one of `keys`, then the flags.
pub fn gather<C>(
    keys: &[Key<C>],
    prefix: &str,
    file: Option<&Path>,
    environment: impl IntoIterator<Item = (String, String)>,
    flags: impl IntoIterator<Item = (String, String)>,
) -> Result<Vec<Setting>, SettingError> {
    let mut all = Vec::new();
    if let Some(path) = file {
        let text = fs::read(path).map_err(|source| failed("read", path, source))?;
        let entries = properties::parse(&text)
            .map_err(|source| SettingError::Syntax { place: FileName(Some(path.to_owned())), source })?;
        all.extend(entries.into_iter().map(|Entry { line, key, value }| {
            let place = Place::File { path: path.to_owned(), line };
            Setting { place, key, value }
        }));
    }
    all.extend(environment.into_iter().filter_map(|(name, value)| {
        let key = keys.iter().find(|key| key.environment(prefix) == name)?.name.to_owned();
        Some(Setting { place: Place::Variable(name), key, value })
    }));
    all.extend(flags.into_iter().map(|(key, value)| Setting { place: Place::Argument, key, value }));
    Ok(all)
}

/// The environment of this process. Names or values that are no text are left out: they cannot be ours.
pub fn environment() -> impl Iterator<Item = (String, String)> {
    env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
}

/// Key and value of a flag such as `--set KEY=VALUE`.
pub fn pair(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("not of the form KEY=VALUE")?;
    Ok((key.trim().to_owned(), value.trim().to_owned()))
}

/// The changes that a tool asks for. Of several lines with the same key the last one counts.
pub fn changes(text: &[u8]) -> Result<BTreeMap<String, String>, SettingError> {
    let entries =
        properties::parse(text).map_err(|source| SettingError::Syntax { place: FileName::default(), source })?;
    Ok(entries.into_iter().map(|Entry { key, value, .. }| (key, value)).collect())
}

/// Puts changes by a tool into a file of settings, whose text so far is `text`. A crash leaves that text or the new one.
pub fn keep(path: &Path, text: &[u8], changes: &BTreeMap<String, String>) -> Result<(), SettingError> {
    let text = properties::edit(text, changes)
        .map_err(|source| SettingError::Syntax { place: FileName(Some(path.to_owned())), source })?;
    replace_file(path, &text, None).map_err(|(step, path, source)| SettingError::File { step, path, source })
}

fn failed(step: &'static str, path: &Path, source: std::io::Error) -> SettingError {
    SettingError::File { step, path: path.to_owned(), source }
}
