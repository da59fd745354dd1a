//! Bodies as values of the user's own types, on the way out and on the way in.
//!
//! ```no_run
//! use escrowmq_client::{Client, Json, Message, typed};
//! use serde::{Deserialize, Serialize};
//!
//! #[derive(Serialize, Deserialize)]
//! struct Order {
//!     number: u64,
//!     cents: u64,
//! }
//!
//! # async fn run(client: Client) -> Result<(), Box<dyn std::error::Error>> {
//! let producer = client.producer("orders_producer").start().await?;
//! producer.send(Message::of("Orders", &Json(Order { number: 17, cents: 1200 }))?).await?;
//!
//! let consumer = client
//!     .push_consumer("orders_consumer")
//!     .subscribe("Orders", "*")
//!     .start(typed(|Json(order): Json<Order>, _message| async move {
//!         println!("order {} costs {} cents", order.number, order.cents);
//!         Ok::<(), std::io::Error>(())
//!     }))
//!     .await?;
//! # drop(consumer);
//! # Ok(())
//! # }
//! ```
//!
//! A payload that cannot be read goes to the dead letters at once, with the reason: it does not become readable by waiting
//! ([`retry_unreadable`](crate::PushConsumerBuilder::retry_unreadable) changes that).

mod json;
mod typed;

use bytes::Bytes;

pub use json::Json;
pub use typed::{TypedFuture, typed};

use crate::message::{Message, MessageExt};

/// A body does not have the form that its reader expects, or a value cannot be written as one.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
#[error("the payload cannot be read or written: {reason}")]
pub struct PayloadError {
    reason: String,
}

impl PayloadError {
    /// With the fault in words.
    pub fn new(reason: impl Into<String>) -> PayloadError {
        PayloadError { reason: reason.into() }
    }
}

/// A value that can be read from a body. Implement it for a format of your own; [`Json`], [`Text`] and [`Bytes`] are there.
pub trait FromPayload: Sized {
    /// Reads a body.
    ///
    /// # Errors
    ///
    /// [`PayloadError`] if it has another form.
    fn read(body: &Bytes) -> Result<Self, PayloadError>;
}

/// A value that can be written as a body.
pub trait ToPayload {
    /// Writes a body.
    ///
    /// # Errors
    ///
    /// [`PayloadError`] if the value has no such form.
    fn write(&self) -> Result<Bytes, PayloadError>;
}

impl FromPayload for Bytes {
    fn read(body: &Bytes) -> Result<Bytes, PayloadError> {
        Ok(body.clone())
    }
}

impl ToPayload for Bytes {
    fn write(&self) -> Result<Bytes, PayloadError> {
        Ok(self.clone())
    }
}

/// A text in UTF-8.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Text(pub String);

impl FromPayload for Text {
    fn read(body: &Bytes) -> Result<Text, PayloadError> {
        let text = std::str::from_utf8(body).map_err(|error| PayloadError::new(error.to_string()))?;
        Ok(Text(text.to_owned()))
    }
}

impl ToPayload for Text {
    fn write(&self) -> Result<Bytes, PayloadError> {
        Ok(Bytes::copy_from_slice(self.0.as_bytes()))
    }
}

impl Message {
    /// A message for `topic` whose body is this value.
    ///
    /// # Errors
    ///
    /// [`PayloadError`] if the value has no such form.
    pub fn of<P: ToPayload>(topic: impl Into<std::sync::Arc<str>>, payload: &P) -> Result<Message, PayloadError> {
        Ok(Message::new(topic, payload.write()?))
    }
}

impl MessageExt {
    /// The body as a value.
    ///
    /// # Errors
    ///
    /// [`PayloadError`] if it has another form. A handler that ends with it sends the message to the dead letters.
    pub fn payload<P: FromPayload>(&self) -> Result<P, PayloadError> {
        P::read(self.body())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::testing::delivered;

    #[test]
    fn texts_and_bytes_come_back() {
        let message = Message::of("T", &Text("grüße".into())).expect("a text");
        assert_eq!(Text::read(message.body()), Ok(Text("grüße".into())));
        let broken = delivered("T", 0, &[0x67, 0xff]);
        let error = broken.payload::<Text>().expect_err("no UTF-8").to_string();
        assert!(error.contains("invalid utf-8"), "{error}");
        assert_eq!(broken.payload::<Bytes>().expect("any bytes"), &[0x67, 0xff][..]);
    }
}
