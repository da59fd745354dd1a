//! Calls to a member of a group.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use escrowmq_common::body::json::from_slice;
use escrowmq_common::body::{Body, MembersChanged};
use escrowmq_common::code::response;
use escrowmq_common::frame::Frame;
use escrowmq_common::remoting::{CallError, Connection, Remote, RemoteOptions, Service};

use crate::admin::output::Output;

/// How long one answer may take. A change of the members has 10 s for each of its steps.
const PATIENCE: Duration = Duration::from_secs(40);

/// Nobody asks a tool anything.
struct Nobody;

impl Service for Nobody {
    fn on_request(&self, _connection: &Arc<Connection>, _request: Frame) {}
}

/// Some members, by their addresses for clients.
pub(super) struct Members {
    addresses: Vec<String>,
    remote: Remote,
}

impl Members {
    pub(super) fn new(addresses: &str) -> Self {
        let addresses = addresses.split([';', ',']).map(str::trim).filter(|one| !one.is_empty()).map(str::to_owned);
        Self { addresses: addresses.collect(), remote: Remote::new(RemoteOptions::default(), Arc::new(Nobody)) }
    }

    /// Asks the first member that can be reached, and reads its answer's body. What was sent is sent to no other one.
    pub(super) async fn ask<T: Body>(&self, request: Frame) -> anyhow::Result<T> {
        let mut last = anyhow::anyhow!("no broker is named");
        for address in &self.addresses {
            match self.remote.call(address, request.clone(), PATIENCE).await {
                Ok(answer) if answer.code == response::SUCCESS => {
                    return from_slice(&answer.body).with_context(|| format!("{address} answered something else"));
                }
                Ok(answer) => {
                    let remark = answer.remark.unwrap_or_else(|| "no reason given".to_owned());
                    bail!("{address} refused: {remark} (code {})", answer.code);
                }
                Err(error @ CallError::Connect { .. }) => last = error.into(),
                Err(error) => return Err(error.into()),
            }
        }
        Err(last)
    }

    /// Asks for a change, and says what was done. A warning goes to stderr.
    pub(super) async fn change(&self, request: Frame) -> anyhow::Result<Output> {
        let MembersChanged { done, warning } = self.ask(request).await?;
        if let Some(warning) = warning {
            eprintln!("escrowmq: warning: {warning}");
        }
        Ok(Output::done(done))
    }
}
