//! Reading and changing the settings of the running process.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;

use escrowmq_common::code::response;
use escrowmq_common::frame::Frame;
use escrowmq_common::remoting::Connection;

use super::{Server, busy, failed, success};
use crate::config::{self, Config, ConfigError, KEYS};
use crate::kv::replace_file;

impl Server {
    /// `GET_NAMESRV_CONFIG`: all settings as a properties text.
    pub(super) fn get_config(&self, request: &Frame) -> Frame {
        let config = self.config.load();
        let entries = config.entries().map(|(key, value)| (key.to_owned(), value));
        match config::edit("", &entries.collect()) {
            Ok(text) => success(request).with_body(text),
            Err(error) => failed(request, error.to_string()),
        }
    }

    /// `UPDATE_NAMESRV_CONFIG`: all changes of the body or none. They are kept in the configuration file, if there is
    /// one, before they are answered. Keys such as the port are in force after the next start only.
    pub(super) fn update_config(&self, connection: &Arc<Connection>, request: Frame) {
        let changes = match config::parse(&request.body) {
            Ok(changes) => changes,
            Err(error) => return connection.reply(&refused(&request, &error)),
        };
        let Ok(turn) = Arc::clone(&self.settings).try_lock_owned() else {
            return connection.reply(&busy(&request));
        };
        let (current, connection) = (Arc::clone(&self.config), Arc::clone(connection));
        self.tasks.spawn_blocking("settings", move || {
            let outcome = change(&current.load(), &changes);
            let answer = match outcome {
                Ok(next) => {
                    log_changes(&changes, connection.peer());
                    current.store(Arc::new(next));
                    success(&request)
                }
                Err(error) => refused(&request, &error),
            };
            drop(turn); // before the answer, or the sender's next change would find this one under way
            connection.reply(&answer);
        });
    }
}

fn change(current: &Config, changes: &BTreeMap<String, String>) -> Result<Config, ConfigError> {
    let next = current.updated(changes)?;
    if let Some(path) = current.config_store_path.as_deref().filter(|_| !changes.is_empty()) {
        keep(path, changes)?;
    }
    Ok(next)
}

fn keep(path: &Path, changes: &BTreeMap<String, String>) -> Result<(), ConfigError> {
    let failed = |step, path: &Path, source| {
        let path = path.to_owned();
        ConfigError::File { step, path, source }
    };
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
        Err(source) => return Err(failed("read", path, source)),
    };
    let text = config::edit(&text, changes)?;
    let written = replace_file(path, text.as_bytes());
    written.map_err(|(step, path, source)| failed(step, &path, source))
}

fn log_changes(changes: &BTreeMap<String, String>, by: std::net::SocketAddr) {
    for (name, value) in changes {
        let at_once = KEYS.iter().any(|key| key.name == name && key.at_once);
        tracing::info!(key = name, value, at_once, %by, "setting changed");
    }
}

fn refused(request: &Frame, error: &ConfigError) -> Frame {
    let code = match error {
        ConfigError::BlackListed { .. } => response::NO_PERMISSION,
        ConfigError::File { .. }
        | ConfigError::Syntax { .. }
        | ConfigError::UnknownKey { .. }
        | ConfigError::BadValue { .. } => response::SYSTEM_ERROR,
    };
    Frame::response(request, code).with_remark(error.to_string())
}
