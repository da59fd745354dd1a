//! The KV configuration.

use std::sync::Arc;

use escrowmq_common::code::response;
use escrowmq_common::frame::Frame;
use escrowmq_common::header::{GetKvListByNamespaceHeader, KvKeyHeader, PutKvConfigHeader};
use escrowmq_common::remoting::Connection;

use super::{Server, bad_header, busy, failed, success};
use crate::kv::{KvChange, KvError};

impl Server {
    /// `PUT_KV_CONFIG`; answered when it is on disk.
    pub(super) fn put_kv(&self, connection: &Arc<Connection>, request: Frame) {
        let change = match request.header::<PutKvConfigHeader<'_>>() {
            Ok(put) => KvChange::Put {
                namespace: put.namespace.to_owned(),
                key: put.key.to_owned(),
                value: put.value.to_owned(),
            },
            Err(error) => return connection.reply(&bad_header(&request, &error)),
        };
        self.change_kv(connection, request, change);
    }

    /// `DELETE_KV_CONFIG`; answered when it is on disk, also if there was nothing to delete.
    pub(super) fn delete_kv(&self, connection: &Arc<Connection>, request: Frame) {
        let change = match request.header::<KvKeyHeader<'_>>() {
            Ok(delete) => KvChange::Delete { namespace: delete.namespace.to_owned(), key: delete.key.to_owned() },
            Err(error) => return connection.reply(&bad_header(&request, &error)),
        };
        self.change_kv(connection, request, change);
    }

    /// `GET_KV_CONFIG`.
    pub(super) fn get_kv(&self, request: &Frame) -> Frame {
        let get = match request.header::<KvKeyHeader<'_>>() {
            Ok(get) => get,
            Err(error) => return bad_header(request, &error),
        };
        match self.kv.tables().get(get.namespace, get.key) {
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
        match self.kv.tables().list(list.namespace) {
            Some(body) => success(request).with_body(body),
            None => not_found(request, format!("No config item, Namespace: {}", list.namespace)),
        }
    }

    fn change_kv(&self, connection: &Arc<Connection>, request: Frame, change: KvChange) {
        let connection = Arc::clone(connection);
        self.kv.change(change, move |outcome| {
            connection.reply(&match outcome {
                Ok(()) => success(&request),
                Err(KvError::Busy) => busy(&request),
                Err(error) => failed(&request, error.to_string()),
            });
        });
    }
}

fn not_found(request: &Frame, remark: String) -> Frame {
    Frame::response(request, response::QUERY_NOT_FOUND).with_remark(remark)
}
