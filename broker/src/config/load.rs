//! Settings out of their sources: the file, the environment, the command line.

use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::path::Path;

use escrowmq_common::settings::nearest;
use escrowmq_common::settings::properties::{self, Entry};

use super::error::FileName;
use super::promises::PROMISES;
use super::{BrokerConfig, ConfigError, KEYS, Key, Place, Unsupported, apache, machine};

/// The variable that RocketMQ's own scripts and images take nameservers from.
const NAMESERVERS_VARIABLE: &str = "NAMESRV_ADDR";

/// A misspelt key without meaning has none either, up to this many wrong letters.
const LETTERS_WRONG_MAX: usize = 2;

/// Settings with the remarks that came up on the way.
#[derive(Debug, Default)]
pub struct Loaded {
    /// The settings that are to be in force.
    pub config: BrokerConfig,
    /// Keys that RocketMQ knows and that mean nothing here, each once; to be named at start.
    pub meaningless: Vec<&'static str>,
    /// Settings that promise more than is given, allowed by `ignoreUnsupported`; to be warned of at start.
    pub ignored: Vec<Unsupported>,
    /// Other remarks on the settings, for the start.
    pub remarks: Vec<String>,
    places: HashMap<&'static str, Place>,
}

/// How many copies of a message this version keeps.
pub const COPIES_KEPT: u64 = 1;

/// One setting with its place.
struct Setting {
    place: Place,
    key: String,
    value: String,
}

impl BrokerConfig {
    /// Defaults, then the file, then the environment, then `overrides` (key and value).
    pub fn load(
        file: Option<&Path>,
        environment: impl IntoIterator<Item = (String, String)>,
        overrides: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Loaded, ConfigError> {
        let mut loaded = Loaded::default();
        if let Some(path) = file {
            let text =
                fs::read(path).map_err(|source| ConfigError::File { step: "read", path: path.to_owned(), source })?;
            let place = || FileName(Some(path.to_owned()));
            let entries = properties::parse(&text).map_err(|source| ConfigError::Syntax { place: place(), source })?;
            loaded.config.config_file = Some(path.to_owned());
            loaded.set_all(entries.into_iter().map(|Entry { line, key, value }| {
                let place = Place::File { path: path.to_owned(), line };
                Setting { place, key, value }
            }))?;
        }
        let mut nameservers = None;
        for (name, value) in environment {
            if let Some(key) = KEYS.iter().find(|key| key.environment() == name) {
                let key = key.name.to_owned();
                loaded.set_all([Setting { place: Place::Variable(name), key, value }])?;
            } else if name == NAMESERVERS_VARIABLE {
                nameservers = Some(value);
            }
        }
        for (key, value) in overrides {
            // An empty value on a command line is meant to be empty.
            let is_empty = value.trim().is_empty();
            let setting = Setting { place: Place::Argument, key, value };
            if is_empty { loaded.set(setting)? } else { loaded.set_all([setting])? }
        }
        if let Some(value) = nameservers.filter(|_| !loaded.places.contains_key("namesrvAddr")) {
            let place = Place::Variable(NAMESERVERS_VARIABLE.to_owned());
            loaded.set_all([Setting { place, key: "namesrvAddr".to_owned(), value }])?;
        }
        loaded.finish()?;
        Ok(loaded)
    }
}

impl Loaded {
    /// The warnings about the settings at start, a line each.
    pub fn warnings(&self) -> Vec<String> {
        let mut lines = self.remarks.clone();
        if !self.meaningless.is_empty() {
            lines.push(format!("keys without meaning here are ignored: {}", self.meaningless.join(", ")));
        }
        lines.extend(self.ignored.iter().map(|one| format!("{one}; ignored, as ignoreUnsupported says")));
        let wanted = self.config.broker_role.copies_wanted();
        if wanted > COPIES_KEPT {
            let role = self.config.broker_role;
            lines.push(format!("brokerRole={role} wants {wanted} copies of each message; this version keeps one"));
        }
        lines
    }

    /// Sets what has a value. A key without one is a line of a template that nobody filled in: its default stays.
    fn set_all(&mut self, settings: impl IntoIterator<Item = Setting>) -> Result<(), ConfigError> {
        settings.into_iter().try_for_each(|setting| {
            if setting.value.trim().is_empty() { self.look_up(&setting).map(drop) } else { self.set(setting) }
        })
    }

