//! Keys of RocketMQ's that promise people something which this broker does not give: protection from others, more than
//! one copy, a role. Ignored, they would be believed. Such a value refuses the start; `ignoreUnsupported=true` is for
//! those who know.
//!
//! A key is here if somebody's messages or secrets depend on it. Keys that only cost speed or comfort are in [`super::apache`].

/// A key with the values that promise something.
pub(super) struct Promise {
    pub(super) key: &'static str,
    when: When,
    /// Says that it is not given, as the end of a sentence that begins with key and value.
    pub(super) why: &'static str,
}

/// Which values of a key promise something.
enum When {
    /// `true`.
    On,
    /// Numbers above this.
    Above(i64),
    /// Anything but nothing.
    Set,
    /// One of these words, in any case.
    Words(&'static [&'static str]),
}

const ACCESS: &str =
    "users and their rights are not checked in this version, anybody who reaches the port may do everything";
const TLS: &str = "connections are not encrypted in this version";
const COPIES: &str =
    "a group keeps a copy on each member and answers when a majority has it (dLegerPeers), which no setting changes";

const fn promise(key: &'static str, when: When, why: &'static str) -> Promise {
    Promise { key, when, why }
}

/// All of them.
pub(super) const PROMISES: &[Promise] = &[
    // Users and their rights.
    promise("aclEnable", When::On, ACCESS),
    promise("authenticationEnabled", When::On, ACCESS),
    promise("authorizationEnabled", When::On, ACCESS),
    // Old access files that are turned into users: an operator who asks for that counts on both.
    promise("migrateAuthFromV1Enabled", When::On, ACCESS),
    promise("rejectPullConsumerEnable", When::On, "pull consumers are not turned away in this version"),
    // Encryption. `permissive` and `disabled` leave the choice to clients, and those that want TLS fail loudly.
    promise("tls.server.mode", When::Words(&["enforcing"]), TLS),
    promise("tlsServerMode", When::Words(&["enforcing"]), TLS),
    promise("tlsMode", When::Words(&["enforcing"]), TLS),
    promise("tls.enable", When::On, TLS),
    promise("useTLS", When::On, TLS),
    promise("tls.server.need.client.auth", When::Words(&["require", "optional"]), TLS),
    promise("tls.server.authClient", When::On, TLS),
    promise("tls.server.certPath", When::Set, TLS),
    promise("tls.server.keyPath", When::Set, TLS),
    promise("tls.server.trustCertPath", When::Set, TLS),
    promise("tls.client.authServer", When::On, TLS),
    promise("tls.client.certPath", When::Set, TLS),
    promise("tls.client.keyPath", When::Set, TLS),
    promise("tls.client.trustCertPath", When::Set, TLS),
    // How many have a message when its sender hears that it is stored.
    promise("inSyncReplicas", When::Above(1), COPIES),
    promise("minInSyncReplicas", When::Above(1), COPIES),
    promise("totalReplicas", When::Above(1), COPIES),
    promise("allAckInSyncStateSet", When::On, COPIES),
    promise(
        "relaxedGroup",
        When::On,
        "what the leader alone has is lost at a failover, so nothing is acknowledged before a majority of the group has it",
    ),
    // Roles.
    promise(
        "brokerRole",
        When::Words(&["SLAVE"]),
        "a broker follows no other one because its file says so; the members of a group (dLegerPeers) elect who leads",
    ),
    promise("enableControllerMode", When::On, "this version has no controller that would elect another broker"),
    promise("enableSlaveActingMaster", When::On, COPIES),
    // Where messages are kept longer, or at all.
    promise("messageStorePlugIn", When::Set, "messages are kept in local files alone, no other store is loaded"),
    promise("enableMultiDispatch", When::On, "messages are not put into further (light) queues in this version"),
    promise("enableLmq", When::On, "messages are not put into further (light) queues in this version"),
    // Service that must not begin yet.
    promise("startAcceptSendRequestTimeStamp", When::Above(0), "messages are taken from the start on"),
];

impl Promise {
    /// Whether this value promises something. The error says what kind of value is expected: an unreadable value
    /// must not count as "no".
    pub(super) fn is_made(&self, value: &str) -> Result<bool, String> {
        match self.when {
            When::On if value.is_empty() => Ok(false),
            When::On => super::values::boolean::read(value),
            When::Above(least) if value.is_empty() => Ok(least < 0),
            When::Above(most) => super::values::plain::read::<i64>(value).map(|number| number > most),
            When::Set => Ok(!value.is_empty()),
            When::Words(words) => Ok(words.iter().any(|word| word.eq_ignore_ascii_case(value))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{KEYS, apache::MEANINGLESS};
    use super::*;

    #[test]
    fn a_promise_is_no_key_without_meaning() {
        for promise in PROMISES {
            assert!(!MEANINGLESS.contains(&promise.key), "{}", promise.key);
            // One key has values that are played and one that is not.
            assert!(promise.key == "brokerRole" || KEYS.iter().all(|key| key.name != promise.key), "{}", promise.key);
        }
    }

    #[test]
    fn values_that_promise_nothing_and_values_that_cannot_be_read() {
        let made = |key: &str, value: &str| PROMISES.iter().find(|one| one.key == key).unwrap().is_made(value);
        for (key, value, expected) in [
            ("aclEnable", "TRUE", true),
            ("aclEnable", "false", false),
            ("aclEnable", "", false),
            ("inSyncReplicas", "1", false),
            ("inSyncReplicas", "2", true),
            ("tls.server.mode", "Enforcing", true),
            ("tls.server.mode", "permissive", false),
            ("messageStorePlugIn", "", false),
            ("messageStorePlugIn", "org.example.Store", true),
            ("brokerRole", "slave", true),
            ("brokerRole", "SYNC_MASTER", false),
        ] {
            assert_eq!(made(key, value), Ok(expected), "{key}={value}");
        }
        assert!(made("aclEnable", "yes").is_err() && made("inSyncReplicas", "two").is_err());
    }
}
