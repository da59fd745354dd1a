//! A serialiser for the dialect.

use std::fmt;

use bytes::Bytes;
use serde::ser::{self, Serialize};

/// How keys that are no strings, and characters that are no ASCII, are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Form {
    /// `{0:"a"}` and `{{"queueId":0}:5}`: what RocketMQ writes and what its older clients expect.
    #[default]
    Loose,
    /// `{"0":"a"}`; an object key becomes a string that holds its text. Non-ASCII characters are escaped.
    Strict,
}

/// Writes `value` without blanks. Members that are null are left out.
///
/// # Panics
/// If `value` contains an enumeration variant with content; no body has one.
pub fn to_bytes<T: Serialize + ?Sized>(value: &T, form: Form) -> Bytes {
    let mut writer = Writer { out: Vec::with_capacity(256), form };
    value.serialize(&mut writer).expect("bodies consist of structs, lists, maps and plain values");
    writer.out.into()
}

/// The value cannot be expressed.
#[derive(Debug)]
struct Unsupported(String);

impl fmt::Display for Unsupported {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Unsupported {}

impl ser::Error for Unsupported {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self(message.to_string())
    }
}

struct Writer {
    out: Vec<u8>,
    form: Form,
}

impl Writer {
    fn plain(&mut self, value: impl fmt::Display) {
        use std::io::Write as _;
        write!(self.out, "{value}").expect("a Vec takes everything");
    }

    fn string(&mut self, text: &str) {
        self.out.push(b'"');
        for character in text.chars() {
            self.character(character);
        }
        self.out.push(b'"');
    }

    fn character(&mut self, character: char) {
        match character {
            '"' | '\\' => self.out.extend_from_slice(&[b'\\', character as u8]),
            '\n' => self.out.extend_from_slice(b"\\n"),
            '\r' => self.out.extend_from_slice(b"\\r"),
            '\t' => self.out.extend_from_slice(b"\\t"),
            ' '..='~' => self.out.push(character as u8),
            _ if self.form == Form::Strict || character < ' ' || character == '\u{7f}' => {
                for unit in character.encode_utf16(&mut [0; 2]) {
                    self.plain(format_args!("\\u{unit:04x}"));
                }
            }
            _ => {
                let mut utf8 = [0; 4];
                self.out.extend_from_slice(character.encode_utf8(&mut utf8).as_bytes());
            }
        }
    }

    fn key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), Unsupported> {
        let start = self.out.len();
        key.serialize(&mut *self)?;
        if self.form == Form::Strict && self.out[start] != b'"' {
            let text = String::from_utf8(self.out.split_off(start)).expect("only UTF-8 is written");
            self.string(&text);
        }
        Ok(())
    }
}

/// The members of one object or array.
struct Members<'a> {
    writer: &'a mut Writer,
    end: u8,
    is_first: bool,
    /// Length of the output before the current member.
    start: usize,
}

impl<'a> Members<'a> {
    fn open(writer: &'a mut Writer, begin: u8, end: u8) -> Self {
        writer.out.push(begin);
        Self { writer, end, is_first: true, start: 0 }
    }

    fn begin_member(&mut self) {
        self.start = self.writer.out.len();
        if !self.is_first {
            self.writer.out.push(b',');
        }
    }

    fn value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Unsupported> {
        self.writer.out.push(b':');
        let value_start = self.writer.out.len();
        value.serialize(&mut *self.writer)?;
        // Text is quoted, so these bytes can only be an absent value.
        if self.writer.out[value_start..] == *b"null" {
            self.writer.out.truncate(self.start);
        } else {
            self.is_first = false;
        }
        Ok(())
    }

    fn element<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Unsupported> {
        self.begin_member();
        self.is_first = false;
        value.serialize(&mut *self.writer)
    }

    fn close(self) {
        self.writer.out.push(self.end);
    }
}

