//! The user's handler as the dispatcher sees it: one shape for single messages and for batches.

use std::any::Any;
use std::error::Error;
use std::fmt::Display;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use escrowmq_common::causes::Causes;
use futures_util::FutureExt;

use crate::message::MessageExt;

/// How a handler ended for the messages it was given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Handled {
    /// Done with: the offset may move on.
    Consumed,
    /// To be tried again; the text says why.
    Failed(String),
}

type HandledFuture = Pin<Box<dyn Future<Output = Handled> + Send>>;

/// The user's handler. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Handler {
    run: Arc<dyn Fn(Vec<MessageExt>) -> HandledFuture + Send + Sync>,
}

impl Handler {
    /// One call per message; the dispatcher must hand over exactly one.
    pub(crate) fn single<F, R, E>(handle: F) -> Handler
    where
        F: Fn(MessageExt) -> R + Send + Sync + 'static,
        R: Future<Output = Result<(), E>> + Send + 'static,
        E: Display + 'static,
    {
        Handler::batch(move |mut messages: Vec<MessageExt>| {
            handle(messages.pop().expect("the dispatcher hands over one message"))
        })
    }

    /// One call for several messages of one queue.
    pub(crate) fn batch<F, R, E>(handle: F) -> Handler
    where
        F: Fn(Vec<MessageExt>) -> R + Send + Sync + 'static,
        R: Future<Output = Result<(), E>> + Send + 'static,
        E: Display + 'static,
    {
        Handler {
            run: Arc::new(move |messages| {
                let ended = handle(messages);
                Box::pin(async move {
                    match ended.await {
                        Ok(()) => Handled::Consumed,
                        Err(error) => Handled::Failed(told(&error)),
                    }
                })
            }),
        }
    }

    /// Runs the handler to its end, its panic or its timeout, whichever is first. A handler out of time is dropped at
    /// its next await point.
    pub(crate) async fn handle(&self, messages: Vec<MessageExt>, timeout: Duration) -> Handled {
        if let Some(error) = messages.iter().find_map(MessageExt::body_error) {
            return Handled::Failed(format!("the body cannot be unfolded: {error}"));
        }
        // The call itself runs user code too (everything before the returned future), so it sits inside the net.
        let guarded = AssertUnwindSafe(async { (self.run)(messages).await }).catch_unwind();
        match tokio::time::timeout(timeout, guarded).await {
            Ok(Ok(handled)) => handled,
            Ok(Err(panic)) => Handled::Failed(format!("the handler panicked: {}", panic_text(panic.as_ref()))),
            Err(_) => Handled::Failed(format!("the handler took longer than {timeout:?}")),
        }
    }
}

/// An error with its causes. A boxed error is asked for its sources; others are told in the alternate form (`{:#}`), in
/// which
/// `anyhow` and its like name their causes.
fn told<E: Display + 'static>(error: &E) -> String {
    // Handlers may end with whatever can be displayed, so that only the value itself says whether it has sources.
    let any: &dyn Any = error;
    if let Some(error) = any.downcast_ref::<Box<dyn Error + Send + Sync>>() {
        return Causes(&**error).to_string();
    }
    match any.downcast_ref::<Box<dyn Error>>() {
        Some(error) => Causes(&**error).to_string(),
        None => format!("{error:#}"),
    }
}

/// The text of a panic, if it is one.
pub(crate) fn panic_text(panic: &(dyn std::any::Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("(no text)")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::testing::delivered;

    async fn ended(handler: Handler) -> Handled {
        handler.handle(vec![delivered("T", 0, b"x")], Duration::from_secs(5)).await
    }

    #[derive(Debug, thiserror::Error)]
    #[error("the row is not written")]
    struct NotWritten(#[source] std::io::Error);

    #[derive(Debug, thiserror::Error)]
    #[error("refused ({0}), order 17 waits")]
    struct Refused(#[source] std::io::Error);

    #[tokio::test(start_paused = true)]
    async fn an_error_shows_its_causes_once() {
        let disk = || std::io::Error::other("the disk is full");
        let anyhow =
            Handler::single(move |_| async move { Err(anyhow::Error::new(NotWritten(disk())).context("order 17")) });
        assert_eq!(ended(anyhow).await, Handled::Failed("order 17: the row is not written: the disk is full".into()));
        let boxed = Handler::single(move |_| async move { Err::<(), Box<dyn Error>>(NotWritten(disk()).into()) });
        assert_eq!(ended(boxed).await, Handled::Failed("the row is not written: the disk is full".into()));
        let sent =
            Handler::single(
                move |_| async move { Err::<(), Box<dyn Error + Send + Sync>>(Box::new(NotWritten(disk()))) },
            );
        assert_eq!(ended(sent).await, Handled::Failed("the row is not written: the disk is full".into()));
        let in_the_middle = Handler::single(move |_| async move { Err::<(), Box<dyn Error>>(Refused(disk()).into()) });
        assert_eq!(ended(in_the_middle).await, Handled::Failed("refused (the disk is full), order 17 waits".into()));
    }

    #[tokio::test(start_paused = true)]
    async fn every_way_to_end_is_told() {
        assert_eq!(ended(Handler::single(|_| async { Ok::<_, String>(()) })).await, Handled::Consumed);
        assert_eq!(ended(Handler::single(|_| async { Err("no") })).await, Handled::Failed("no".into()));
        let panics = Handler::single(|_| async { if true { panic!("ouch") } else { Ok::<_, String>(()) } });
        assert_eq!(ended(panics).await, Handled::Failed("the handler panicked: ouch".into()));
        let panics_early = Handler::batch(|messages| {
            assert!(messages.is_empty(), "early");
            async { Ok::<_, String>(()) }
        });
        assert_eq!(ended(panics_early).await, Handled::Failed("the handler panicked: early".into()));
        let hangs = Handler::single(|_| std::future::pending::<Result<(), String>>());
        assert!(matches!(ended(hangs).await, Handled::Failed(reason) if reason.contains("longer than 5s")));
    }
}
