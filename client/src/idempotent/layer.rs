//! Idempotence as a layer of `tower`.

use std::fmt::Display;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tower_layer::Layer;
use tower_service::Service;

use super::{Idempotent, MarkStore, OnceError, leased};
use crate::consumer::Verdict;
use crate::message::MessageExt;

/// Stands around a service of messages and lets each through once; made by [`Idempotent::layer`].
#[derive(Debug)]
pub struct OnceLayer<M> {
    idempotent: Arc<Idempotent<M>>,
}

impl<M> Clone for OnceLayer<M> {
    fn clone(&self) -> Self {
        OnceLayer { idempotent: Arc::clone(&self.idempotent) }
    }
}

impl<M: MarkStore> Idempotent<M> {
    /// [`once`](Idempotent::once) as a layer around a service for
    /// [`start_service`](crate::PushConsumerBuilder::start_service).
    pub fn layer(self) -> OnceLayer<M> {
        OnceLayer { idempotent: Arc::new(self) }
    }
}

impl<M, S> Layer<S> for OnceLayer<M> {
    type Service = Once<M, S>;

    fn layer(&self, inner: S) -> Once<M, S> {
        Once { idempotent: Arc::clone(&self.idempotent), inner }
    }
}

/// A service under a [`OnceLayer`].
#[derive(Debug)]
pub struct Once<M, S> {
    idempotent: Arc<Idempotent<M>>,
    inner: S,
}

impl<M, S: Clone> Clone for Once<M, S> {
    fn clone(&self) -> Self {
        Once { idempotent: Arc::clone(&self.idempotent), inner: self.inner.clone() }
    }
}

impl<M, S> Service<MessageExt> for Once<M, S>
where
    M: MarkStore,
    S: Service<MessageExt> + Clone + Send + 'static,
    S::Response: Into<Verdict> + Send,
    S::Error: Display + Send + 'static,
    S::Future: Send,
{
    type Response = Verdict;
    type Error = OnceError<S::Error>;
    type Future = Pin<Box<dyn Future<Output = Result<Verdict, Self::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(context).map_err(OnceError::Handler)
    }

    fn call(&mut self, message: MessageExt) -> Self::Future {
        // The one that is ready is called, and not its clone.
        let clone = self.inner.clone();
        let mut ready = std::mem::replace(&mut self.inner, clone);
        let this = Arc::clone(&self.idempotent);
        Box::pin(async move {
            let key = this.whole_key(&message);
            leased::once(&this.store, &key, this.lease, this.keep, || ready.call(message)).await
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use tower::{ServiceBuilder, ServiceExt, service_fn};

    use super::*;
    use crate::idempotent::MemoryStore;
    use crate::message::testing::delivered;

    #[tokio::test(start_paused = true)]
    async fn a_message_passes_until_it_is_done() {
        let calls = Arc::new(AtomicU32::new(0));
        let counted = Arc::clone(&calls);
        let handler = service_fn(move |_: MessageExt| {
            let first = counted.fetch_add(1, Ordering::Relaxed) == 0;
            async move { if first { Err("not yet") } else { Ok(()) } }
        });
        let layer = Idempotent::new(MemoryStore::new(), "g").layer();
        let service = ServiceBuilder::new().layer(layer).service(handler);
        let call = || service.clone().oneshot(delivered("T", 0, b"a"));
        assert!(matches!(call().await, Err(OnceError::Handler("not yet"))));
        assert_eq!(call().await.expect("done"), Verdict::Done);
        assert_eq!(call().await.expect("done before"), Verdict::Done);
        assert_eq!(calls.load(Ordering::Relaxed), 2);
    }
}
