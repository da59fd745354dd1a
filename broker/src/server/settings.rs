//! Settings and running figures, for tools.

use std::sync::Arc;

use escrowmq_common::body::json::to_bytes;
use escrowmq_common::body::{DataVersion, Form};
use escrowmq_common::code::response;
use escrowmq_common::frame::Frame;
use escrowmq_common::limits;
use escrowmq_common::settings::{self, properties};
use parking_lot::Mutex;

use super::{local, slow};
use crate::broker::Broker;
use crate::config::{Asker, ConfigError, differences};
use crate::reply::Reply;

/// One change after the other: each starts from the settings that the one before left.
static CHANGING: Mutex<()> = Mutex::new(());

pub(super) fn update(broker: &Arc<Broker>, request: Frame, reply: Reply) {
    let (bytes, most) = (request.body.len(), limits::SETTINGS_BYTES_MAX);
    if bytes > most {
        // Before it is parsed: changes come one after the other, and this one would keep all others waiting.
        return reply.error(response::MESSAGE_ILLEGAL, &format!("body: {bytes} bytes, at most {most} are taken"));
    }
    let asker = if local::is_local(reply.connection()) { Asker::LocalMachine } else { Asker::Elsewhere };
    slow::run(broker, "update settings", reply, move |broker, reply| {
        match change(broker, &request.body, asker, &reply) {
            Ok(()) => reply.ok(),
            Err(error) if error.is_permission() => reply.error(response::NO_PERMISSION, &error.to_string()),
            Err(error) => reply.error(response::SYSTEM_ERROR, &error.to_string()),
        }
    });
}

/// Puts changes in force and keeps them, all or none.
fn change(broker: &Broker, body: &[u8], asker: Asker, reply: &Reply) -> Result<(), ConfigError> {
    let changes = settings::changes(body)?;
    let _turn = CHANGING.lock();
    let old = Arc::clone(&broker.config());
    let new = Arc::new(old.updated(&changes, asker)?);
    let is_kept = new.keep(&old, &changes)?;
    broker.config.replace(Arc::clone(&new));
    // Nameservers show the permission.
    broker.registration.changed();
    let until = if is_kept { "" } else { " (until the next start: the broker has no file of settings)" };
    for (key, (before, after)) in differences(&old, &new) {
        reply.audit(key, before, format_args!("{after}{until}"));
    }
    Ok(())
}

pub(super) fn show(broker: &Arc<Broker>, _request: Frame, reply: Reply) {
    let config = broker.config();
    let all: Vec<(&str, String)> = config.effective().collect();
    let text = properties::write(all.iter().map(|(key, value)| (*key, value.as_str())));
    let version = to_bytes(&DataVersion::default(), Form::Strict);
    let version = String::from_utf8_lossy(&version);
    reply.send(response::SUCCESS, None, |fields| fields.text("version", &version), &[text.as_bytes()]);
}
