//! Requests that are encoded once and then copied, with the few bytes that differ patched in place.
//!
//! Every patched field has the same width in each request: numbers get leading zeros, which all receivers read.

use bytes::BytesMut;
use escrowmq_common::frame::{Frame, HeaderEncoding};

/// Opaques are of ten digits each, from here to the greatest number.
pub(super) const OPAQUE_BASE: i32 = 1_000_000_000;
/// How many opaques there are.
pub(super) const OPAQUE_COUNT: u64 = i32::MAX as u64 - OPAQUE_BASE as u64 + 1;
/// Stands for a unique id, 32 hexadecimal digits.
pub(super) const UNIQUE_ID: &str = "ESCROWMQ-BENCH-UNIQUE-ID-0000000";
/// Stands for a time in ms since 1970, thirteen digits until the year 2286.
pub(super) const TIME_MS: i64 = 1_999_888_777_666;
/// Stands for an offset or position; nineteen digits, as the greatest number has.
pub(super) const OFFSET: i64 = 9_111_222_333_444_555_666;
/// Stands for a second offset.
pub(super) const OTHER_OFFSET: i64 = 9_222_333_444_555_666_777;

/// Place of the opaque in a binary frame: after both lengths, code, language and version.
const BINARY_OPAQUE: usize = 13;

/// Where a field lies within a template.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Spot {
    at: usize,
    len: usize,
}

/// One encoded request.
#[derive(Clone, Debug)]
pub(super) struct Template {
    bytes: Vec<u8>,
    encoding: HeaderEncoding,
    opaque: usize,
    body: usize,
}

impl Template {
    /// Encodes a request. Its placeholders are found with [`spot`](Template::spot).
    pub(super) fn new(mut frame: Frame, encoding: HeaderEncoding) -> Template {
        frame.encoding = encoding;
        frame.opaque = OPAQUE_BASE;
        let mut bytes = BytesMut::new();
        frame.try_encode(&mut bytes).expect("a request of a size that was checked");
        let bytes = bytes.to_vec();
        let opaque = match encoding {
            HeaderEncoding::Binary => BINARY_OPAQUE,
            HeaderEncoding::Json => {
                let mark = b"\"opaque\":";
                let found = bytes.windows(mark.len()).position(|window| window == mark);
                found.expect("a JSON header has an opaque") + mark.len()
            }
        };
        Template { body: bytes.len() - frame.body.len(), bytes, encoding, opaque }
    }

    /// Where a placeholder lies. All of its places are patched: a transaction's id is in its decision twice.
    ///
    /// # Panics
    ///
    /// If it is not there, or also elsewhere than in the header.
    pub(super) fn spots(&self, placeholder: &str) -> Vec<Spot> {
        let wanted = placeholder.as_bytes();
        let header = &self.bytes[..self.body];
        let found = header.windows(wanted.len()).enumerate().filter(|(_, window)| *window == wanted);
        let spots: Vec<Spot> = found.map(|(at, window)| Spot { at, len: window.len() }).collect();
        assert!(!spots.is_empty(), "{placeholder} is in the template");
        spots
    }

    /// The only place of a placeholder.
    ///
    /// # Panics
    ///
    /// If it is not there, or more than once.
    pub(super) fn spot(&self, placeholder: &str) -> Spot {
        let spots = self.spots(placeholder);
        assert_eq!(spots.len(), 1, "{placeholder} is in the template once");
        spots[0]
    }

    /// Appends a copy with this opaque to `out`; the result patches the rest.
    pub(super) fn copy<'a>(&self, out: &'a mut Vec<u8>, opaque: i32) -> Request<'a> {
        let start = out.len();
        out.extend_from_slice(&self.bytes);
        let bytes = &mut out[start..];
        match self.encoding {
            HeaderEncoding::Binary => bytes[self.opaque..self.opaque + 4].copy_from_slice(&opaque.to_be_bytes()),
            HeaderEncoding::Json => decimal(&mut bytes[self.opaque..self.opaque + 10], i64::from(opaque)),
        }
        Request { bytes, body: self.body }
    }
}

/// A request that was just copied.
#[derive(Debug)]
pub(super) struct Request<'a> {
    bytes: &'a mut [u8],
    body: usize,
}

impl Request<'_> {
    /// Writes text of the placeholder's length.
    pub(super) fn text(&mut self, spot: Spot, text: &[u8]) {
        self.bytes[spot.at..spot.at + spot.len].copy_from_slice(text);
    }

    /// Writes a number that is not negative, with leading zeros.
    pub(super) fn number(&mut self, spot: Spot, number: i64) {
        decimal(&mut self.bytes[spot.at..spot.at + spot.len], number);
    }

    /// The body.
    pub(super) fn body(&mut self) -> &mut [u8] {
        &mut self.bytes[self.body..]
    }
}