impl<'a> ser::Serializer for &'a mut Writer {
    type Ok = ();
    type Error = Unsupported;
    type SerializeSeq = Members<'a>;
    type SerializeTuple = Members<'a>;
    type SerializeTupleStruct = Members<'a>;
    type SerializeTupleVariant = ser::Impossible<(), Unsupported>;
    type SerializeMap = Members<'a>;
    type SerializeStruct = Members<'a>;
    type SerializeStructVariant = ser::Impossible<(), Unsupported>;

    fn serialize_bool(self, value: bool) -> Result<(), Unsupported> {
        self.plain(value);
        Ok(())
    }

    fn serialize_i8(self, value: i8) -> Result<(), Unsupported> {
        self.serialize_i64(value.into())
    }

    fn serialize_i16(self, value: i16) -> Result<(), Unsupported> {
        self.serialize_i64(value.into())
    }

    fn serialize_i32(self, value: i32) -> Result<(), Unsupported> {
        self.serialize_i64(value.into())
    }

    fn serialize_i64(self, value: i64) -> Result<(), Unsupported> {
        self.plain(value);
        Ok(())
    }

    fn serialize_u8(self, value: u8) -> Result<(), Unsupported> {
        self.serialize_u64(value.into())
    }

    fn serialize_u16(self, value: u16) -> Result<(), Unsupported> {
        self.serialize_u64(value.into())
    }

    fn serialize_u32(self, value: u32) -> Result<(), Unsupported> {
        self.serialize_u64(value.into())
    }

    fn serialize_u64(self, value: u64) -> Result<(), Unsupported> {
        self.plain(value);
        Ok(())
    }

    fn serialize_f32(self, value: f32) -> Result<(), Unsupported> {
        self.serialize_f64(value.into())
    }

    /// Always with a fraction, so that readers which tell integers from fractions see one; NaN and infinities are null.
    fn serialize_f64(self, value: f64) -> Result<(), Unsupported> {
        if value.is_finite() {
            self.plain(format_args!("{value:?}"));
            return Ok(());
        }
        self.serialize_unit()
    }

    fn serialize_char(self, value: char) -> Result<(), Unsupported> {
        self.string(value.encode_utf8(&mut [0; 4]));
        Ok(())
    }

    fn serialize_str(self, value: &str) -> Result<(), Unsupported> {
        self.string(value);
        Ok(())
    }

    fn serialize_bytes(self, _: &[u8]) -> Result<(), Unsupported> {
        Err(ser::Error::custom("raw bytes"))
    }

    fn serialize_none(self) -> Result<(), Unsupported> {
        self.serialize_unit()
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<(), Unsupported> {
        value.serialize(self)
    }

    fn serialize_unit(self) -> Result<(), Unsupported> {
        self.plain("null");
        Ok(())
    }

    fn serialize_unit_struct(self, _: &'static str) -> Result<(), Unsupported> {
        self.serialize_unit()
    }

    fn serialize_unit_variant(self, _: &'static str, _: u32, variant: &'static str) -> Result<(), Unsupported> {
        self.serialize_str(variant)
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(self, _: &'static str, value: &T) -> Result<(), Unsupported> {
        value.serialize(self)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        name: &'static str,
        _: u32,
        _: &'static str,
        _: &T,
    ) -> Result<(), Unsupported> {
        Err(ser::Error::custom(name))
    }

    fn serialize_seq(self, _: Option<usize>) -> Result<Members<'a>, Unsupported> {
        Ok(Members::open(self, b'[', b']'))
    }

    fn serialize_tuple(self, _: usize) -> Result<Members<'a>, Unsupported> {
        Ok(Members::open(self, b'[', b']'))
    }

