//! Both codecs against known bytes, against each other, and against rubbish.

use proptest::prelude::*;

use super::*;
use crate::code::{request, response};

fn encoded(frame: &Frame) -> BytesMut {
    let mut out = BytesMut::new();
    frame.encode(&mut out);
    out
}

/// A frame with the given header and body bytes, its length field included.
fn raw(kind: u8, header: &[u8], body: &[u8]) -> BytesMut {
    let mut out = BytesMut::new();
    out.extend_from_slice(&((4 + header.len() + body.len()) as u32).to_be_bytes());
    out.extend_from_slice(&(u32::from(kind) << 24 | header.len() as u32).to_be_bytes());
    out.extend_from_slice(header);
    out.extend_from_slice(body);
    out
}

fn json(header: &str) -> Result<Frame, FrameError> {
    let frame = FrameDecoder::default().next(&mut raw(0, header.as_bytes(), b""))?;
    Ok(frame.expect("the frame is whole"))
}

fn next(buffer: &mut BytesMut) -> Result<Option<Frame>, FrameError> {
    FrameDecoder::default().next(buffer)
}

#[test]
fn equals_send_each_other_longer_frames_without_a_copy_of_the_body() {
    let body = Bytes::from(vec![7; MAX_FRAME_LEN + 1]);
    let frame = Frame { encoding: HeaderEncoding::Binary, ..Frame::request(3).with_body(body.clone()) };
    let mut out = BytesMut::new();
    let whole = 8 + 21 + body.len();
    assert_eq!(
        frame.encode_head(&mut out, whole - 1),
        Err(FrameError::TooLong { length: whole as u64, limit: whole - 1 })
    );
    assert!(out.is_empty());
    frame.encode_head(&mut out, whole).unwrap();
    assert_eq!(out.len(), whole - body.len());
    assert_eq!(FrameDecoder::between_equals(whole).frame_len(&out[..3]), Ok(None));
    assert_eq!(FrameDecoder::between_equals(whole).frame_len(&out), Ok(Some(whole)));
    assert!(FrameDecoder::new(whole).frame_len(&out).is_err(), "no client may");
    out.extend_from_slice(&body);
    let read = FrameDecoder::between_equals(whole).next(&mut out).unwrap().expect("it is whole");
    assert_eq!((read.code, read.body), (3, body));
}

#[test]
fn json_is_written_as_java_writes_it() {
    let mut frame = Frame::request(response::SUCCESS).with_remark("a \"b\"\n\u{1}");
    frame.flag = 1;
    frame.opaque = 11;
    let out = encoded(&frame.clone().with_field("k", "v\\").with_field("n", -1));
    let text = br#"{"code":0,"extFields":{"k":"v\\","n":"-1"},"flag":1,"language":"JAVA","opaque":11,"remark":"a \"b\"\n\u0001","serializeTypeCurrentRPC":"JSON","version":479}"#;
    assert_eq!(&out[8..], text);
    assert_eq!(out[..8], raw(0, text, b"")[..8]);
    assert!(!String::from_utf8_lossy(&encoded(&frame)).contains("extFields"));
}

