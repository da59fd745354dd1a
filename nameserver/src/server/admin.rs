//! Reading and changing the settings of the running process.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;

use escrowmq_common::code::response;
use escrowmq_common::frame::Frame;
use escrowmq_common::limits::SETTINGS_BYTES_MAX;
use escrowmq_common::logging;
use escrowmq_common::remoting::Connection;
use escrowmq_common::settings::{self, SettingError, properties};

use super::order::Turn;
use super::refusals::Refusal;
use super::{Server, success};
use crate::config::{Config, ConfigError, KEYS};

impl Server {
    /// `GET_NAMESRV_CONFIG`: all settings as a properties text.
    pub(super) fn get_config(&self, request: &Frame) -> Frame {
        let config = self.config.load();
        let entries: Vec<_> = config.entries().collect();
        success(request).with_body(properties::write(entries.iter().map(|(key, value)| (*key, value.as_str()))))
    }

    /// `UPDATE_NAMESRV_CONFIG`: all changes of the body or none. They are kept in the configuration file, if there is
    /// one, before they are answered. Keys that are no matter of the running process are in force after the next start.
    pub(super) fn update_config(&self, connection: &Arc<Connection>, request: Frame, turn: Turn) {
        let bytes = request.body.len();
        if bytes > SETTINGS_BYTES_MAX {
            let why = format!("body: {bytes} bytes, the limit is {SETTINGS_BYTES_MAX}");
            return turn.answer(connection, &self.refuse(connection, &request, Refusal::Malformed, why));
        }
        let Ok(place) = Arc::clone(&self.settings).try_lock_owned() else {
            return turn.answer(connection, &self.busy(connection, &request, "other settings are being changed"));
        };
        let (current, connection) = (Arc::clone(&self.config), Arc::clone(connection));
        let refusals = Arc::clone(&self.refusals);
        self.tasks.spawn_blocking("settings", move || {
            let is_local = connection.is_local();
            let outcome = settings::changes(&request.body)
                .map_err(ConfigError::from)
                .and_then(|changes| Ok((change(&current.load(), &changes, is_local)?, changes)));
            let answer = match outcome {
                Ok((next, changes)) => {
                    let old = current.swap(Arc::new(next));
                    let next = current.load();
                    tell(&turn, &old, &next, &changes);
                    if next.log_level != old.log_level {
                        // After the line that says who did it: there may be no other.
                        logging::set(&next.log_level);
                    }
                    success(&request)
                }
                Err(error) => {
                    refusals.count(Refusal::Setting, connection.peer(), &error);
                    refused(&request, &error)
                }
            };
            drop(place); // before the answer, or the sender's next change would find this one under way
            turn.answer(&connection, &answer);
        });
    }
}

fn change(current: &Config, changes: &BTreeMap<String, String>, is_local: bool) -> Result<Config, ConfigError> {
    let next = current.updated(changes, is_local)?;
    if next.log_level != current.log_level && !logging::is_started() {
        return Err(ConfigError::LogElsewhere);
    }
    if let Some(path) = current.config_store_path.as_deref().filter(|_| !changes.is_empty()) {
        keep(path, changes)?;
    }
    Ok(next)
}

fn keep(path: &Path, changes: &BTreeMap<String, String>) -> Result<(), SettingError> {
    let text = match fs::read(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        Err(source) => return Err(SettingError::File { step: "read", path: path.to_owned(), source }),
    };
    settings::keep(path, &text, changes)
}

/// One line for each key, with old and new value.
fn tell(turn: &Turn, old: &Config, new: &Config, changes: &BTreeMap<String, String>) {
    for key in KEYS.iter().filter(|key| changes.contains_key(key.name)) {
        let until = if key.at_once { "" } else { " (from the next start on)" };
        turn.tell(key.name, (key.get)(old), format_args!("{}{until}", (key.get)(new)));
    }
}

fn refused(request: &Frame, error: &ConfigError) -> Frame {
    let code = match error {
        ConfigError::BlackListed { .. } | ConfigError::NotByTools { .. } | ConfigError::LocalOnly { .. } => {
            response::NO_PERMISSION
        }
        ConfigError::Setting(_) | ConfigError::Meaningless { .. } | ConfigError::LogElsewhere | ConfigError::NoHome => {
            response::SYSTEM_ERROR
        }
    };
    Frame::response(request, code).with_remark(error.to_string())
}
