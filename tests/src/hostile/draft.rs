//! A request before it becomes bytes: every part of it can be something else than it should.

use escrowmq_common::frame::WIRE_VERSION;

use super::json::Json;

/// A request of an attacker.
#[derive(Clone, Debug)]
pub struct Draft {
    /// Request code.
    pub code: i32,
    /// Flag bits; 2 is one-way, 1 is a response.
    pub flag: i32,
    /// Language byte of the binary header; JSON names it.
    pub language: Vec<u8>,
    /// Version of the sender.
    pub version: i32,
    /// Text for humans.
    pub remark: Option<Vec<u8>>,
    /// Header fields, duplicates included.
    pub fields: Vec<(Vec<u8>, Json)>,
    /// Payload.
    pub body: Body,
    /// Whether the header is written in the binary form.
    pub binary: bool,
    /// The answer may take as long as others want: a held pull, a question that is relayed to a client.
    pub may_wait: bool,
    /// The changes that were made to the request, for the report of a failure.
    pub deeds: Vec<&'static str>,
}

/// A payload.
#[derive(Clone, Debug)]
pub enum Body {
    /// Bytes.
    Raw(Vec<u8>),
    /// A tree of values.
    Json(Json),
    /// Several messages.
    Batch(Vec<Member>),
}

/// One message of a batch.
#[derive(Clone, Debug)]
pub struct Member {
    /// The user's flag.
    pub flag: i32,
    /// Body.
    pub body: Vec<u8>,
    /// Property string.
    pub properties: Vec<u8>,
    /// Added to the declared sizes: of the whole, of the body, of the properties.
    pub lies: [i32; 3],
}

impl Draft {
    /// A request without fields.
    pub fn new(code: i32) -> Draft {
        Draft {
            code,
            flag: 0,
            language: b"JAVA".to_vec(),
            version: WIRE_VERSION,
            remark: None,
            fields: Vec::new(),
            body: Body::Raw(Vec::new()),
            binary: false,
            may_wait: false,
            deeds: Vec::new(),
        }
    }

    /// Adds a text field.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl AsRef<[u8]>) -> Draft {
        self.fields.push((name.as_bytes().to_vec(), Json::text(value)));
        self
    }

    /// Adds a field with a number or a truth value, as clients write it: as a text.
    #[must_use]
    #[expect(clippy::needless_pass_by_value, reason = "callers give numbers")]
    pub fn with_number(self, name: &str, value: impl ToString) -> Draft {
        self.with(name, value.to_string())
    }

    /// Sets a JSON body.
    #[must_use]
    pub fn with_json(mut self, body: serde_json::Value) -> Draft {
        self.body = Body::Json(body.into());
        self
    }

    /// Sets the body.
    #[must_use]
    pub fn with_body(mut self, body: impl Into<Vec<u8>>) -> Draft {
        self.body = Body::Raw(body.into());
        self
    }

    /// Sets a body of several messages.
    #[must_use]
    pub fn with_batch(mut self, members: Vec<Member>) -> Draft {
        self.body = Body::Batch(members);
        self
    }

    /// The answer may take as long as others want.
    #[must_use]
    pub fn waiting(mut self) -> Draft {
        self.may_wait = true;
        self
    }

    /// The value of a field; of several, the last.
    pub fn field(&self, name: &str) -> Option<Vec<u8>> {
        let found = self.fields.iter().rev().find(|(known, _)| known == name.as_bytes())?;
        Some(found.1.bytes())
    }

    /// Whether nobody is to answer.
    pub fn is_unanswered(&self) -> bool {
        self.flag & 3 != 0
    }
}

impl Body {
    /// The body as it goes over the wire.
    pub fn written(&self) -> Vec<u8> {
        match self {
            Body::Raw(bytes) => bytes.clone(),
            Body::Json(json) => json.written(),
            Body::Batch(members) => {
                let mut out = Vec::new();
                for member in members {
                    member.write(&mut out);
                }
                out
            }
        }
    }
}

impl Member {
    /// An honest one.
    pub fn new(body: impl Into<Vec<u8>>, properties: impl Into<Vec<u8>>) -> Member {
        Member { flag: 0, body: body.into(), properties: properties.into(), lies: [0; 3] }
    }

    fn write(&self, out: &mut Vec<u8>) {
        let [whole, body, properties] = self.lies;
        let size = 4 + 4 + 4 + 4 + 4 + self.body.len() + 2 + self.properties.len();
        let mut put = |number: i32| out.extend_from_slice(&number.to_be_bytes());
        put((size as i32).wrapping_add(whole));
        put(0);
        put(0);
        put(self.flag);
        put((self.body.len() as i32).wrapping_add(body));
        out.extend_from_slice(&self.body);
        let length = (self.properties.len() as i32).wrapping_add(properties) as i16;
        out.extend_from_slice(&length.to_be_bytes());
        out.extend_from_slice(&self.properties);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use escrowmq_common::message::batch::messages;

    #[test]
    fn an_honest_batch_is_read_as_one() {
        let body = Body::Batch(vec![Member::new("a", "k\u{1}v\u{2}"), Member::new("bc", "")]).written();
        let read: Vec<_> = messages(&body).map(Result::unwrap).collect();
        assert_eq!((read[0].body, read[0].properties, read[1].body), (&b"a"[..], "k\u{1}v\u{2}", &b"bc"[..]));
    }
}
