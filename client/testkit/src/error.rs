//! Why a kit did not start.

use std::io;

use escrowmq_broker::config::ConfigError;
use escrowmq_broker::start::StartError as BrokerError;
use escrowmq_nameserver::StartError as NameserverError;

/// Why a [`Kit`](crate::Kit), or its broker [again](crate::Kit::restart), did not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The system has no folder, port or thread.
    #[error("{what} cannot be had: {source}")]
    System {
        /// The missing thing.
        what: &'static str,
        /// The system's error.
        source: io::Error,
    },
    /// A [setting](crate::KitBuilder::setting) that the broker does not take.
    #[error(transparent)]
    Setting(#[from] ConfigError),
    /// The nameserver.
    #[error(transparent)]
    Nameserver(#[from] NameserverError),
    /// The broker.
    #[error(transparent)]
    Broker(#[from] BrokerError),
    /// A [topic](crate::KitBuilder::topic) that the broker does not create.
    #[error("topic {topic} is not created: {reason}")]
    Topic {
        /// The topic.
        topic: String,
        /// The broker's words.
        reason: String,
    },
    /// The kit's own thread has ended. The process has no more threads or memory, or the kit has a fault.
    #[error("the kit's own thread has ended")]
    Ended,
}

impl StartError {
    pub(crate) fn system(what: &'static str) -> impl FnOnce(io::Error) -> StartError {
        move |source| StartError::System { what, source }
    }
}
