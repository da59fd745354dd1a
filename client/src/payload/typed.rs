//! Handlers of values.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use super::FromPayload;
use crate::consumer::{IntoVerdict, Verdict};
use crate::message::MessageExt;

/// The future of a handler of values.
pub type TypedFuture = Pin<Box<dyn Future<Output = Verdict> + Send>>;

/// A handler of messages out of one that wants the body as a value: of a [`Json`](crate::Json), a [`Text`](crate::Text), or a
/// [`FromPayload`] of your own. The message with its properties comes second.
///
/// A message whose body has another form does not reach the handler; it is [`Unreadable`](Verdict::Unreadable).
pub fn typed<P, F, R>(handler: F) -> impl Fn(MessageExt) -> TypedFuture + Send + Sync + 'static
where
    P: FromPayload + Send + 'static,
    F: Fn(P, MessageExt) -> R + Send + Sync + 'static,
    R: Future + Send + 'static,
    R::Output: IntoVerdict,
{
    let handler = Arc::new(handler);
    move |message| {
        let handler = Arc::clone(&handler);
        Box::pin(async move {
            match message.payload() {
                Ok(payload) => handler(payload, message).await.into_verdict(),
                Err(error) => error.into(),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::testing::delivered;
    use crate::payload::{Json, Text};

    #[tokio::test]
    async fn only_what_can_be_read_reaches_the_handler() {
        let handler = typed(|Json(number): Json<u32>, _| async move {
            if number > 9 { Ok(Verdict::never("too large")) } else { Err(format!("{number} is refused")) }
        });
        assert_eq!(handler(delivered("T", 0, b"10")).await, Verdict::never("too large"));
        assert_eq!(handler(delivered("T", 0, b"3")).await, Verdict::again("3 is refused"));
        assert!(matches!(handler(delivered("T", 0, b"x")).await, Verdict::Unreadable { .. }));
        let handler = typed(|Text(text), message: MessageExt| async move {
            assert_eq!((text.as_str(), message.topic()), ("a", "T"));
            Ok::<(), String>(())
        });
        assert_eq!(handler(delivered("T", 0, b"a")).await, Verdict::Done);
    }
}
