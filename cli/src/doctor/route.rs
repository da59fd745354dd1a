//! Whether clients find the broker: its address, as a nameserver tells it.

use std::net::IpAddr;

use super::finding::Finding;

/// What a nameserver says of the broker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Route {
    pub(super) nameserver: String,
    /// Whether the nameserver is reached over this machine's own addresses, so that others need not reach the broker.
    pub(super) is_here: bool,
    pub(super) told: Told,
}

/// The nameserver's answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Told {
    /// None came.
    Nothing(String),
    /// Nobody is registered under the broker's name.
    Unknown { name: String },
    /// These addresses are registered, this broker's own among them or not; those that did not answer from here are listed apart.
    Addresses { own: String, all: Vec<String>, mute: Vec<String> },
}

/// The address in `host:port`, if the host is one.
fn ip(address: &str) -> Option<IpAddr> {
    let (host, _) = escrowmq_common::net::split_address(address)?;
    if host == "localhost" { Some([127, 0, 0, 1].into()) } else { host.parse().ok() }
}

/// `is_running` says whether the broker of the data folder runs.
pub(super) fn route(route: &Route, is_running: bool) -> Finding {
    const CHECK: &str = "route";
    const FOUND_BY_NOBODY: &str = "clients that ask this nameserver find no way to the broker";
    let Route { nameserver, is_here, told } = route;
    match told {
        Told::Nothing(error) => Finding::risk(
            CHECK,
            format!("the nameserver {nameserver} does not answer: {error}"),
            FOUND_BY_NOBODY,
            "start it (`escrowmq-nameserver`), open its port, or set namesrvAddr right",
        ),
        Told::Unknown { name } if !is_running => {
            Finding::ok(CHECK, format!("{nameserver} knows no broker {name}, which does not run"))
        }
        Told::Unknown { name } => Finding::risk(
            CHECK,
            format!("the broker runs, and {nameserver} knows no broker {name}"),
            FOUND_BY_NOBODY,
            "compare namesrvAddr and brokerName; the broker's log says why it is not registered",
        ),
        Told::Addresses { own, all, mute } => {
            let remedy = "brokerIP1 is the address that clients reach this broker by";
            let listed = all.join(", ");
            if let Some(loopback) =
                all.iter().find(|address| !is_here && ip(address).is_some_and(|ip| ip.is_loopback()))
            {
                let hurts = "clients on other machines are told to connect to themselves";
                return Finding::risk(CHECK, format!("{nameserver} tells clients {loopback}"), hurts, remedy);
            }
            if !mute.is_empty() && is_running {
                let what = format!("{nameserver} tells clients {listed}; no answer from {}", mute.join(", "));
                return Finding::risk(
                    CHECK,
                    what,
                    "clients that are told that address get no answer",
                    format!("{remedy}; open its port in the firewall"),
                );
            }
            if !all.contains(own) {
                let what = format!("{nameserver} tells clients {listed}, the settings say {own}");
                let hurts =
                    "another broker has the name, or the settings are not those that the broker was started with";
                return Finding::warning(
                    CHECK,
                    what,
                    hurts,
                    "compare brokerName, brokerIP1 and listenPort; restart the broker",
                );
            }
            Finding::ok(CHECK, format!("{nameserver} tells clients {listed}"))
        }
    }
}

/// No nameserver is named at all.
pub(super) fn none() -> Finding {
    Finding::warning(
        "route",
        "no nameserver is named",
        "clients find a broker by nameservers alone",
        "set namesrvAddr, or give this command --namesrv",
    )
}

#[cfg(test)]
mod tests {
    use super::super::finding::Verdict;
    use super::*;

    fn of(is_here: bool, told: Told, is_running: bool) -> Verdict {
        route(&Route { nameserver: "n:9876".into(), is_here, told }, is_running).verdict
    }

    fn addresses(all: &[&str], mute: &[&str]) -> Told {
        let owned = |all: &[&str]| all.iter().map(|text| (*text).to_owned()).collect();
        Told::Addresses { own: "10.0.0.1:10911".into(), all: owned(all), mute: owned(mute) }
    }

    #[test]
    fn a_broker_that_nobody_finds_is_a_risk() {
        assert_eq!(of(false, Told::Nothing("refused".into()), false), Verdict::Risk);
        let unknown = || Told::Unknown { name: "b".into() };
        assert_eq!((of(false, unknown(), true), of(false, unknown(), false)), (Verdict::Risk, Verdict::Ok));
        assert_eq!(none().verdict, Verdict::Warning);
    }

    #[test]
    fn the_address_that_clients_are_told_must_be_one_that_they_reach() {
        assert_eq!(of(false, addresses(&["10.0.0.1:10911"], &[]), true), Verdict::Ok);
        assert_eq!(of(false, addresses(&["10.0.0.1:10911"], &["10.0.0.1:10911"]), true), Verdict::Risk);
        assert_eq!(of(false, addresses(&["127.0.0.1:10911"], &[]), true), Verdict::Risk);
        assert_eq!(of(false, addresses(&["localhost:10911"], &[]), true), Verdict::Risk);
        // A nameserver of this machine alone is for clients of this machine.
        assert_eq!(of(true, addresses(&["10.0.0.1:10911", "127.0.0.1:10911"], &[]), true), Verdict::Ok);
        assert_eq!(of(false, addresses(&["10.0.0.2:10911"], &[]), true), Verdict::Warning);
    }
}
