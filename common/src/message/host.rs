//! Hosts inside units: 4 or 16 address bytes, then the port as an i32.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::cursor::Cursor;

/// Width of an IPv4 host with its port.
pub(super) const V4_BYTES: usize = 8;
/// Width of an IPv6 host with its port.
pub(super) const V6_BYTES: usize = 20;

/// A dual-stack listener reports IPv4 peers as `::ffff:a.b.c.d`. On the wire they are plain IPv4: shorter, and what
/// clients expect to see.
pub(super) fn canonical(host: SocketAddr) -> SocketAddr {
    SocketAddr::new(host.ip().to_canonical(), host.port())
}

pub(super) fn width(is_v6: bool) -> usize {
    if is_v6 { V6_BYTES } else { V4_BYTES }
}

/// Writes `host` at the start of `out` and returns how many bytes it took. `out` holds at least [`V6_BYTES`].
pub(super) fn write(host: SocketAddr, out: &mut [u8]) -> usize {
    let port = i32::from(host.port()).to_be_bytes();
    let address_bytes = match host.ip() {
        IpAddr::V4(ip) => {
            out[..4].copy_from_slice(&ip.octets());
            4
        }
        IpAddr::V6(ip) => {
            out[..16].copy_from_slice(&ip.octets());
            16
        }
    };
    out[address_bytes..address_bytes + 4].copy_from_slice(&port);
    address_bytes + 4
}

/// Reads a host. A port beyond 65535 cannot be a socket address; its low 16 bits are kept, because the host of a
/// delivered message is information only and must not cost the message.
pub(super) fn read(cursor: &mut Cursor<'_>, is_v6: bool) -> Option<SocketAddr> {
    let ip: IpAddr =
        if is_v6 { Ipv6Addr::from(cursor.array::<16>()?).into() } else { Ipv4Addr::from(cursor.array::<4>()?).into() };
    Some(SocketAddr::new(ip, cursor.i32()? as u16))
}
