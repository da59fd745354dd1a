//! JSON as an attacker writes it: whatever a tree of values can be turned into, valid or not.

use serde_json::Value;

/// A value, or bytes that stand where one belongs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Json {
    /// As it stands: numbers, `null`, and everything that is no JSON.
    Raw(Vec<u8>),
    /// Between quotes, with what must be escaped escaped. Other bytes stay as they are, UTF-8 or not.
    Text(Vec<u8>),
    /// In square brackets.
    List(Vec<Json>),
    /// In braces. Keys may repeat, and need not be texts.
    Object(Vec<(Json, Json)>),
}

impl Json {
    /// A text.
    pub fn text(text: impl AsRef<[u8]>) -> Json {
        Json::Text(text.as_ref().to_vec())
    }

    /// Bytes as they stand.
    pub fn raw(text: impl AsRef<[u8]>) -> Json {
        Json::Raw(text.as_ref().to_vec())
    }

    /// The bytes of a text or of a raw value; others as they are written.
    pub fn bytes(&self) -> Vec<u8> {
        match self {
            Json::Raw(bytes) | Json::Text(bytes) => bytes.clone(),
            nested => nested.written(),
        }
    }

    /// The value as it goes over the wire.
    pub fn written(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.write(&mut out);
        out
    }

    /// Appends the value as it goes over the wire.
    pub fn write(&self, out: &mut Vec<u8>) {
        match self {
            Json::Raw(bytes) => out.extend_from_slice(bytes),
            Json::Text(bytes) => quoted(bytes, out),
            Json::List(items) => {
                out.push(b'[');
                for (at, item) in items.iter().enumerate() {
                    if at > 0 {
                        out.push(b',');
                    }
                    item.write(out);
                }
                out.push(b']');
            }
            Json::Object(members) => {
                out.push(b'{');
                for (at, (key, value)) in members.iter().enumerate() {
                    if at > 0 {
                        out.push(b',');
                    }
                    key.write(out);
                    out.push(b':');
                    value.write(out);
                }
                out.push(b'}');
            }
        }
    }

    /// How many values there are in it, itself included.
    pub fn count(&self) -> usize {
        1 + match self {
            Json::Raw(_) | Json::Text(_) => 0,
            Json::List(items) => items.iter().map(Json::count).sum(),
            Json::Object(members) => members.iter().map(|(_, value)| value.count()).sum(),
        }
    }

    /// The value with this number, itself being number 0.
    pub fn nth(&mut self, number: usize) -> Option<&mut Json> {
        fn find<'a>(value: &'a mut Json, left: &mut usize) -> Option<&'a mut Json> {
            if *left == 0 {
                return Some(value);
            }
            *left -= 1;
            match value {
                Json::Raw(_) | Json::Text(_) => None,
                Json::List(items) => items.iter_mut().find_map(|item| find(item, left)),
                Json::Object(members) => members.iter_mut().find_map(|(_, value)| find(value, left)),
            }
        }
        find(self, &mut { number })
    }
}

impl From<Value> for Json {
    fn from(value: Value) -> Json {
        match value {
            Value::Null | Value::Bool(_) | Value::Number(_) => Json::raw(value.to_string()),
            Value::String(text) => Json::Text(text.into_bytes()),
            Value::Array(items) => Json::List(items.into_iter().map(Json::from).collect()),
            Value::Object(members) => {
                let member = |(key, value): (String, Value)| (Json::Text(key.into_bytes()), Json::from(value));
                Json::Object(members.into_iter().map(member).collect())
            }
        }
    }
}

/// Appends bytes between quotes.
fn quoted(bytes: &[u8], out: &mut Vec<u8>) {
    out.push(b'"');
    for byte in bytes {
        match byte {
            b'"' | b'\\' => out.extend_from_slice(&[b'\\', *byte]),
            0..0x20 => out.extend_from_slice(format!("\\u{byte:04x}").as_bytes()),
            other => out.push(*other),
        }
    }
    out.push(b'"');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_valid_is_written_so_that_it_reads_back() {
        let value = serde_json::json!({"a": [1, "x\"\u{1}\u{20ac}", null, {"b": true}], "c": -1.5});
        let written = Json::from(value.clone()).written();
        assert_eq!(serde_json::from_slice::<Value>(&written).unwrap(), value);
    }

    #[test]
    fn each_value_can_be_reached() {
        let mut json = Json::from(serde_json::json!({"a": [1, 2], "b": {"c": "x"}}));
        assert_eq!(json.count(), 6);
        let mut seen: Vec<Vec<u8>> = (0..6).map(|number| json.nth(number).unwrap().written()).collect();
        seen.sort();
        seen.dedup();
        assert_eq!(seen.len(), 6);
        assert_eq!(json.nth(6), None);
    }
}
