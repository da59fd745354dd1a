//! The requests of producers and of operators of topics to a broker, over real sockets.

#![allow(unreachable_pub, reason = "the support module is shared by the files of this program")]

mod checks;
mod golden;
mod halves;
mod hostile;
mod isolation;
mod metrics;
mod refusals;
mod registration;
mod replies;
mod retries;
mod sends;
mod shrinking;
mod support;
mod timers;
mod topics;
mod whole;
