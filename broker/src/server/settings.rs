//! Settings and running figures, for tools.

use std::collections::BTreeMap;
use std::sync::Arc;

use escrowmq_common::body::json::to_bytes;
use escrowmq_common::body::{DataVersion, Form};
use escrowmq_common::code::{request, response};
use escrowmq_common::frame::Frame;
use parking_lot::Mutex;

use super::{Reply, runtime, slow};
use crate::broker::Broker;
use crate::config::{ConfigError, KEYS, edit, parse};

/// One change after the other: each starts from the settings that the one before left.
static CHANGING: Mutex<()> = Mutex::new(());

pub(super) fn handle(broker: &Arc<Broker>, request: Frame, reply: Reply) {
    match request.code {
        request::GET_BROKER_CONFIG => show(broker, reply),
        request::GET_BROKER_RUNTIME_INFO => runtime::handle(broker, reply),
        _ => slow::run(broker, "update settings", reply, move |broker, reply| match update(broker, &request.body) {
            Ok(()) => reply.ok(),
            Err(error) => reply.error(response::SYSTEM_ERROR, &error.to_string()),
        }),
    }
}

/// Puts changes in force and keeps them, all or none.
fn update(broker: &Broker, body: &[u8]) -> Result<(), ConfigError> {
    let changes = parse(body)?;
    let _turn = CHANGING.lock();
    let changed = broker.config().updated(&changes)?;
    let is_kept = changed.keep(&changes)?;
    broker.config.store(Arc::new(changed));
    // Nameservers show the permission.
    broker.registration.changed();
    for (key, value) in &changes {
        let at_once = KEYS.iter().any(|known| known.name == key && known.at_once);
        tracing::info!(key, value, at_once, is_kept, "setting changed by a tool");
    }
    Ok(())
}

fn show(broker: &Arc<Broker>, reply: Reply) {
    let config = broker.config();
    let all: BTreeMap<String, String> = config.effective().map(|(key, value)| (key.to_owned(), value)).collect();
    let version = DataVersion::default();
    let version = to_bytes(&version, Form::Strict);
    match edit("", &all) {
        Ok(text) => {
            let version = String::from_utf8_lossy(&version);
            reply.send(response::SUCCESS, None, |fields| fields.text("version", &version), &[text.as_bytes()]);
        }
        Err(error) => reply.error(response::SYSTEM_ERROR, &error.to_string()),
    }
}
