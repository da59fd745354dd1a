//! Settings out of their sources: the file, the environment, the command line.

use std::collections::{BTreeSet, HashMap};
use std::path::Path;

use escrowmq_common::settings::{self, Place, Setting, SettingError, distance, nearest};

use super::promises::PROMISES;
use super::{BrokerConfig, ConfigError, ENVIRONMENT_PREFIX, KEYS, Key, Unsupported, apache, machine};

/// The variable that RocketMQ's own scripts and images take nameservers from.
const NAMESERVERS_VARIABLE: &str = "NAMESRV_ADDR";

/// A key that somebody may take for that of the group's secret.
const SECRET: &str = "groupSecret";
/// The environment variable that it would be.
const SECRET_VARIABLE: &str = "ESCROWMQ_GROUP_SECRET";

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

impl BrokerConfig {
    /// Defaults, then the file, then the environment, then `overrides` (key and value).
    pub fn load(
        file: Option<&Path>,
        environment: impl IntoIterator<Item = (String, String)>,
        overrides: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Loaded, ConfigError> {
        let (mut nameservers, mut has_secret) = (None, false);
        let environment = environment.into_iter().inspect(|(name, value)| {
            if name == NAMESERVERS_VARIABLE {
                nameservers = Some(value.clone());
            }
            has_secret |= name == SECRET_VARIABLE;
        });
        let all = settings::gather(KEYS, ENVIRONMENT_PREFIX, file, environment, overrides)?;
        if has_secret {
            return Err(ConfigError::SecretInTheOpen { place: Place::Variable(SECRET_VARIABLE.to_owned()) });
        }
        let mut loaded = Loaded::default();
        loaded.config.config_file = file.map(Path::to_owned);
        all.into_iter().try_for_each(|setting| loaded.set(setting))?;
        if let Some(value) = nameservers.filter(|_| !loaded.places.contains_key("namesrvAddr")) {
            let place = Place::Variable(NAMESERVERS_VARIABLE.to_owned());
            loaded.set(Setting { place, key: "namesrvAddr".to_owned(), value })?;
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
            let named: Vec<_> = self.meaningless.iter().map(|key| apache::with_reason(key)).collect();
            lines.push(format!("keys without meaning here are ignored: {}", named.join(", ")));
        }
        lines.extend(self.ignored.iter().map(|one| format!("{one}; ignored, as ignoreUnsupported says")));
        let (role, kept) = (self.config.broker_role, self.config.copies_kept());
        let wanted = role.copies_wanted();
        if wanted > kept {
            lines.push(format!("brokerRole={role} wants {wanted} copies of each message; a broker alone keeps one"));
        }
        lines
    }

    /// Sets what has a value. A key without one is a line of a template that nobody filled in: its default stays. What is
    /// given as nothing on a command line is meant to be nothing.
    fn set(&mut self, setting: Setting) -> Result<(), ConfigError> {
        let (name, value) = (&setting.key, setting.value.trim());
        match look_up(name, value).map_err(|error| error.at(|_| setting.place.clone()))? {
            Known::Key(key) if !value.is_empty() || setting.place == Place::Argument => {
                let place = key.read(&mut self.config, setting)?;
                self.config.named.insert(key.name);
                self.places.insert(key.name, place);
            }
            Known::Key(_) => {}
            Known::Promise(why) => {
                let value = value.to_owned();
                self.ignored.push(Unsupported { place: setting.place, key: setting.key, value, why });
            }
            Known::Meaningless(key) if key != name => {
                let place = &setting.place;
                let remark = format!("{place}'{name}' is taken for '{key}', which means nothing here, and ignored");
                self.remarks.push(remark);
            }
            Known::Meaningless(key) if self.meaningless.contains(&key) => {}
            Known::Meaningless(key) => self.meaningless.push(key),
            Known::Secret => return Err(ConfigError::SecretInTheOpen { place: setting.place }),
            Known::Unknown { nearest } => {
                return Err(SettingError::UnknownKey { place: setting.place, key: setting.key, nearest }.into());
            }
        }
        Ok(())
    }

    /// Checks rules that several settings take part in.
    fn finish(&mut self) -> Result<(), ConfigError> {
        if !self.ignored.is_empty() && !self.config.ignore_unsupported {
            return Err(ConfigError::Unsupported { all: std::mem::take(&mut self.ignored) });
        }
        self.take_id_of_role();
        if self.config.store_path.is_none() && machine::home().is_none() {
            return Err(ConfigError::NoFolder);
        }
        if self.config.replication_peers.is_empty() {
            for key in ["groupSecretFile", "groupListenAddress"] {
                if self.places.contains_key(key) {
                    self.remarks
                        .push(format!("{key} counts for nothing in a broker alone; dLegerPeers makes it a member"));
                }
            }
        }
        let checked = self.config.validate().and_then(|()| self.config.read_group_secret().map(drop));
        let places = &self.places;
        checked.map_err(|error| error.at(|key| places.get(key).cloned().unwrap_or_default()))
    }

    /// In a group the id follows from the role there. For a broker alone RocketMQ's does the same where a role is set:
    /// a master has the id 0, also where its file names another one.
    fn take_id_of_role(&mut self) {
        let id = self.config.broker_id;
        let has_role = self.places.contains_key("brokerRole") || self.ignored.iter().any(|one| one.key == "brokerRole");
        let is_member = !self.config.replication_peers.is_empty();
        if id == 0 || !(has_role || is_member) {
            return;
        }
        self.remarks.push(if is_member {
            format!(
                "brokerId={id} counts for nothing in a group: the leader has 0, others the number of their seat and one"
            )
        } else {
            format!("brokerId={id} is taken for 0, as brokerRole says")
        });
        self.config.broker_id = 0;
    }
}

/// The meaning of a key and its value.
pub(super) enum Known {
    /// A setting of ours.
    Key(&'static Key),
    /// It promises something that is not given, which the text names.
    Promise(&'static str),
    /// Nothing. The key may be spelt differently from the one that was asked for.
    Meaningless(&'static str),
    /// It would bring a secret, which is taken from a file alone.
    Secret,
    /// Nobody knows it; the most similar key that somebody does.
    Unknown { nearest: &'static str },
}

/// Looks a key up. The error is a value that promises something or not and cannot be read.
pub(super) fn look_up(name: &str, value: &str) -> Result<Known, ConfigError> {
    if let Some(promise) = PROMISES.iter().find(|promise| promise.key == name) {
        let is_made = promise.is_made(value).map_err(|why| SettingError::bad_value(promise.key, value, why))?;
        if is_made {
            return Ok(Known::Promise(promise.why));
        }
    }
    let name = apache::OLD_SPELLINGS.iter().find(|(old, _)| *old == name).map_or(name, |(_, new)| *new);
    if let Some(key) = KEYS.iter().find(|key| key.name == name) {
        return Ok(Known::Key(key));
    }
    if name.eq_ignore_ascii_case(SECRET) {
        return Ok(Known::Secret);
    }
    let promised = || PROMISES.iter().map(|promise| promise.key);
    if let Some(key) = apache::MEANINGLESS.iter().copied().chain(promised()).find(|key| *key == name) {
        return Ok(Known::Meaningless(key));
    }
    let meant: BTreeSet<&'static str> = KEYS.iter().map(|key| key.name).chain(promised()).collect();
    let likely = nearest(name, meant.into_iter());
    let idle = nearest(name, apache::MEANINGLESS.iter().copied());
    let (meant, wrong) = (distance(name, likely), distance(name, idle));
    if wrong <= LETTERS_WRONG_MAX && wrong < meant {
        return Ok(Known::Meaningless(idle));
    }
    Ok(Known::Unknown { nearest: likely })
}
