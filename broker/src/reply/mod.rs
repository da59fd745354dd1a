//! The way back to the client that asked.
//!
//! A request's time is counted here, and its span ends here, as here the request ends.
//!
//! Promises: an answer is written once, in the header encoding that its request came in, straight into the connection's buffer;
//! a request that is an operator's act leaves a line in the log when it is answered ([`audit`]). Left to others: the content of
//! the answer.

mod audit;
mod refused;

use std::fmt::Display;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use escrowmq_common::audit::{Act, Trail};
use escrowmq_common::clock::monotonic;
use escrowmq_common::code::response;
use escrowmq_common::frame::{FieldWriter, Frame, HeaderEncoding, ResponseHead, write_response};
use escrowmq_common::monitoring::{ByCode, Histogram};
use escrowmq_common::remoting::Connection;

use crate::spans::Begun;

#[cfg(test)]
pub(crate) use audit::name_of;
pub(crate) use refused::Refused;

/// How long requests took from their arrival until their answer, by code.
pub(crate) type RequestTimes = ByCode<Histogram>;

/// Where and how one request is answered. A one-way request's reply swallows the answer.
#[derive(Debug, Clone)]
pub(crate) struct Reply {
    connection: Arc<Connection>,
    opaque: i32,
    encoding: HeaderEncoding,
    oneway: bool,
    /// The operator's act that the request is, if it is one.
    act: Option<Arc<Act>>,
    code: i32,
    /// When the request came, on the monotonic clock.
    came: Duration,
    /// Where the time until its answer is counted.
    times: Arc<RequestTimes>,
    /// Its span, if that is recorded.
    span: Option<Arc<Begun>>,
}

impl Reply {
    /// The way back for this request, which came just now. Its time is counted in `times`, `trail` gets the line of an operator's act, and
    /// `span` ends with it.
    pub(crate) fn new(
        connection: &Arc<Connection>,
        request: &Frame,
        times: &Arc<RequestTimes>,
        trail: &Arc<Trail>,
        span: Option<Arc<Begun>>,
    ) -> Self {
        let act = audit::name_of(request.code).map(|name| Act::new(name, request, connection.peer(), trail));
        Self {
            connection: Arc::clone(connection),
            opaque: request.opaque,
            encoding: request.encoding,
            oneway: request.is_oneway(),
            act: act.map(Arc::new),
            code: request.code,
            came: monotonic(),
            times: Arc::clone(times),
            span,
        }
    }

    /// Writes the log line of an act that is done: its object, the old and the new value. Several objects have a line each.
    pub(crate) fn audit(&self, object: &str, old: impl Display, new: impl Display) {
        if let Some(act) = &self.act {
            act.tell(object, old, new);
        }
    }

    /// The time since the request came.
    pub(crate) fn age(&self) -> Duration {
        monotonic().saturating_sub(self.came)
    }

    fn end(&self, code: i32, remark: Option<&str>) {
        let age = self.age();
        self.times.of(self.code).record(age);
        if let Some(span) = &self.span {
            span.end(code, remark, age);
        }
    }

    /// Whether nobody waits for an answer.
    pub(crate) fn is_oneway(&self) -> bool {
        self.oneway
    }

    /// The connection that asked.
    pub(crate) fn connection(&self) -> &Arc<Connection> {
        &self.connection
    }

    /// Answers, straight into the connection's buffer. Never blocks.
    pub(crate) fn send(
        self,
        code: i32,
        remark: Option<&str>,
        fields: impl FnOnce(&mut FieldWriter<'_>),
        body: &[&[u8]],
    ) {
        if let Some(act) = &self.act {
            act.answered(code, remark);
        }
        if !self.oneway {
            let head = ResponseHead { encoding: self.encoding, opaque: self.opaque, code, remark };
            self.connection.write_with(|out| write_response(out, head, fields, body));
        }
        self.end(code, remark);
    }

    /// Answers with a body of `length` bytes that `write` appends straight to the connection's buffer. If it fails,
    /// nothing was sent, and the way back is still open.
    pub(crate) fn send_with<E>(
        &self,
        code: i32,
        remark: Option<&str>,
        fields: impl FnOnce(&mut FieldWriter<'_>),
        length: usize,
        write: impl FnOnce(&mut BytesMut) -> Result<(), E>,
    ) -> Result<(), E> {
        debug_assert!(self.act.is_none(), "an act is answered by `send`");
        if self.oneway {
            return Ok(());
        }
        let head = ResponseHead { encoding: self.encoding, opaque: self.opaque, code, remark };
        let mut result = Ok(());
        self.connection.write_with(|out| {
            let start = out.len();
            out.reserve(512 + length);
            write_response(out, head, fields, &[]);
            result = write(out);
            if result.is_err() {
                return out.truncate(start);
            }
            // The frame's first four bytes are the length of the rest, written before the body was there.
            let rest = u32::try_from(out.len() - start - 4).expect("a body is bounded by the limits of a pull");
            out[start..start + 4].copy_from_slice(&rest.to_be_bytes());
        });
        if result.is_ok() {
            self.end(code, remark);
        }
        result
    }

    /// Answers success without fields or body.
    pub(crate) fn ok(self) {
        self.send(response::SUCCESS, None, |_| {}, &[]);
    }

    /// Answers success with a body.
    pub(crate) fn body(self, body: &[u8]) {
        self.send(response::SUCCESS, None, |_| {}, &[body]);
    }

    /// Answers an error.
    pub(crate) fn error(self, code: i32, remark: &str) {
        self.send(code, Some(remark), |_| {}, &[]);
    }

    /// Answers that the request is refused.
    pub(crate) fn refuse(self, refused: impl Into<Refused>) {
        let Refused { code, remark } = refused.into();
        self.error(code, &remark);
    }

    /// Answers that the request code is not served.
    pub(crate) fn unsupported(self, code: i32) {
        self.error(response::REQUEST_CODE_NOT_SUPPORTED, &format!(" request type {code} not supported"));
    }
}