/// Fills `out` with the last digits of a number.
fn decimal(out: &mut [u8], number: i64) {
    let mut rest = number.unsigned_abs();
    for digit in out.iter_mut().rev() {
        *digit = b'0' + (rest % 10) as u8;
        rest /= 10;
    }
}

/// Fills `out` with the last hexadecimal digits of a number, in capitals as Java writes them.
pub(super) fn hexadecimal(out: &mut [u8], mut number: u64) {
    for digit in out.iter_mut().rev() {
        *digit = b"0123456789ABCDEF"[(number & 15) as usize];
        number >>= 4;
    }
}

#[cfg(test)]
mod tests {
    use escrowmq_common::code::request;
    use escrowmq_common::frame::FrameDecoder;
    use escrowmq_common::header::{EndTransactionHeader, PullMessageHeader};

    use super::*;

    fn decoded(bytes: &[u8]) -> Frame {
        let mut buffer = BytesMut::from(bytes);
        let frame = FrameDecoder::default().next(&mut buffer).unwrap().unwrap();
        assert!(buffer.is_empty());
        frame
    }

    fn end_transaction(position: i64, counter: i64, id: &str) -> Frame {
        Frame::request(request::END_TRANSACTION).with_header(&EndTransactionHeader {
            producer_group: "G",
            tran_state_table_offset: counter,
            commit_log_offset: position,
            commit_or_rollback: EndTransactionHeader::COMMIT,
            from_transaction_check: false,
            msg_id: Some(id),
            transaction_id: Some(id),
            topic: Some("T"),
            broker_name: None,
        })
    }

    #[test]
    fn a_patched_copy_reads_like_a_request_made_for_the_purpose() {
        let id = "0123456789ABCDEF0123456789ABCDEF";
        for encoding in [HeaderEncoding::Json, HeaderEncoding::Binary] {
            let frame = end_transaction(OFFSET, OTHER_OFFSET, UNIQUE_ID).with_body(vec![7; 40]);
            let template = Template::new(frame, encoding);
            let mut out = b"before".to_vec();
            for (nth, (position, counter)) in [(0, 5), (i64::MAX, 1_234_567)].into_iter().enumerate() {
                let at = out.len();
                let opaque = OPAQUE_BASE + nth as i32 * 17;
                let mut copy = template.copy(&mut out, opaque);
                for spot in template.spots(UNIQUE_ID) {
                    copy.text(spot, id.as_bytes());
                }
                copy.number(template.spot(&OFFSET.to_string()), position);
                copy.number(template.spot(&OTHER_OFFSET.to_string()), counter);
                copy.body()[..2].copy_from_slice(b"hi");
                let frame = decoded(&out[at..]);
                assert_eq!((frame.opaque, frame.encoding, frame.code), (opaque, encoding, request::END_TRANSACTION));
                assert_eq!((frame.body.len(), &frame.body[..3]), (40, &b"hi\x07"[..]));
                let header: EndTransactionHeader<'_> = frame.header().unwrap();
                assert_eq!(header, end_transaction(position, counter, id).header().unwrap());
            }
            assert_eq!(&out[..6], b"before");
        }
    }

    #[test]
    fn the_greatest_opaque_fits() {
        assert_eq!(i64::from(OPAQUE_BASE) + OPAQUE_COUNT as i64 - 1, i64::from(i32::MAX));
        let template = Template::new(Frame::request(request::HEART_BEAT), HeaderEncoding::Json);
        let mut out = Vec::new();
        template.copy(&mut out, i32::MAX);
        assert_eq!(decoded(&out).opaque, i32::MAX);
    }

    #[test]
    #[should_panic(expected = "in the template once")]
    fn a_placeholder_that_is_there_twice_is_no_single_spot() {
        Template::new(end_transaction(1, 2, UNIQUE_ID), HeaderEncoding::Json).spot(UNIQUE_ID);
    }

    #[test]
    fn pulls_are_patched_too() {
        let header = |offset| PullMessageHeader::new("G", "T", 3, offset, 32);
        let frame = Frame::request(request::PULL_MESSAGE).with_header(&header(OFFSET));
        let template = Template::new(frame, HeaderEncoding::Json);
        let mut out = Vec::new();
        template.copy(&mut out, OPAQUE_BASE).number(template.spot(&OFFSET.to_string()), 42);
        assert_eq!(decoded(&out).header::<PullMessageHeader<'_>>().unwrap(), header(42));
    }

    #[test]
    fn numbers_have_a_fixed_width() {
        let mut out = *b"xxxxxx";
        decimal(&mut out, 1234);
        assert_eq!(&out, b"001234");
        hexadecimal(&mut out, 0xABC);
        assert_eq!(&out, b"000ABC");
    }
}
