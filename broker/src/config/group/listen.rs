//! Where a member listens for the others.

use std::fmt;
use std::str::FromStr;

use super::host::{GroupHost, host_and_port};

/// A local address, as far as it was set.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ListenAt {
    /// The interface; `None` for all of them.
    pub host: Option<GroupHost>,
    /// The port; `None` for that of the member's own seat.
    pub port: Option<u16>,
}

impl fmt::Display for ListenAt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.host, self.port) {
            (Some(host), Some(port)) => f.write_str(&host.with_port(port)),
            (Some(host), None) => host.fmt(f),
            (None, Some(port)) => write!(f, "*:{port}"),
            (None, None) => Ok(()),
        }
    }
}

impl FromStr for ListenAt {
    type Err = String;

    /// Reads an address, an address with a port, or `*` and a port; nothing is the default.
    fn from_str(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            return Ok(Self::default());
        }
        // `fd00::1` is an address, and its end is no port.
        let (host, port) = match text.parse::<GroupHost>() {
            Ok(host) => (host, None),
            Err(_) if text.starts_with("*:") => {
                let (_, port) = host_and_port(&format!("all{}", &text[1..]))?;
                return Ok(Self { host: None, port: Some(port) });
            }
            Err(why) if !text.contains(':') => return Err(why),
            Err(_) => host_and_port(text).map(|(host, port)| (host, Some(port)))?,
        };
        Ok(Self { host: Some(host).filter(|host| !host.is_unspecified()), port })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_a_port_or_both() {
        for (text, shown) in [
            ("", ""),
            ("10.0.0.1", "10.0.0.1"),
            ("10.0.0.1:40911", "10.0.0.1:40911"),
            ("eth.local:1", "eth.local:1"),
            ("fd00::1", "fd00::1"),
            ("[fd00::1]", "fd00::1"),
            ("[fd00::1]:1", "[fd00::1]:1"),
            ("*:40911", "*:40911"),
            ("0.0.0.0:40911", "*:40911"),
            ("[::]:40911", "*:40911"),
            ("0.0.0.0", ""),
        ] {
            let read: ListenAt = text.parse().unwrap_or_else(|why| panic!("{text}: {why}"));
            assert_eq!(read.to_string(), shown, "{text}");
            assert_eq!(shown.parse::<ListenAt>(), Ok(read), "{text}");
        }
        for text in ["a b", "*", "*:0", "*:x", "10.0.0.1:0", ":1", "10.0.0.1:1 # mine"] {
            assert!(text.parse::<ListenAt>().is_err(), "{text}");
        }
    }
}
