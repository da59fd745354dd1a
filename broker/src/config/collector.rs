//! The address of a collector of spans.

use std::fmt;
use std::str::FromStr;

use hyper::Uri;
use hyper::http::uri::Scheme;

/// The port at which collectors take OTLP over HTTP.
const PORT: u16 = 4318;

/// Where spans are exported to, if they are.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Collector(Option<Uri>);

impl Collector {
    /// Host and port, and the path before `/v1/traces`, which mostly is empty.
    pub fn place(&self) -> Option<(String, &str)> {
        let address = self.0.as_ref()?;
        let (host, port) = (address.host()?, address.port_u16().unwrap_or(PORT));
        Some((format!("{host}:{port}"), address.path().trim_end_matches('/')))
    }
}

impl fmt::Display for Collector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.as_ref().map_or(Ok(()), |address| address.fmt(f))
    }
}

impl FromStr for Collector {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.is_empty() {
            return Ok(Self(None));
        }
        let address: Uri = text.parse().map_err(|_| "is not of the form http://host:port")?;
        if address.scheme() != Some(&Scheme::HTTP) {
            return Err("must begin with http://: spans go to a collector nearby, which may pass them on by TLS");
        }
        let is_plain = address.query().is_none() && !address.authority().is_some_and(|at| at.as_str().contains('@'));
        if !is_plain || address.port_u16() == Some(0) {
            return Err("must be a host, a port and at most a path");
        }
        if address.path().ends_with("/v1/traces") {
            return Err("must be the address without /v1/traces, which is added");
        }
        Ok(Self(Some(address)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_taken_apart() {
        for (text, authority, path) in [
            ("http://127.0.0.1:4318", "127.0.0.1:4318", ""),
            ("http://collector", "collector:4318", ""),
            ("http://[::1]:4318/", "[::1]:4318", ""),
            ("http://host:80/otlp/", "host:80", "/otlp"),
        ] {
            let collector: Collector = text.parse().unwrap();
            assert_eq!(collector.place(), Some((authority.to_owned(), path)));
            assert_eq!(collector.to_string().parse(), Ok(collector));
        }
        assert_eq!("".parse::<Collector>().unwrap().place(), None);
    }

    #[test]
    fn what_cannot_be_reached_is_refused() {
        for text in
            ["host:4318", "https://host:4318", "http://", "http://u@host", "/path", "http://h:0", "http://h/v1/traces"]
        {
            assert!(text.parse::<Collector>().is_err(), "{text}");
        }
    }
}
