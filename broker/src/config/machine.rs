//! What the machine says about itself, for defaults.

use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::path::PathBuf;

/// The name of the machine; `broker-a` where it has none.
pub(super) fn name() -> String {
    let uname = rustix::system::uname();
    let name = uname.nodename().to_string_lossy();
    if name.is_empty() { "broker-a".to_owned() } else { name.into_owned() }
}

/// The address that packets to other machines carry. Connecting a datagram socket sends nothing; the target is an
/// address reserved for documentation. Without a network it is the loopback address.
pub(super) fn address() -> IpAddr {
    let probe = || {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
        socket.connect((Ipv4Addr::new(192, 0, 2, 1), 9))?;
        socket.local_addr()
    };
    match probe() {
        Ok(address) if !address.ip().is_unspecified() => address.ip(),
        Ok(_) | Err(_) => Ipv4Addr::LOCALHOST.into(),
    }
}

/// The user's own folder, or the current one.
pub(super) fn home() -> PathBuf {
    std::env::home_dir().filter(|home| !home.as_os_str().is_empty()).unwrap_or_else(|| PathBuf::from("."))
}
