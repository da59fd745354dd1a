//! Hosts of a group's members. Names are not resolved here: an address may change while a name stays, as in Kubernetes.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::str::FromStr;

/// The name that stands for this machine, as the resolver has it.
const LOCALHOST: &str = "localhost";
/// Longest name of a host.
const NAME_BYTES_MAX: usize = 253;

/// A machine, by name or by address.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum GroupHost {
    /// To be resolved whenever it is connected to.
    Name(String),
    /// As it is.
    Ip(IpAddr),
}

impl GroupHost {
    /// Whether it is surely this machine: a loopback address, or `localhost`.
    pub fn is_loopback(&self) -> bool {
        match self.same() {
            Self::Name(_) => false,
            Self::Ip(ip) => ip.is_loopback(),
        }
    }

    /// Whether it stands for all addresses of a machine.
    pub fn is_unspecified(&self) -> bool {
        matches!(self, Self::Ip(ip) if ip.to_canonical().is_unspecified())
    }

    /// As a part of `host:port`.
    pub fn with_port(&self, port: u16) -> String {
        match self {
            Self::Ip(IpAddr::V6(ip)) => format!("[{ip}]:{port}"),
            _ => format!("{self}:{port}"),
        }
    }

    /// The spelling that is the same for all spellings of this host.
    pub(super) fn same(&self) -> Self {
        match self {
            Self::Ip(ip) => Self::Ip(ip.to_canonical()),
            Self::Name(name) => {
                let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
                if name == LOCALHOST { Self::Ip(Ipv4Addr::LOCALHOST.into()) } else { Self::Name(name) }
            }
        }
    }
}

impl fmt::Display for GroupHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => f.write_str(name),
            Self::Ip(ip) => ip.fmt(f),
        }
    }
}

impl FromStr for GroupHost {
    type Err = String;

    /// Reads a name, an address, or an address in brackets.
    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(inner) = text.strip_prefix('[') {
            let inner = inner.strip_suffix(']').ok_or("has an opening bracket without its end")?;
            let ip = inner.parse().map_err(|_| "has no IPv6 address in its brackets")?;
            return Ok(Self::Ip(IpAddr::V6(ip)));
        }
        if let Ok(ip) = text.parse() {
            return Ok(Self::Ip(ip));
        }
        if text.is_empty() {
            return Err("has no host".to_owned());
        }
        if is_name(text) {
            Ok(Self::Name(text.to_owned()))
        } else {
            Err("has neither a name nor an address".to_owned())
        }
    }
}

/// Whether a resolver can know a machine by it.
fn is_name(text: &str) -> bool {
    let labels = text.strip_suffix('.').unwrap_or(text);
    let is_label = |label: &str| {
        let is_dash = |byte: Option<u8>| byte == Some(b'-');
        let mut bytes = label.bytes();
        !label.is_empty()
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
            && !is_dash(bytes.next())
            && !is_dash(label.bytes().next_back())
    };
    // A number at the end is a mistyped address.
    let ends_in_number = labels.rsplit('.').next().is_some_and(|last| last.bytes().all(|byte| byte.is_ascii_digit()));
    labels.len() <= NAME_BYTES_MAX && labels.split('.').all(is_label) && !ends_in_number
}

/// Takes `host:port` apart. The error is the end of a sentence that begins with the text.
pub(super) fn host_and_port(text: &str) -> Result<(GroupHost, u16), String> {
    let (host, port) = text.rsplit_once(':').ok_or("names no port: host:port is expected")?;
    if host.contains(':') && !host.starts_with('[') {
        return Err("has an IPv6 address without brackets: write [address]:port".to_owned());
    }
    if host.starts_with('[') && !host.ends_with(']') {
        return Err("has no port behind its brackets: write [address]:port".to_owned());
    }
    let is_number = port.bytes().all(|byte| byte.is_ascii_digit());
    let port = port.parse().ok().filter(|port: &u16| is_number && *port > 0);
    Ok((host.parse()?, port.ok_or("has no port of 1 to 65535")?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_is_what_needs_no_resolver_to_know() {
        for (text, expected) in [
            ("127.0.0.1", true),
            ("127.9.9.9", true),
            ("[::1]", true),
            ("::ffff:127.0.0.1", true),
            ("LocalHost.", true),
            ("localhost.example.org", false),
            ("10.0.0.1", false),
            ("myself", false),
        ] {
            assert_eq!(text.parse::<GroupHost>().unwrap().is_loopback(), expected, "{text}");
        }
    }

    #[test]
    fn hosts_are_names_or_addresses() {
        for text in ["a", "a-b_c.d9", "broker-0.brokers.default.svc.cluster.local.", "10.0.0.1", "fd00::1"] {
            assert_eq!(text.parse::<GroupHost>().unwrap().to_string(), text);
        }
        for text in ["", ".", "a..b", "-a", "a-", "a b", "a/b", "ä", "1.2.3", "300.1.1.1", "7", "[::1", "[127.0.0.1]"]
        {
            assert!(text.parse::<GroupHost>().is_err(), "{text}");
        }
        assert!("a".repeat(254).parse::<GroupHost>().is_err());
    }
}
