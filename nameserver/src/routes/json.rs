//! A small writer of JSON, and of what upstream writes in its place.

use std::fmt::Write as _;

use escrowmq_common::body::Form;

/// Text under construction.
pub(super) struct Json {
    pub(super) out: String,
    form: Form,
}

impl Json {
    pub(super) fn new(form: Form, capacity: usize) -> Self {
        let out = String::with_capacity(capacity);
        Json { out, form }
    }

    pub(super) fn raw(&mut self, text: &str) {
        self.out.push_str(text);
    }

    pub(super) fn number(&mut self, value: impl Into<i64>) {
        let _ = write!(self.out, "{}", value.into());
    }

    pub(super) fn key(&mut self, value: impl Into<i64>) {
        let quote = match self.form {
            Form::Loose => "",
            Form::Strict => "\"",
        };
        self.raw(quote);
        self.number(value);
        self.raw(quote);
        self.raw(":");
    }

    pub(super) fn list<T>(&mut self, open: char, close: char, items: &[T], item: impl Fn(&mut Self, &T)) {
        self.out.push(open);
        for (n, entry) in items.iter().enumerate() {
            if n > 0 {
                self.out.push(',');
            }
            item(self, entry);
        }
        self.out.push(close);
    }

    pub(super) fn text(&mut self, text: &str) {
        self.out.push('"');
        for c in text.chars() {
            match c {
                '"' => self.raw("\\\""),
                '\\' => self.raw("\\\\"),
                '\n' => self.raw("\\n"),
                '\r' => self.raw("\\r"),
                '\t' => self.raw("\\t"),
                c if c < ' ' || (self.form == Form::Strict && !c.is_ascii()) => {
                    for unit in c.encode_utf16(&mut [0; 2]) {
                        let _ = write!(self.out, "\\u{unit:04x}");
                    }
                }
                c => self.out.push(c),
            }
        }
        self.out.push('"');
    }
}

/// Bytes of a text in the loose form, between its quotes: what [`Json::text`] writes. Known before anything is written, so
/// that what would be too long is not made at all.
pub(super) fn written(text: &str) -> usize {
    let byte = |byte| match byte {
        b'"' | b'\\' | b'\n' | b'\r' | b'\t' => 2,
        0..b' ' => 6,
        _ => 1,
    };
    text.bytes().map(byte).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_has_as_many_bytes_as_it_is_counted_with() {
        let every_byte: String = (0..=127).map(char::from).collect();
        for text in ["", "orders", "\"\\", "é€😀\u{7f}\u{85}", &every_byte] {
            let mut json = Json::new(Form::Loose, 0);
            json.text(text);
            assert_eq!(written(text) + 2, json.out.len(), "{text:?}");
        }
    }
}
