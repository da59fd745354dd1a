//! One key: its spellings, and the way from its text to the setting and back.

use std::fmt;

use super::{Place, Setting, SettingError};

/// A key of the properties file of a program whose settings are a `C`.
pub struct Key<C: 'static> {
    /// As RocketMQ spells it, where RocketMQ has it.
    pub name: &'static str,
    /// Its purpose, with unit and default.
    pub about: &'static str,
    /// Whether a change in a running process is in force at once; otherwise from the next start on.
    pub at_once: bool,
    /// The value as text.
    pub get: fn(&C) -> String,
    /// Reads a value. The error says what kind of value is expected.
    pub set: fn(&mut C, &str) -> Result<(), String>,
}

impl<C> Key<C> {
    /// The name of the environment variable: the key in capitals after the program's prefix.
    pub fn environment(&self, prefix: &str) -> String {
        prefix.to_owned() + &words(self.name).collect::<Vec<_>>().join("_").to_ascii_uppercase()
    }

    /// The flag in lower case: `listen-port` for `listenPort`.
    pub fn kebab(&self) -> String {
        words(self.name).collect::<Vec<_>>().join("-").to_ascii_lowercase()
    }

    /// Sets the value that somebody wrote for this key. Returns where it stands.
    pub fn read(&self, config: &mut C, setting: Setting) -> Result<Place, SettingError> {
        let Setting { place, value, .. } = setting;
        match (self.set)(config, value.trim()) {
            Ok(()) => Ok(place),
            Err(why) => Err(SettingError::BadValue { place, key: self.name, value, why }),
        }
    }
}

impl<C> fmt::Debug for Key<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

/// The words of a name in camel case; a run of capitals is one word (`brokerIP1`: `broker`, `IP1`).
fn words(name: &str) -> impl Iterator<Item = &str> {
    let mut rest = name;
    std::iter::from_fn(move || {
        let first = rest.chars().next()?;
        let capitals = rest.chars().take_while(char::is_ascii_uppercase).count();
        // Of several capitals in front of a small letter the last one begins the next word (`dLegerPeers` has none).
        let from = if first.is_ascii_uppercase() { capitals.max(1) } else { 0 };
        let end = rest[from..].find(|c: char| c.is_ascii_uppercase()).map_or(rest.len(), |at| from + at);
        let (word, others) = rest.split_at(end);
        rest = others;
        Some(word)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_has_a_flag_and_a_variable() {
        for (name, kebab, variable) in [
            ("listenPort", "listen-port", "P_LISTEN_PORT"),
            ("brokerIP1", "broker-ip1", "P_BROKER_IP1"),
            ("dLegerSelfId", "d-leger-self-id", "P_D_LEGER_SELF_ID"),
            ("kvConfigPath", "kv-config-path", "P_KV_CONFIG_PATH"),
        ] {
            let key: Key<()> = Key { name, about: "", at_once: false, get: |()| String::new(), set: |(), _| Ok(()) };
            assert_eq!((key.kebab().as_str(), key.environment("P_").as_str()), (kebab, variable));
        }
    }
}