#[test]
fn json_is_read_in_any_shape() {
    let frame = json(
        " { \"unknown\" : {\"a\":[1,{\"b\":null}],\"c\":-1.5e3}, \"version\":\"401\",\"extFields\" : \
         {\"n\":12 , \"b\":true,\"s\":\"x\\u0001\\u00fc\\ud83d\\ude00\\/\",\"null\":null, \"o\":{\"k\":1}},\
         \"opaque\":-5,\"language\":\"COBOL\",\"code\":105 }\n",
    )
    .unwrap();
    assert_eq!((frame.code, frame.opaque, frame.version, frame.flag), (105, -5, 401, 0));
    assert_eq!(frame.language, Language::OTHER);
    assert_eq!(frame.fields.get("n"), Some("12"));
    assert_eq!(frame.fields.get("b"), Some("true"));
    assert_eq!(frame.fields.get("s"), Some("x\u{1}ü\u{1F600}/"));
    assert_eq!(frame.fields.get("null"), None);
    assert_eq!(frame.fields.get("o"), Some("{\"k\":1}"));
    assert_eq!(frame.remark, None);
    assert_eq!(json("{}").unwrap().code, 0);
    assert!(json(r#"{"code":1,"extFields":null}"#).unwrap().fields.is_empty());
    // Control characters that a client left as they are.
    let raw = json("{\"extFields\":{\"i\":\"K\u{1}\\u0041\u{2}\\\"\"}}").unwrap();
    assert_eq!(raw.fields.get("i"), Some("K\u{1}A\u{2}\""));
    // Half a surrogate pair is replaced, not refused.
    assert_eq!(json(r#"{"remark":"\ud83dx\udc00"}"#).unwrap().remark.as_deref(), Some("\u{FFFD}x\u{FFFD}"));
}

#[test]
fn broken_json_is_refused() {
    let deep = format!("{{\"x\":{}1{}}}", "[".repeat(5000), "]".repeat(5000));
    for text in [
        "",
        "x",
        "{",
        "{\"code\"",
        "{\"code\":}",
        "{\"code\":1",
        "{\"code\":1}}",
        "{\"code\":1,}",
        "{\"code\":1e400}",
        "{\"code\":99999999999}",
        "{\"code\":\"x\"}",
        "{\"remark\":\"\\q\"}",
        "{\"remark\":\"\\u12\"}",
        "{\"remark\":\"\\",
        "{\"extFields\":[]}",
        "{\"extFields\":{\"a\"}}",
        "{\"a\":tru}",
        "[]",
        "{\"remark\":\"\\ü\"}",
        &deep,
    ] {
        assert!(json(text).is_err(), "{}", &text[..text.len().min(40)]);
    }
}

#[test]
fn bytes_that_are_no_utf8_are_replaced() {
    let mut buffer = raw(0, b"{\"code\":1,\"remark\":\"\xff\"}", b"");
    assert_eq!(next(&mut buffer).unwrap().unwrap().remark.as_deref(), Some("\u{FFFD}"));
}

#[test]
fn binary_has_a_fixed_part_of_21_bytes() {
    let mut frame = Frame::request(request::HEART_BEAT);
    frame.encoding = HeaderEncoding::Binary;
    frame.language = Language::GO;
    let out = encoded(&frame);
    assert_eq!(out.len(), 8 + 21);
    assert_eq!(out[4..8], [1, 0, 0, 21]);
    assert_eq!(out[8..13], [0, 34, 9, 1, 0xdf]);
}

#[test]
fn large_codes_survive_the_binary_header() {
    for code in [200_050, 200_051, 200_052, 200_053, 200_054, 200_055, 200_056, 200_151] {
        let mut frame = Frame::request(code);
        frame.encoding = HeaderEncoding::Binary;
        let mut out = encoded(&frame);
        assert_eq!(out[8..10], (code as i16).to_be_bytes());
        assert_eq!(next(&mut out).unwrap().unwrap().code, code);
    }
    // Only request codes are meant: a response keeps its number.
    let mut answer = Frame::response(&Frame::request(1), 3442);
    answer.encoding = HeaderEncoding::Binary;
    assert_eq!(next(&mut encoded(&answer)).unwrap().unwrap().code, 3442);
}

#[test]
fn a_response_needs_no_frame() {
    for encoding in [HeaderEncoding::Json, HeaderEncoding::Binary] {
        let head = ResponseHead { encoding, opaque: 9, code: 0, remark: Some("FOUND") };
        let mut out = BytesMut::from(&b"before"[..]);
        write_response(
            &mut out,
            head,
            |fields| {
                fields.text("msgId", "A\"B");
                fields.number("offset", i64::MIN);
                fields.boolean("TRACE_ON", true);
                fields.display("mixed", format_args!("{}\u{2}{}", 1, "x"));
            },
            &[b"bo", b"", b"dy"],
        );
        bytes::Buf::advance(&mut out, 6);
        let frame = next(&mut out).unwrap().unwrap();
        assert!(out.is_empty() && frame.is_response());
        assert_eq!((frame.opaque, frame.code, frame.version), (9, 0, WIRE_VERSION));
        assert_eq!(frame.remark.as_deref(), Some("FOUND"));
        assert_eq!(frame.fields.get("msgId"), Some("A\"B"));
        assert_eq!(frame.fields.get("offset"), Some("-9223372036854775808"));
        assert_eq!(frame.fields.get("TRACE_ON"), Some("true"));
        assert_eq!(frame.fields.get("mixed"), Some("1\u{2}x"));
        assert_eq!(&frame.body[..], b"body");
    }
}

#[test]
fn too_long_a_frame_is_not_sent() {
    let body = vec![0_u8; MAX_FRAME_LEN];
    let request = Frame::request(1).with_body(body.clone());
    let mut out = BytesMut::new();
    assert!(matches!(request.try_encode(&mut out), Err(FrameError::TooLong { .. })));
    assert!(out.is_empty());
    let mut out = encoded(&Frame::response(&request, 0).with_body(body));
    let answer = next(&mut out).unwrap().unwrap();
    assert_eq!(answer.code, response::SYSTEM_ERROR);
    assert!(answer.remark.unwrap().contains("above the limit"));
}

#[test]
fn impossible_lengths_are_refused_before_their_bytes_arrive() {
    let bytes = |bytes: &[u8]| BytesMut::from(bytes);
    for length in [-1_i32, 0, 3, i32::MIN] {
        assert!(matches!(next(&mut bytes(&length.to_be_bytes())), Err(FrameError::BadLength(_))));
    }
    assert!(matches!(next(&mut bytes(&17_000_000_i32.to_be_bytes())), Err(FrameError::TooLong { .. })));
    assert!(matches!(next(&mut bytes(b"GET / HTTP/1.1\r\n")), Err(FrameError::TooLong { .. })));
    assert!(matches!(next(&mut bytes(&[0, 0, 0, 20, 0, 0, 1, 0x90])), Err(FrameError::HeaderBeyondFrame { .. })));
    assert_eq!(next(&mut bytes(&[0, 0, 0, 24, 7, 0, 0, 1])).unwrap_err(), FrameError::UnknownEncoding(7));
    assert_eq!(Frame::decode(Bytes::from_static(&[0, 0])).unwrap_err(), FrameError::BadLength(2));
    // A declared length makes no room for itself.
    let mut large = bytes(&(15 * 1024 * 1024_i32).to_be_bytes());
    assert!(next(&mut large).unwrap().is_none());
    assert!(large.capacity() < 1024 * 1024);
}

#[test]
fn a_small_limit_holds() {
    let frame = Frame::request(1).with_body(vec![7; 100]);
    let mut out = encoded(&frame);
    assert!(matches!(FrameDecoder::new(64).next(&mut out), Err(FrameError::TooLong { limit: 64, .. })));
}

#[test]
fn absurdly_many_fields_are_refused() {
    let fields = vec!["\"\":\"\""; 5000].join(",");
    let error = json(&format!("{{\"extFields\":{{{fields}}}}}")).unwrap_err();
    assert!(matches!(error, FrameError::TooManyFields(_)));
}

fn any_frame() -> impl Strategy<Value = Frame> {
    let texts = prop::collection::vec((any::<String>(), any::<String>()), 0..40);
    let body = prop::collection::vec(any::<u8>(), 0..200);
    let numbers = (any::<i16>(), 0_u8..14, any::<i16>(), any::<i32>(), any::<i32>());
    (numbers, prop::option::of(".+"), texts, body, any::<bool>()).prop_map(|(numbers, remark, texts, body, binary)| {
        let (code, language, version, opaque, flag) = numbers;
        // The numbers that stand for larger ones in binary requests come back as those.
        let code = if matches!(code, 3442..=3448 | 3543) { 0 } else { code };
        let mut fields = Fields::new();
        for (key, value) in &texts {
            fields.insert(key, value);
        }
        Frame {
            code: i32::from(code),
            language: Language::from_code(language),
            version: i32::from(version),
            opaque,
            flag,
            remark,
            fields,
            body: Bytes::from(body),
            encoding: if binary { HeaderEncoding::Binary } else { HeaderEncoding::Json },
        }
    })
}

fn assert_same(left: &Frame, right: &Frame) {
    assert_eq!(
        (left.code, left.language, left.version, left.opaque, left.flag, left.encoding),
        (right.code, right.language, right.version, right.opaque, right.flag, right.encoding)
    );
    assert_eq!(left.remark, right.remark);
    assert_eq!(left.fields, right.fields);
    assert_eq!(left.body, right.body);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn what_is_written_reads_back(frame in any_frame()) {
        let mut out = encoded(&frame);
        let whole = out.clone().freeze();
        let read = next(&mut out).unwrap().unwrap();
        prop_assert!(out.is_empty());
        assert_same(&read, &frame);
        assert_same(&Frame::decode(whole.slice(4..)).unwrap(), &frame);
    }

    #[test]
    fn json_agrees_with_a_general_parser(frame in any_frame()) {
        let frame = Frame { encoding: HeaderEncoding::Json, body: Bytes::new(), ..frame };
        let out = encoded(&frame);
        let value: serde_json::Value = serde_json::from_slice(&out[8..]).unwrap();
        prop_assert_eq!(&value["code"], frame.code);
        prop_assert_eq!(value["remark"].as_str(), frame.remark.as_deref());
        for (key, _) in &frame.fields {
            prop_assert_eq!(value["extFields"][key].as_str(), frame.fields.get(key));
        }
        // And what that one writes, escapes spelled its way, we read.
        let again = json(&serde_json::to_string_pretty(&value).unwrap()).unwrap();
        for (key, _) in &frame.fields {
            prop_assert_eq!(again.fields.get(key), frame.fields.get(key));
        }
    }

    #[test]
    fn a_stream_may_arrive_in_any_pieces(
        frames in prop::collection::vec(any_frame(), 1..5),
        cuts in prop::collection::vec(1_usize..200, 1..20),
    ) {
        let mut stream = BytesMut::new();
        for frame in &frames {
            frame.encode(&mut stream);
        }
        let (mut buffer, mut read, mut cuts) = (BytesMut::new(), Vec::new(), cuts.iter().cycle());
        while !stream.is_empty() {
            let piece = stream.split_to((*cuts.next().unwrap()).min(stream.len()));
            buffer.extend_from_slice(&piece);
            while let Some(frame) = next(&mut buffer).unwrap() {
                read.push(frame);
            }
        }
        prop_assert!(buffer.is_empty());
        prop_assert_eq!(read.len(), frames.len());
        read.iter().zip(&frames).for_each(|(read, frame)| assert_same(read, frame));
    }

    #[test]
    fn a_cut_header_is_an_error_and_never_a_panic(frame in any_frame(), at in any::<prop::sample::Index>()) {
        let whole = encoded(&Frame { body: Bytes::new(), ..frame });
        let header = &whole[8..];
        let mut buffer = raw(whole[4], &header[..at.index(header.len())], b"");
        prop_assert!(next(&mut buffer).is_err());
    }

    #[test]
    fn flipped_and_random_bytes_never_panic(
        frame in any_frame(),
        flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
        random in prop::collection::vec(any::<u8>(), 0..300),
        kind in 0_u8..3,
    ) {
        let mut bytes = encoded(&frame);
        for (at, byte) in flips {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        let _ = next(&mut bytes);
        let _ = next(&mut raw(kind, &random, b""));
        let _ = Frame::decode(Bytes::from(random));
    }
}
