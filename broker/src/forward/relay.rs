//! The near end of a tunnel: what comes from the leader goes to the client.

use std::collections::HashMap;
use std::sync::Arc;

use escrowmq_common::code::{request, response};
use escrowmq_common::frame::{Frame, HeaderEncoding};
use escrowmq_common::remoting::{Connection, Service};
use parking_lot::Mutex;

use super::counts::Counts;

/// A request that the leader has not answered.
struct Open {
    code: i32,
    encoding: HeaderEncoding,
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
            self.open.lock().insert(frame.opaque, Open { code: frame.code, encoding: frame.encoding });
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
            let asked = Frame { opaque, encoding: open.encoding, ..Frame::request(open.code) };
            let (code, remark) = match open.code {
                request::PULL_MESSAGE | request::LITE_PULL_MESSAGE => {
                    (response::PULL_RETRY_IMMEDIATELY, "another member leads now")
                }
                _ => {
                    self.counts.unknown.add(u64::from(is_missed));
                    (
                        response::SYSTEM_ERROR,
                        "the outcome is unknown: the connection to the leader of the group broke before it answered",
                    )
                }
            };
            self.client.reply(&Frame::response(&asked, code).with_remark(remark));
        }
    }
}
