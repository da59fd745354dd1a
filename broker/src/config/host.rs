//! The address that clients are told.

use std::fmt;
use std::net::{IpAddr, ToSocketAddrs as _};
use std::str::FromStr;

/// An address as it was written, which clients are told, and what it stood for at start, which is part of message ids.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host {
    text: String,
    ip: IpAddr,
}

impl Host {
    /// As a number.
    pub fn ip(&self) -> IpAddr {
        self.ip
    }

    /// As a part of `host:port`.
    pub fn with_port(&self, port: u16) -> String {
        if self.text.contains(':') { format!("[{}]:{port}", self.text) } else { format!("{}:{port}", self.text) }
    }
}

impl From<IpAddr> for Host {
    fn from(ip: IpAddr) -> Self {
        Self { text: ip.to_string(), ip }
    }
}

impl From<[u8; 4]> for Host {
    fn from(ip: [u8; 4]) -> Self {
        IpAddr::from(ip).into()
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl FromStr for Host {
    type Err = String;

    /// Asks the resolver for a name, which may take its time: settings are read before anybody is served.
    fn from_str(text: &str) -> Result<Self, String> {
        let text = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
        if let Ok(ip) = text.parse::<IpAddr>() {
            return Ok(ip.into());
        }
        if text.is_empty() || text.contains(|c: char| c.is_whitespace() || c.is_control() || c == ':') {
            return Err("is neither an address nor a name".to_owned());
        }
        let found =
            (text, 0).to_socket_addrs().map_err(|error| format!("cannot be resolved to an address: {error}"))?;
        let mut found: Vec<IpAddr> = found.map(|address| address.ip()).collect();
        // Old clients read message ids with the shorter form alone.
        found.sort_by_key(IpAddr::is_ipv6);
        let ip = found.first().ok_or("resolves to no address")?;
        Ok(Self { text: text.to_owned(), ip: *ip })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_told_as_it_was_written() {
        let host: Host = "localhost".parse().unwrap();
        assert!(host.ip().is_loopback());
        assert_eq!((host.to_string().as_str(), host.with_port(7)), ("localhost", "localhost:7".to_owned()));
    }

    #[test]
    fn addresses_need_no_resolver() {
        for (text, shown) in [("10.0.0.1", "10.0.0.1:7"), ("::1", "[::1]:7"), ("[::1]", "[::1]:7")] {
            assert_eq!(text.parse::<Host>().unwrap().with_port(7), shown);
        }
        for text in ["", "a b", "192.168.0.1 # mine", "host:80"] {
            assert!(text.parse::<Host>().is_err(), "{text}");
        }
    }
}