    fn set(&mut self, setting: Setting) -> Result<(), ConfigError> {
        match self.look_up(&setting)? {
            Found::Key(key) => {
                let Setting { place, value, .. } = setting;
                let set = (key.set)(&mut self.config, value.trim());
                set.map_err(|why| ConfigError::BadValue { place: place.clone(), key: key.name, value, why })?;
                self.places.insert(key.name, place);
            }
            Found::Nothing => {}
        }
        Ok(())
    }

    fn look_up(&mut self, setting: &Setting) -> Result<Found, ConfigError> {
        let Setting { place, key: name, value } = setting;
        let found = look_up(name, value.trim()).map_err(|error| error.at(|_| place.clone()))?;
        Ok(match found {
            Known::Key(key) => Found::Key(key),
            Known::Promise(why) => {
                let (key, value) = (name.clone(), value.trim().to_owned());
                self.ignored.push(Unsupported { place: place.clone(), key, value, why });
                Found::Nothing
            }
            Known::Meaningless(key) => {
                if key != name {
                    let remark = format!("{place}'{name}' is taken for '{key}', which means nothing here, and ignored");
                    self.remarks.push(remark);
                } else if !self.meaningless.contains(&key) {
                    self.meaningless.push(key);
                }
                Found::Nothing
            }
            Known::Unknown { nearest } => {
                return Err(ConfigError::UnknownKey { place: place.clone(), key: name.clone(), nearest });
            }
        })
    }

    /// Checks rules that several settings take part in.
    fn finish(&mut self) -> Result<(), ConfigError> {
        if !self.ignored.is_empty() && !self.config.ignore_unsupported {
            return Err(ConfigError::Unsupported { all: std::mem::take(&mut self.ignored) });
        }
        let has_role = self.places.contains_key("brokerRole") || self.ignored.iter().any(|one| one.key == "brokerRole");
        if has_role && self.config.broker_id != 0 {
            // RocketMQ's broker does the same: a master has the id 0, also where its file names another one.
            self.remarks.push(format!("brokerId={} is taken for 0, as brokerRole says", self.config.broker_id));
            self.config.broker_id = 0;
        }
        if self.config.store_path.is_none() && machine::home().is_none() {
            return Err(ConfigError::NoFolder);
        }
        let places = &self.places;
        self.config.validate().map_err(|error| error.at(|key| places.get(key).cloned().unwrap_or_default()))
    }
}

enum Found {
    Key(&'static Key),
    Nothing,
}

/// The meaning of a key and its value.
pub(super) enum Known {
    /// A setting of ours.
    Key(&'static Key),
    /// It promises something that is not given, which the text names.
    Promise(&'static str),
    /// Nothing. The key may be spelt differently from the one that was asked for.
    Meaningless(&'static str),
    /// Nobody knows it; the most similar key that somebody does.
    Unknown { nearest: &'static str },
}

/// Looks a key up. The error is a value that promises something or not and cannot be read.
pub(super) fn look_up(name: &str, value: &str) -> Result<Known, ConfigError> {
    if let Some(promise) = PROMISES.iter().find(|promise| promise.key == name) {
        let is_made = promise.is_made(value);
        let is_made = is_made.map_err(|why| ConfigError::BadValue {
            place: Place::Nowhere,
            key: promise.key,
            value: value.to_owned(),
            why,
        })?;
        if is_made {
            return Ok(Known::Promise(promise.why));
        }
    }
    let name = apache::OLD_SPELLINGS.iter().find(|(old, _)| *old == name).map_or(name, |(_, new)| *new);
    if let Some(key) = KEYS.iter().find(|key| key.name == name) {
        return Ok(Known::Key(key));
    }
    let promised = || PROMISES.iter().map(|promise| promise.key);
    if let Some(key) = apache::MEANINGLESS.iter().copied().chain(promised()).find(|key| *key == name) {
        return Ok(Known::Meaningless(key));
    }
    let meant: BTreeSet<&'static str> = KEYS.iter().map(|key| key.name).chain(promised()).collect();
    let nearest = nearest::nearest(name, meant.into_iter());
    let idle = nearest::nearest(name, apache::MEANINGLESS.iter().copied());
    let (meant, wrong) = (nearest::distance(name, nearest), nearest::distance(name, idle));
    if wrong <= LETTERS_WRONG_MAX && wrong < meant {
        return Ok(Known::Meaningless(idle));
    }
    Ok(Known::Unknown { nearest })
}
