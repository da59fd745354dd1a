//! Where lists are made: short ones at once, long ones away from the connections' tasks, a few at a time.
//!
//! A long list of topics walks over the whole table, and one of a KV namespace is some megabytes of JSON: everybody else on
//! the same thread would wait for that.

use std::sync::Arc;

use escrowmq_common::code::request as code;
use escrowmq_common::frame::Frame;
use escrowmq_common::header::GetKvListByNamespaceHeader;
use escrowmq_common::remoting::Connection;

use super::Server;
use super::order::Turn;

/// Long lists that are made at a time.
pub(super) const LISTS_AT_A_TIME: usize = 2;

/// With more topics than this a list of them is long.
const SHORT_TOPICS: usize = 4096;
/// With more broker groups than this the list of all is long.
const SHORT_GROUPS: usize = 256;
/// With more bytes than this the list of a KV namespace is long.
const SHORT_KV_BYTES: usize = 64 * 1024;

impl Server {
    /// The requests for names of topics, the one for all brokers, and the one for a KV namespace.
    pub(super) fn list(&self, connection: &Arc<Connection>, request: Frame, turn: Turn) {
        if self.is_short(&request) {
            connection.reply(&self.listed(&request));
            return drop(turn);
        }
        let Ok(place) = Arc::clone(&self.lists).try_acquire_owned() else {
            connection.reply(&self.busy(connection, &request, "too many long lists are being made"));
            return drop(turn);
        };
        let Some(me) = self.me.upgrade() else {
            return;
        };
        let connection = Arc::clone(connection);
        self.tasks.spawn_blocking("list", move || {
            connection.reply(&me.listed(&request));
            drop((place, turn));
        });
    }

    fn is_short(&self, request: &Frame) -> bool {
        match request.code {
            code::GET_BROKER_CLUSTER_INFO => self.routes.brokers().groups().count() <= SHORT_GROUPS,
            code::GET_KVLIST_BY_NAMESPACE => match request.header::<GetKvListByNamespaceHeader<'_>>() {
                Ok(list) => self.kv.listed(list.namespace) <= SHORT_KV_BYTES,
                // The answer is the error.
                Err(_) => true,
            },
            _ => self.routes.topic_count() <= SHORT_TOPICS,
        }
    }

    fn listed(&self, request: &Frame) -> Frame {
        match request.code {
            code::GET_BROKER_CLUSTER_INFO => self.cluster_info(request),
            code::GET_KVLIST_BY_NAMESPACE => self.list_kv(request),
            _ => self.topics(request),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use escrowmq_common::code::response;
    use escrowmq_common::remoting::{NoRequests, Remote, RemoteOptions};

    use super::*;
    use crate::kv::VALUE_BYTES_MAX;
    use crate::{Config, Nameserver, Refusal};

    const PATIENCE: Duration = Duration::from_secs(120);

    #[tokio::test]
    async fn a_long_list_of_a_namespace_takes_a_place_and_a_short_one_none() {
        let folder = tempfile::tempdir().unwrap();
        let config = Config {
            listen_port: 0,
            bind_address: "127.0.0.1".to_owned(),
            kv_config_path: folder.path().join("kvConfig.json"),
            ..Config::default()
        };
        let nameserver = Nameserver::start(config).await.unwrap();
        let remote = Remote::new(RemoteOptions::default(), Arc::new(NoRequests));
        let address = nameserver.local_addr().to_string();
        let ask = async |code, fields: &[(&'static str, &str)]| {
            let fields = fields.iter().fold(Frame::request(code), |frame, (key, value)| frame.with_field(key, *value));
            remote.call(&address, fields, PATIENCE).await.unwrap()
        };
        let value = "v".repeat(VALUE_BYTES_MAX);
        for (namespace, value) in [("long", value.as_str()), ("short", "v")] {
            let put = [("namespace", namespace), ("key", "k"), ("value", value)];
            assert_eq!(ask(code::PUT_KV_CONFIG, &put).await.code, response::SUCCESS);
        }
        let list = async |namespace| ask(code::GET_KVLIST_BY_NAMESPACE, &[("namespace", namespace)]).await;

        let places = Arc::clone(&nameserver.server.lists).try_acquire_many_owned(LISTS_AT_A_TIME as u32).unwrap();
        assert_eq!(list("long").await.code, response::SYSTEM_BUSY);
        assert_eq!(nameserver.refused(Refusal::Busy), 1);
        assert_eq!(list("short").await.body, r#"{"table":{"k":"v"}}"#);
        assert_eq!(list("none").await.code, response::QUERY_NOT_FOUND);
        drop(places);
        assert_eq!(list("long").await.body, format!(r#"{{"table":{{"k":"{value}"}}}}"#));
        nameserver.stop().await;
    }
}
