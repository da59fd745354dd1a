//! Ports: free, the broker's own, or somebody else's.

use super::finding::{Finding, Verdict};

/// Who listens at a port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Listener {
    Nobody,
    /// The broker of the data folder.
    Broker,
    /// Another process, by number and name.
    Other(u32, String),
    /// Somebody of whom this user sees no more.
    Unseen,
}

/// A port that the settings name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Port {
    pub(super) number: u16,
    /// The setting.
    pub(super) key: &'static str,
    /// Whether the broker does not start without it.
    pub(super) is_needed: bool,
    pub(super) listener: Listener,
}

/// The sockets that listen: port and inode, out of the text of /proc/net/tcp or /proc/net/tcp6.
pub(super) fn listening(table: &str) -> impl Iterator<Item = (u16, u64)> + '_ {
    table.lines().skip(1).filter_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let (address, state, inode) = (fields.get(1)?, fields.get(3)?, fields.get(9)?);
        let port = u16::from_str_radix(address.rsplit(':').next()?, 16).ok()?;
        (*state == "0A").then_some((port, inode.parse().ok()?))
    })
}

/// `is_running` says whether the broker of the data folder runs.
pub(super) fn port(port: &Port, is_running: bool) -> Finding {
    const CHECK: &str = "port";
    let Port { number, key, is_needed, listener } = port;
    let what = format!("{number} ({key})");
    let (verdict, hurts) = if *is_needed {
        (Verdict::Risk, "the broker does not start, or another answers its clients")
    } else {
        (Verdict::Note, "old clients and some tools try it first")
    };
    match listener {
        Listener::Nobody if is_running && *is_needed => {
            let hurts = "clients that are told that port find nobody there";
            Finding::warning(
                CHECK,
                format!("the broker runs, and nobody listens at {what}"),
                hurts,
                "give this command the broker's own settings (--config, --set)",
            )
        }
        Listener::Nobody => Finding::ok(CHECK, format!("{what} is free")),
        Listener::Broker => Finding::ok(CHECK, format!("{what} is the broker's")),
        Listener::Other(pid, name) => {
            let taken = format!("{what} is taken by {name}, process {pid}");
            Finding::new(verdict, CHECK, taken, hurts, format!("end that process, or another {key}"))
        }
        Listener::Unseen if is_running => {
            Finding::ok(CHECK, format!("{what} is taken; this user does not see whether by the broker"))
        }
        Listener::Unseen => {
            let taken = format!("{what} is taken by a process that this user does not see");
            Finding::new(verdict, CHECK, taken, hurts, format!("`ss -ltnp` as root names it; or another {key}"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sockets_that_listen_are_found_in_both_tables() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n\
             0: 00000000:2A9F 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4711 1 0 100\n\
             1: 0100007F:2A9F 0100007F:9000 01 00000000:00000000 00:00000000 00000000     0        0 4712 1 0 100\n\
             2: 00000000000000000000000000000000:0050 00000000000000000000000000000000:0000 0A 0:0 00:0 0 0 0 99 1 0\n";
        assert_eq!(listening(table).collect::<Vec<_>>(), [(10_911, 4711), (80, 99)]);
        assert_eq!(listening("").count(), 0);
    }

    #[test]
    fn a_port_that_is_needed_and_taken_is_a_risk() {
        let of = |listener: Listener, is_needed, is_running| {
            port(&Port { number: 1, key: "listenPort", is_needed, listener }, is_running).verdict
        };
        let other = || Listener::Other(7, "nginx".into());
        assert_eq!((of(Listener::Nobody, true, false), of(Listener::Broker, true, true)), (Verdict::Ok, Verdict::Ok));
        assert_eq!((of(other(), true, false), of(other(), false, false)), (Verdict::Risk, Verdict::Note));
        assert_eq!((of(Listener::Unseen, true, false), of(Listener::Unseen, true, true)), (Verdict::Risk, Verdict::Ok));
        assert_eq!(
            (of(Listener::Nobody, true, true), of(Listener::Nobody, false, true)),
            (Verdict::Warning, Verdict::Ok)
        );
    }
}