    fn serialize_tuple_struct(self, _: &'static str, _: usize) -> Result<Members<'a>, Unsupported> {
        Ok(Members::open(self, b'[', b']'))
    }

    fn serialize_tuple_variant(
        self,
        name: &'static str,
        _: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Self::SerializeTupleVariant, Unsupported> {
        Err(ser::Error::custom(name))
    }

    fn serialize_map(self, _: Option<usize>) -> Result<Members<'a>, Unsupported> {
        Ok(Members::open(self, b'{', b'}'))
    }

    fn serialize_struct(self, _: &'static str, _: usize) -> Result<Members<'a>, Unsupported> {
        Ok(Members::open(self, b'{', b'}'))
    }

    fn serialize_struct_variant(
        self,
        name: &'static str,
        _: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Self::SerializeStructVariant, Unsupported> {
        Err(ser::Error::custom(name))
    }
}

impl ser::SerializeSeq for Members<'_> {
    type Ok = ();
    type Error = Unsupported;

    fn serialize_element<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Unsupported> {
        self.element(value)
    }

    fn end(self) -> Result<(), Unsupported> {
        self.close();
        Ok(())
    }
}

impl ser::SerializeTuple for Members<'_> {
    type Ok = ();
    type Error = Unsupported;

    fn serialize_element<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Unsupported> {
        self.element(value)
    }

    fn end(self) -> Result<(), Unsupported> {
        self.close();
        Ok(())
    }
}

impl ser::SerializeTupleStruct for Members<'_> {
    type Ok = ();
    type Error = Unsupported;

    fn serialize_field<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Unsupported> {
        self.element(value)
    }

    fn end(self) -> Result<(), Unsupported> {
        self.close();
        Ok(())
    }
}

impl ser::SerializeMap for Members<'_> {
    type Ok = ();
    type Error = Unsupported;

    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), Unsupported> {
        self.begin_member();
        self.writer.key(key)
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Unsupported> {
        self.value(value)
    }

    fn end(self) -> Result<(), Unsupported> {
        self.close();
        Ok(())
    }
}

impl ser::SerializeStruct for Members<'_> {
    type Ok = ();
    type Error = Unsupported;

    fn serialize_field<T: Serialize + ?Sized>(&mut self, name: &'static str, value: &T) -> Result<(), Unsupported> {
        self.begin_member();
        self.writer.string(name);
        self.value(value)
    }

    fn end(self) -> Result<(), Unsupported> {
        self.close();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn text(value: &impl Serialize, form: Form) -> String {
        String::from_utf8(to_bytes(value, form).to_vec()).unwrap()
    }

    #[test]
    fn keys_follow_the_form() {
        let map = BTreeMap::from([(0, "a"), (-5, "b")]);
        assert_eq!(text(&map, Form::Loose), r#"{-5:"b",0:"a"}"#);
        assert_eq!(text(&map, Form::Strict), r#"{"-5":"b","0":"a"}"#);
        let map = BTreeMap::from([(BTreeMap::from([("t", "ü\"")]), 1)]);
        assert_eq!(text(&map, Form::Loose), r#"{{"t":"ü\""}:1}"#);
        assert_eq!(text(&map, Form::Strict), r#"{"{\"t\":\"\\u00fc\\\"\"}":1}"#);
    }

    #[test]
    fn nulls_are_left_out_of_objects_only() {
        let map = BTreeMap::from([("a", None), ("b", Some(1)), ("c", None)]);
        assert_eq!(text(&map, Form::Loose), r#"{"b":1}"#);
        assert_eq!(text(&[None, Some(1)], Form::Loose), "[null,1]");
        assert_eq!(text(&BTreeMap::from([("a", "null")]), Form::Loose), r#"{"a":"null"}"#);
        assert_eq!(text(&BTreeMap::from([("a", f64::NAN)]), Form::Loose), "{}");
    }

    #[test]
    fn whatever_is_written_strictly_is_strict_json() {
        let odd = "\u{0}\u{1f}\u{7f}\u{80}\"\\/\n\r\tü标\u{2028}🦀";
        for form in [Form::Loose, Form::Strict] {
            let written = text(&odd, form);
            assert_eq!(serde_json::from_str::<String>(&written).unwrap(), odd);
            assert!(form == Form::Loose || written.is_ascii());
        }
        assert_eq!(text(&0.0, Form::Strict), "0.0");
        assert_eq!(text(&(1.0 / 30.0), Form::Strict), "0.03333333333333333");
    }
}
