//! The brokers of a cluster, and what to say when one of them does not answer.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, bail};
use escrowmq_client::{Admin, BrokerAddress, Client, RequestError};
use escrowmq_common::code::response;

use super::handle::{Handle, Name};

/// How long one answer may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// All brokers that take writes.
pub(super) struct Brokers {
    client: Client,
    pub(super) admin: Admin,
    pub(super) masters: Vec<BrokerAddress>,
}

impl Brokers {
    /// Asks the nameservers for them; an error if there is none.
    pub(super) async fn find(namesrv: &str) -> anyhow::Result<Self> {
        let client = Client::builder(namesrv).request_timeout(PATIENCE).connect().await;
        let client = client.map_err(|error| {
            anyhow::anyhow!("{error}; nothing was done, and a retry is safe; --namesrv names another nameserver")
        })?;
        let admin = client.admin();
        let masters = admin.masters().await?;
        if masters.is_empty() {
            bail!("no broker is registered at {namesrv}");
        }
        Ok(Self { client, admin, masters })
    }

    pub(super) async fn close(self) {
        self.client.shutdown().await;
    }

    /// The broker with this name.
    pub(super) fn named(&self, name: &str) -> anyhow::Result<&BrokerAddress> {
        self.masters.iter().find(|master| master.broker == name).with_context(|| {
            let names: Vec<&str> = self.masters.iter().map(|master| master.broker.as_str()).collect();
            format!("no broker {name:?} is registered, only {}", names.join(", "))
        })
    }

    /// The broker that an operator's name for a transaction leads to, and the half message there.
    pub(super) fn of(&self, name: &Name) -> anyhow::Result<(&BrokerAddress, Handle)> {
        match name {
            Name::Handle(handle) => Ok((self.named(&handle.broker)?, handle.clone())),
            Name::Message(id) => {
                // Only known brokers are asked: unique ids look the same and hold any address.
                let broker = self.masters.iter().find(|master| master.addr.parse::<SocketAddr>() == Ok(id.host));
                let broker = broker.with_context(|| {
                    format!(
                        "{id} is no offset message id of a registered broker; \
                         if it is a transaction id, `escrowmq txn show {id} --group GROUP` finds its handle"
                    )
                })?;
                let half_id = u64::try_from(id.position).context("an offset message id holds no negative position")?;
                Ok((broker, Handle { broker: broker.broker.clone(), half_id }))
            }
        }
    }
}

/// Why a broker's answer is missing, and what to do about it. For questions: asking again is always safe.
pub(super) fn explain(broker: &BrokerAddress, error: &RequestError) -> String {
    let BrokerAddress { broker, addr, .. } = broker;
    match error {
        RequestError::Refused { code, .. } if *code == response::REQUEST_CODE_NOT_SUPPORTED => {
            format!("broker {broker} at {addr} does not know this request: it is no EscrowMQ, or an older one")
        }
        error if error.is_retryable() => format!("broker {broker}: {error}; a retry is safe"),
        error => format!("broker {broker}: {error}; a retry ends the same way"),
    }
}

/// Says on stderr what is missing; an error if nobody answered.
pub(super) fn report(failures: &[String], brokers: usize) -> anyhow::Result<()> {
    if failures.len() == brokers {
        bail!("{}", failures.join("\nescrowmq: "));
    }
    for failure in failures {
        eprintln!("escrowmq: {failure}; its transactions are missing here");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_broker_of_another_kind_is_told_apart() {
        let broker = BrokerAddress { cluster: "c".to_owned(), broker: "b".to_owned(), addr: "h:1".to_owned() };
        let refused = |code| RequestError::Refused { addr: "h:1".to_owned(), code, remark: "remark".to_owned() };
        assert!(explain(&broker, &refused(3)).contains("no EscrowMQ"));
        assert!(explain(&broker, &refused(response::SYSTEM_BUSY)).ends_with("a retry is safe"));
        assert!(explain(&broker, &refused(response::INVALID_PARAMETER)).ends_with("the same way"));
    }

    #[test]
    fn an_answer_of_some_is_an_answer() {
        assert!(report(&[], 2).is_ok());
        assert!(report(&["a".to_owned()], 2).is_ok());
        assert!(report(&["a".to_owned(), "b".to_owned()], 2).is_err());
    }
}
