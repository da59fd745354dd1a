//! Addresses: of this machine on the network, and of those that it connects to.

use std::io;
use std::net::{IpAddr, Ipv4Addr, UdpSocket};

use tokio::net::{TcpStream, lookup_host};

/// The address that packets to other machines carry; `None` without a network. Connecting a datagram socket sends nothing; the
/// target is an address reserved for documentation.
pub fn outgoing_ip() -> Option<IpAddr> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).ok()?;
    socket.connect((Ipv4Addr::new(192, 0, 2, 1), 9)).ok()?;
    let ip = socket.local_addr().ok()?.ip();
    (!ip.is_unspecified()).then_some(ip)
}

/// Tries the addresses of a host in turn; answers the last failure.
pub async fn connect_any(host: &str, port: u16) -> io::Result<TcpStream> {
    let mut last = None;
    for address in lookup_host((host, port)).await? {
        match TcpStream::connect(address).await {
            Ok(stream) => return Ok(stream),
            Err(error) => last = Some(error),
        }
    }
    Err(last.unwrap_or_else(|| io::Error::new(io::ErrorKind::NotFound, "host has no address")))
}

/// Splits at the last colon, as the Java side does; an IPv6 address may stand in brackets or bare.
pub fn split_address(address: &str) -> Option<(&str, u16)> {
    let (host, port) = address.trim().rsplit_once(':')?;
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    let port = port.parse().ok()?;
    (!host.is_empty()).then_some((host, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_split_at_the_last_colon() {
        assert_eq!(split_address("10.0.0.1:10911"), Some(("10.0.0.1", 10911)));
        assert_eq!(split_address(" broker:80 "), Some(("broker", 80)));
        assert_eq!(split_address("[::1]:9876"), Some(("::1", 9876)));
        assert_eq!(split_address("2001:db8::1:9876"), Some(("2001:db8::1", 9876)));
        for bad in ["", "host", "host:", ":1", "host:70000", "host:x", "[]:1"] {
            assert_eq!(split_address(bad), None, "{bad}");
        }
    }
}
