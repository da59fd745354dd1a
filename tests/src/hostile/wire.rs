//! Drafts as bytes: both encodings of a header, and frames whose lengths lie.

use super::draft::Draft;
use super::json::Json;
use crate::dice::Dice;

/// The whole frame, its length bytes included.
pub fn frame(draft: &Draft, opaque: i32) -> Vec<u8> {
    let header = if draft.binary { binary(draft, opaque) } else { json(draft, opaque) };
    let body = draft.body.written();
    let mut out = Vec::with_capacity(8 + header.len() + body.len());
    out.extend_from_slice(&((4 + header.len() + body.len()) as u32).to_be_bytes());
    let kind = u32::from(draft.binary) << 24;
    out.extend_from_slice(&(kind | header.len() as u32 & 0xff_ffff).to_be_bytes());
    out.extend_from_slice(&header);
    out.extend_from_slice(&body);
    out
}

/// Changes the first eight bytes, so that lengths or the kind of the header are wrong. A reader closes the
/// connection or waits for bytes that never come.
pub fn lie(frame: &mut [u8], dice: &mut Dice) {
    let at = dice.below(8.min(frame.len()));
    frame[at] = match dice.below(4) {
        0 => 0,
        1 => 0xff,
        2 => frame[at].wrapping_add(1),
        _ => dice.roll() as u8,
    };
}

fn json(draft: &Draft, opaque: i32) -> Vec<u8> {
    let number = |value: i32| Json::raw(value.to_string());
    let mut members = vec![(Json::text("code"), number(draft.code))];
    if !draft.fields.is_empty() {
        let field = |(name, value): &(Vec<u8>, Json)| (Json::Text(name.clone()), value.clone());
        members.push((Json::text("extFields"), Json::Object(draft.fields.iter().map(field).collect())));
    }
    members.push((Json::text("flag"), number(draft.flag)));
    members.push((Json::text("language"), Json::Text(draft.language.clone())));
    members.push((Json::text("opaque"), number(opaque)));
    if let Some(remark) = &draft.remark {
        members.push((Json::text("remark"), Json::Text(remark.clone())));
    }
    members.push((Json::text("serializeTypeCurrentRPC"), Json::text("JSON")));
    members.push((Json::text("version"), number(draft.version)));
    Json::Object(members).written()
}

fn binary(draft: &Draft, opaque: i32) -> Vec<u8> {
    let mut out = Vec::new();
    out.extend_from_slice(&(draft.code as i16).to_be_bytes());
    // The number of Java is 0; of any other name its first byte will do.
    out.push(if draft.language == b"JAVA" { 0 } else { draft.language.first().copied().unwrap_or(0xff) });
    out.extend_from_slice(&(draft.version as i16).to_be_bytes());
    out.extend_from_slice(&opaque.to_be_bytes());
    out.extend_from_slice(&draft.flag.to_be_bytes());
    let mut put = |bytes: &[u8]| {
        out.extend_from_slice(&(bytes.len() as i32).to_be_bytes());
        out.extend_from_slice(bytes);
    };
    put(draft.remark.as_deref().unwrap_or_default());
    let mut fields = Vec::new();
    for (name, value) in &draft.fields {
        let (name, value) = (&name[..name.len().min(i16::MAX as usize)], value.bytes());
        fields.extend_from_slice(&(name.len() as i16).to_be_bytes());
        fields.extend_from_slice(name);
        fields.extend_from_slice(&(value.len() as i32).to_be_bytes());
        fields.extend_from_slice(&value);
    }
    put(&fields);
    out
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use escrowmq_common::frame::Frame;

    use super::*;

    #[test]
    fn honest_frames_are_read_as_they_were_meant() {
        for binary in [false, true] {
            let mut draft = Draft::new(37).with("a", "x\"\u{1}\u{20ac}").with_number("n", -5).with_body("body");
            draft.binary = binary;
            draft.flag = 2;
            draft.remark = Some(b"why".to_vec());
            let bytes = frame(&draft, 77);
            let read = Frame::decode(Bytes::from(bytes[4..].to_vec())).unwrap();
            assert_eq!((read.code, read.flag, read.opaque), (37, 2, 77));
            assert_eq!(read.fields.get("a"), Some("x\"\u{1}\u{20ac}"));
            assert_eq!(read.fields.get("n"), Some("-5"));
            assert_eq!(&read.body[..], b"body");
            assert_eq!(read.remark.as_deref(), Some("why"));
        }
    }
}
