//! The near end of a tunnel: what comes from the leader goes to the client.

use std::collections::HashMap;
use std::sync::Arc;

use escrowmq_common::code::{remark, request, response};
use escrowmq_common::frame::{Frame, HeaderEncoding};
use escrowmq_common::header::PullMessageResponse;
use escrowmq_common::remoting::{Connection, Service};
use parking_lot::Mutex;

use super::counts::Counts;

/// A request that the leader has not answered.
struct Open {
    code: i32,
    encoding: HeaderEncoding,
    /// Of a pull: the offset that it asked for.
    offset: Option<i64>,
}

impl Open {
    /// The answer where the leader gives none. A pull is asked again; clients read from its answer where to go on.
    fn answer(self, opaque: i32) -> Frame {
        let asked = Frame { opaque, encoding: self.encoding, ..Frame::request(self.code) };
        let Some(offset) = self.offset else {
            let remark = format!(
                "{}: the connection to the leader of the group broke before it answered",
                remark::OUTCOME_UNKNOWN
            );
            return Frame::response(&asked, response::SYSTEM_ERROR).with_remark(remark);
        };
        let header = PullMessageResponse {
            suggest_which_broker_id: 0,
            next_begin_offset: offset,
            min_offset: 0,
            max_offset: offset,
            topic_sys_flag: None,
            group_sys_flag: None,
            offset_delta: None,
            forbidden_type: None,
        };
        let again = Frame::response(&asked, response::PULL_RETRY_IMMEDIATELY).with_header(&header);
        again.with_remark("another member leads now")
    }
}

/// The requests of one client that one leader has not answered.
pub(super) struct Relay {
    client: Arc<Connection>,
    counts: Arc<Counts>,
    open: Mutex<HashMap<i32, Open>>,
}

impl Relay {
    pub(super) fn new(client: Arc<Connection>, counts: Arc<Counts>) -> Self {
        Self { client, counts, open: Mutex::default() }
    }

    /// A request is about to be passed on.
    pub(super) fn note(&self, frame: &Frame) {
        if !frame.is_oneway() {
            let is_pull = matches!(frame.code, request::PULL_MESSAGE | request::LITE_PULL_MESSAGE);
            let offset = is_pull.then(|| frame.fields.get("queueOffset")?.parse().ok()).flatten();
            self.open.lock().insert(frame.opaque, Open { code: frame.code, encoding: frame.encoding, offset });
        }
    }

    /// Whether everything is answered.
    pub(super) fn is_idle(&self) -> bool {
        self.open.lock().is_empty()
    }
}

impl Service for Relay {
    fn on_request(&self, _leader: &Arc<Connection>, request: Frame) {
        self.client.write_with(|out| request.encode(out));
    }

    fn on_response(&self, _leader: &Arc<Connection>, response: Frame) {
        if self.open.lock().remove(&response.opaque).is_some() {
            self.client.reply(&response);
        }
    }

    fn on_close(&self, _leader: &Arc<Connection>) {
        let left = std::mem::take(&mut *self.open.lock());
        // A client that is gone waits for nothing.
        let is_missed = self.client.is_open();
        if is_missed && !left.is_empty() {
            self.counts.broken.add_one();
        }
        for (opaque, open) in left {
            self.counts.unknown.add(u64::from(is_missed && open.offset.is_none()));
            self.client.reply(&open.answer(opaque));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_leader_does_not_answer_is_answered_as_its_client_can_read_it() {
        let open = |code, offset| Open { code, encoding: HeaderEncoding::Json, offset };
        let pull = open(request::PULL_MESSAGE, Some(7)).answer(3);
        assert_eq!((pull.code, pull.opaque), (response::PULL_RETRY_IMMEDIATELY, 3));
        // Clients refuse an answer in which one of these is missing.
        for (field, value) in
            [("nextBeginOffset", "7"), ("minOffset", "0"), ("maxOffset", "7"), ("suggestWhichBrokerId", "0")]
        {
            assert_eq!(pull.fields.get(field), Some(value), "{field}");
        }
        let send = open(request::SEND_MESSAGE_V2, None).answer(4);
        assert_eq!(send.code, response::SYSTEM_ERROR);
        assert!(send.remark.is_some_and(|remark| remark.starts_with(remark::OUTCOME_UNKNOWN)));
    }
}
