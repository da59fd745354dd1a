//! Settings of the group, as its log has them, over a member's own.

use std::collections::BTreeMap;

use super::table::SCOPES;
use super::{BrokerConfig, KEYS, Key, Scope};

/// Keys of the scope group that are not among the logged settings: the handshake of members compares the group's name, and the
/// membership in the log names the members.
const ELSEWHERE: [&str; 2] = ["dLegerGroup", "dLegerPeers"];

/// The keys whose values the log of a group has.
fn keys() -> impl Iterator<Item = &'static Key> {
    let of_group = KEYS.iter().zip(SCOPES).filter(|(_, scope)| **scope == Scope::Group).map(|(key, _)| key);
    of_group.filter(|key| !ELSEWHERE.contains(&key.name))
}

impl BrokerConfig {
    /// The settings that the log of a group has, with their values here.
    pub(crate) fn logged(&self) -> impl Iterator<Item = (&'static str, String)> + '_ {
        keys().map(|key| (key.name, (key.get)(self)))
    }

    /// These settings with those of the group in their places, and the keys of which that is not possible: this build does not
    /// know them, or their values do not go with this member's own settings. Those keep the value that they have here.
    pub(super) fn under(&self, group: &BTreeMap<String, String>) -> (Self, Vec<String>) {
        // Defaults that follow the broker's name stay as they were at the start.
        let (store_path, replication_group) = (Some(self.data_folder()), self.group_name().to_owned());
        let mut config = Self { store_path, replication_group, ..self.clone() };
        let mut impossible = Vec::new();
        for (name, value) in group {
            let mut with = config.clone();
            let set = keys().find(|key| key.name == name).is_some_and(|key| (key.set)(&mut with, value).is_ok());
            if set && with.validate().is_ok() {
                config = with;
            } else {
                impossible.push(name.clone());
            }
        }
        (config, impossible)
    }

    /// The keys whose values here are others than those of the group.
    pub(crate) fn unlike(&self, group: &BTreeMap<String, String>) -> Vec<String> {
        let (with, mut unlike) = self.under(group);
        let differ = keys().filter(|key| (key.get)(self) != (key.get)(&with));
        unlike.extend(differ.map(|key| key.name.to_owned()));
        unlike
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn all_that_is_logged_is_in_force_where_it_is_read_back() {
        let founder = BrokerConfig {
            broker_name: "orders".to_owned(),
            max_message_size: 1 << 20,
            transaction_check_max: 7,
            ..BrokerConfig::default()
        };
        let logged: BTreeMap<String, String> = founder.logged().map(|(key, value)| (key.to_owned(), value)).collect();
        assert!(logged.contains_key("messageDelayLevel") && !logged.contains_key("dLegerPeers"));
        assert!(logged.keys().all(|key| Scope::of(key) == Some(Scope::Group)));
        let own = BrokerConfig { listen_port: 1234, ..BrokerConfig::default() };
        let (in_force, impossible) = own.under(&logged);
        assert_eq!(impossible, [""; 0]);
        assert_eq!((in_force.max_message_size, in_force.transaction_check_max), (1 << 20, 7));
        assert_eq!((in_force.broker_name.as_str(), in_force.listen_port), ("orders", 1234));
        assert_eq!(in_force.data_folder(), own.data_folder(), "the data stay where they are");
        assert_eq!(in_force.group_name(), own.group_name());
    }

    #[test]
    fn what_this_member_cannot_take_is_named_and_the_rest_is_in_force() {
        let own = BrokerConfig { connection_bytes_max: 64 << 20, ..BrokerConfig::default() };
        own.validate().unwrap();
        let group = group(&[
            ("aKeyOfALaterVersion", "1"),
            ("listenPort", "1"),
            ("maxMessageSize", "16777216"),
            ("traceOn", "sometimes"),
            ("transactionCheckMax", "9"),
        ]);
        let (in_force, impossible) = own.under(&group);
        assert_eq!(impossible, ["aKeyOfALaterVersion", "listenPort", "maxMessageSize", "traceOn"]);
        assert_eq!(in_force.transaction_check_max, 9);
        assert_eq!(in_force.max_message_size, own.max_message_size);
        assert_eq!(in_force.listen_port, own.listen_port);
    }

    #[test]
    fn differences_are_those_of_values_and_not_of_their_spelling() {
        let own = BrokerConfig { transaction_check_max: 15, ..BrokerConfig::default() };
        assert_eq!(own.unlike(&group(&[("transactionCheckMax", "015"), ("traceOn", "TRUE")])), [""; 0]);
        assert_eq!(own.unlike(&group(&[("transactionCheckMax", "16")])), ["transactionCheckMax"]);
    }
}
