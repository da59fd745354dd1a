//! Lookups: where a topic lives, which brokers there are.

use std::sync::Arc;

use escrowmq_common::body::Form;
use escrowmq_common::code::response;
use escrowmq_common::frame::{Frame, ResponseHead, write_response};
use escrowmq_common::header::{GetBrokerMemberGroupHeader, GetRouteInfoHeader};
use escrowmq_common::remoting::Connection;

use super::{Server, bad_header, success};
use crate::config::Config;
use crate::kv::ORDER_TOPIC_CONFIG;
use crate::routes::answer::{self, RouteQuery};

/// Clients from this version on (4.9.4) read standard JSON.
const STANDARD_JSON_VERSION: i32 = 401;

/// Characters of an unknown topic that are sent back.
const SHOWN_CHARS_MAX: usize = 512;

impl Server {
    /// `GET_ROUTEINFO_BY_TOPIC`: what every client asks for every topic twice a minute.
    pub(super) fn route(&self, connection: &Arc<Connection>, request: &Frame) {
        if request.is_oneway() {
            return;
        }
        let config = self.config.load();
        let answer = |code, remark: Option<&str>, body: &[u8]| {
            let head = ResponseHead { encoding: request.encoding, opaque: request.opaque, code, remark };
            connection.write_with(|out| write_response(out, head, |_| {}, &[body]));
        };
        if self.is_waiting() {
            let remark = Some("name server not ready");
            return answer(response::SYSTEM_ERROR, remark, &[]);
        }
        let asked = match request.header::<GetRouteInfoHeader<'_>>() {
            Ok(asked) => asked,
            Err(error) => return connection.reply(&bad_header(request, &error)),
        };
        if let Some(body) = self.route_of(&asked, request.version, &config) {
            answer(response::SUCCESS, None, body.as_bytes());
        } else {
            let remark = no_route(asked.topic.unwrap_or("null"));
            answer(response::TOPIC_NOT_EXIST, Some(&remark), &[]);
        }
    }

    /// `GET_BROKER_CLUSTER_INFO`.
    pub(super) fn cluster_info(&self, request: &Frame) -> Frame {
        success(request).with_body(answer::cluster_info(&self.routes.brokers()))
    }

    /// `GET_BROKER_MEMBER_GROUP`.
    pub(super) fn member_group(&self, request: &Frame) -> Frame {
        match request.header::<GetBrokerMemberGroupHeader<'_>>() {
            Ok(asked) => {
                let brokers = self.routes.brokers();
                let body = answer::member_group(&brokers, asked.cluster_name, asked.broker_name);
                success(request).with_body(body)
            }
            Err(error) => bad_header(request, &error),
        }
    }

    fn route_of(&self, asked: &GetRouteInfoHeader<'_>, version: i32, config: &Config) -> Option<String> {
        let topic = asked.topic?;
        let zone = asked.zone_name.filter(|zone| !zone.trim().is_empty());
        let zone = zone.filter(|_| asked.zone_mode);
        // Answers that were filtered by zone have bare keys, whoever asks: so it is upstream.
        let modern = version >= STANDARD_JSON_VERSION || asked.accept_standard_json_only;
        let form = if modern && zone.is_none() { Form::Strict } else { Form::Loose };

        let route = self.routes.topic(topic)?;
        let order = config.order_message_enable.then(|| self.kv.get(ORDER_TOPIC_CONFIG, topic)).flatten();
        let query = RouteQuery { form, acting_master: config.support_acting_master, zone, order: order.as_deref() };
        answer::route(&route, &self.routes.brokers(), query)
    }

    pub(super) fn has_waited(&self, config: &Config) -> bool {
        let running = self.clock.monotonic().saturating_sub(self.started);
        running >= config.wait_seconds_for_service
    }
}

/// The exact text: tools and users search for it. A name that no topic can have is cut.
fn no_route(topic: &str) -> String {
    let topic: String = topic.chars().take(SHOWN_CHARS_MAX).collect();
    format!(
        "No topic route info in name server for the topic: {topic}\n\
         See https://rocketmq.apache.org/docs/bestPractice/06FAQ for further details."
    )
}
