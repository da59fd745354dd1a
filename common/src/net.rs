//! This machine on the network.

use std::net::{IpAddr, Ipv4Addr, UdpSocket};

/// The address that packets to other machines carry; `None` without a network. Connecting a datagram socket sends nothing; the
/// target is an address reserved for documentation.
pub fn outgoing_ip() -> Option<IpAddr> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).ok()?;
    socket.connect((Ipv4Addr::new(192, 0, 2, 1), 9)).ok()?;
    let ip = socket.local_addr().ok()?.ip();
    (!ip.is_unspecified()).then_some(ip)
}
