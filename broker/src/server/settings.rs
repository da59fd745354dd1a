//! Settings, for tools: shown by each member, changed where they belong.
//!
//! A broker alone, and a member, keeps its own settings in its file. Those of a group go into its log, from the feature level on that
//! has them: any member takes the change and passes it on to the leader, which answers when it is applied there. A request changes
//! all or nothing, so one that names keys of both kinds is refused.

use std::collections::BTreeMap;
use std::sync::Arc;

use escrowmq_common::body::json::to_bytes;
use escrowmq_common::body::{DataVersion, Form};
use escrowmq_common::code::response;
use escrowmq_common::frame::Frame;
use escrowmq_common::limits;
use escrowmq_common::logging;
use escrowmq_common::settings::{self, properties};

use super::{local, slow};
use crate::broker::Broker;
use crate::config::{Asker, BrokerConfig, ConfigError, Scope, differences};
use crate::reply::{Refused, Reply};
use crate::shard::{Admission, Command, Outcome, Settings};
use crate::terms::SETTINGS_LEVEL;

impl From<ConfigError> for Refused {
    fn from(error: ConfigError) -> Self {
        let code = if error.is_permission() { response::NO_PERMISSION } else { response::SYSTEM_ERROR };
        Self::new(code, error.to_string())
    }
}

/// Whether the log has settings of the group.
fn are_logged(broker: &Broker) -> bool {
    !broker.group.is_alone() && broker.shard.agreed().level >= SETTINGS_LEVEL
}

/// Whether a request changes what only the leader can change.
pub(super) fn is_for_leader(broker: &Broker, request: &Frame) -> bool {
    let is_of_group = |key: &String| Scope::of(key) == Some(Scope::Group);
    are_logged(broker)
        && request.body.len() <= limits::SETTINGS_BYTES_MAX
        && settings::changes(&request.body).is_ok_and(|changes| changes.keys().any(is_of_group))
}

pub(super) fn update(broker: &Arc<Broker>, request: Frame, reply: Reply) {
    let (bytes, most) = (request.body.len(), limits::SETTINGS_BYTES_MAX);
    if bytes > most {
        // Before it is parsed: changes come one after the other, and this one would keep all others waiting.
        return reply.error(response::MESSAGE_ILLEGAL, &format!("body: {bytes} bytes, at most {most} are taken"));
    }
    let asker = if local::is_local(reply.connection()) { Asker::LocalMachine } else { Asker::Elsewhere };
    slow::run(broker, "update settings", reply, move |broker, reply| {
        if let Err(error) = change(broker, &request.body, asker, &reply) {
            reply.refuse(error);
        }
    });
}

/// Changes all or nothing, and answers unless that is refused.
fn change(broker: &Arc<Broker>, body: &[u8], asker: Asker, reply: &Reply) -> Result<(), ConfigError> {
    let changes = settings::changes(body)?;
    let _turn = broker.config.turn();
    let of = |scope| changes.keys().find(|key| Scope::of(key) == Some(scope));
    match (of(Scope::Group).filter(|_| are_logged(broker)), of(Scope::Local)) {
        (None, _) => change_own(broker, &changes, asker, reply),
        (Some(_), None) => change_of_group(broker, &changes, asker, reply),
        (Some(group), Some(local)) => Err(ConfigError::TwoScopes { group: group.to_owned(), local: local.to_owned() }),
    }
}

/// Puts changes in force here and keeps them in the file.
fn change_own(
    broker: &Broker,
    changes: &BTreeMap<String, String>,
    asker: Asker,
    reply: &Reply,
) -> Result<(), ConfigError> {
    let old = broker.config.own();
    let new = Arc::new(old.updated(changes, asker)?);
    let is_log_new = new.log_level != old.log_level;
    if is_log_new && !logging::is_started() {
        return Err(ConfigError::LogElsewhere);
    }
    let is_kept = new.keep(&old, changes)?;
    broker.config.replace(Arc::clone(&new));
    // Nameservers show the permission.
    broker.registration.changed();
    let until = if is_kept { "" } else { " (until the next start: the broker has no file of settings)" };
    audit(reply, &old, &new, until);
    if is_log_new {
        // After the line that says who did it: there may be no other.
        logging::set(&new.log_level);
    }
    reply.clone().ok();
    Ok(())
}

/// Puts changes into the log of the group.
fn change_of_group(
    broker: &Arc<Broker>,
    changes: &BTreeMap<String, String>,
    asker: Asker,
    reply: &Reply,
) -> Result<(), ConfigError> {
    let old = Arc::clone(&broker.config());
    let new = old.updated_of_group(changes, asker)?;
    let changed = differences(&old, &new);
    if changed.is_empty() {
        reply.clone().ok();
        return Ok(());
    }
    let values = changed.iter().map(|(key, (_, after))| (*key, after.as_str())).collect();
    let command = Command::Settings(Settings { only_missing: false, values });
    let proposed = broker.shard.propose(&command, Admission::Reserved);
    let (broker, reply) = (Arc::clone(broker), reply.clone());
    broker.tasks.clone().spawn("change settings of the group", async move {
        match proposed.await {
            Ok(Outcome::Refused(refusal)) => reply.refuse(refusal),
            Ok(_) => {
                follow(&broker);
                audit(&reply, &old, &new, " (in the group)");
                reply.ok();
            }
            Err(error) => reply.refuse(error),
        }
    });
    Ok(())
}

fn audit(reply: &Reply, old: &BrokerConfig, new: &BrokerConfig, remark: &str) {
    for (key, (before, after)) in differences(old, new) {
        reply.audit(key, before, format_args!("{after}{remark}"));
    }
}

/// Puts in force what the log says of the settings of the group, as far as it is applied here.
pub(crate) fn follow(broker: &Broker) {
    if broker.config.follow(|| broker.shard.agreed().settings.clone()) {
        broker.registration.changed();
    }
}

pub(super) fn show(broker: &Arc<Broker>, _request: Frame, reply: Reply) {
    let config = broker.config();
    let all: Vec<(&str, String)> = config.effective().collect();
    let text = properties::write(all.iter().map(|(key, value)| (*key, value.as_str())));
    let version = to_bytes(&DataVersion::default(), Form::Strict);
    let version = String::from_utf8_lossy(&version);
    reply.send(response::SUCCESS, None, |fields| fields.text("version", &version), &[text.as_bytes()]);
}
