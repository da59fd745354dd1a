//! The KV configuration.

use std::sync::Arc;

use escrowmq_common::code::{request as code, response};
use escrowmq_common::frame::Frame;
use escrowmq_common::header::{GetKvListByNamespaceHeader, HeaderError, KvKeyHeader, PutKvConfigHeader};
use escrowmq_common::remoting::Connection;

use super::order::Turn;
use super::refusals::Refusal;
use super::{Server, bad_header, success};
use crate::kv::{KvChange, KvError};

impl Server {
    /// `PUT_KV_CONFIG` and `DELETE_KV_CONFIG`; answered when the change is on disk, also if there was nothing to delete.
    pub(super) fn change_kv(&self, connection: &Arc<Connection>, request: &Frame, turn: Turn) {
        let change = match kv_change(request) {
            Ok(change) => change,
            Err(error) => {
                self.refusals.count(Refusal::Malformed, connection.peer(), &error);
                return turn.answer(connection, &bad_header(request, &error));
            }
        };
        // Only the change and the answer wait for the disk, not the request.
        let answer = success(request);
        let (shown, connection) = (change.clone(), Arc::clone(connection));
        let refusals = Arc::clone(&self.refusals);
        self.kv.change(change, move |outcome| {
            let answer = match outcome {
                Ok(old) => {
                    tell(&turn, &shown, old.as_deref());
                    answer
                }
                Err(error) => {
                    let refusal = match error {
                        KvError::Busy => Refusal::Busy,
                        KvError::Full { .. } => Refusal::KvFull,
                        KvError::TooLong { .. } => Refusal::Malformed,
                        // Logged where it happened.
                        KvError::Io { .. } | KvError::Corrupt { .. } => {
                            return finish(&connection, answer, error, &turn);
                        }
                    };
                    refusals.count(refusal, connection.peer(), error);
                    return finish(&connection, answer, error, &turn);
                }
            };
            turn.answer(&connection, &answer);
        });
    }

    /// `GET_KV_CONFIG`.
    pub(super) fn get_kv(&self, request: &Frame) -> Frame {
        let get = match request.header::<KvKeyHeader<'_>>() {
            Ok(get) => get,
            Err(error) => return bad_header(request, &error),
        };
        match self.kv.get(get.namespace, get.key) {
            Some(value) => success(request).with_field("value", value),
            None => not_found(request, format!("No config item, Namespace: {} Key: {}", get.namespace, get.key)),
        }
    }

    /// `GET_KVLIST_BY_NAMESPACE`.
    pub(super) fn list_kv(&self, request: &Frame) -> Frame {
        let list = match request.header::<GetKvListByNamespaceHeader<'_>>() {
            Ok(list) => list,
            Err(error) => return bad_header(request, &error),
        };
        match self.kv.list(list.namespace) {
            Some(body) => success(request).with_body(body),
            None => not_found(request, format!("No config item, Namespace: {}", list.namespace)),
        }
    }
}

fn kv_change(request: &Frame) -> Result<KvChange, HeaderError> {
    if request.code == code::PUT_KV_CONFIG {
        let put = request.header::<PutKvConfigHeader<'_>>()?;
        Ok(KvChange::Put { namespace: put.namespace.to_owned(), key: put.key.to_owned(), value: put.value.to_owned() })
    } else {
        let delete = request.header::<KvKeyHeader<'_>>()?;
        Ok(KvChange::Delete { namespace: delete.namespace.to_owned(), key: delete.key.to_owned() })
    }
}

fn finish(connection: &Connection, mut answer: Frame, error: &KvError, turn: &Turn) {
    answer.code = if matches!(error, KvError::Busy) { response::SYSTEM_BUSY } else { response::SYSTEM_ERROR };
    let remark = match error {
        KvError::Busy => "[OVERLOAD]system busy, start flow control for a while".to_owned(),
        _ => error.to_string(),
    };
    turn.answer(connection, &answer.with_remark(remark));
}

/// The line of a change, with what was there before.
fn tell(turn: &Turn, change: &KvChange, old: Option<&str>) {
    let (namespace, key, new) = match change {
        KvChange::Put { namespace, key, value } => (namespace, key, Some(value.as_str())),
        KvChange::Delete { namespace, key } => (namespace, key, None),
    };
    let shown = |value: Option<&str>| value.map_or_else(|| "none".to_owned(), |value| format!("'{value}'"));
    turn.tell(&format!("{namespace} {key}"), shown(old), shown(new));
}

fn not_found(request: &Frame, remark: String) -> Frame {
    Frame::response(request, response::QUERY_NOT_FOUND).with_remark(remark)
}
