//! The header of the PROXY protocol, which load balancers send in front of a connection to name the client.
//!
//! ```text
//!  v1  PROXY TCP4 203.0.113.7 192.0.2.1 40000 10911\r\n            107 bytes at most
//!  v2  \r\n\r\n\0\r\nQUIT\n | version, command | family | length (2 bytes) | addresses | extensions
//! ```
//!
//! No frame begins like either: as the length of a frame the first bytes would be far above what is accepted.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

/// Most bytes of a header: the longest addresses (Unix sockets) in v2, and as much again for extensions.
pub(super) const HEADER_MAX: usize = 536;

/// Most bytes of a v1 header, its line end included.
const V1_MAX: usize = 107;

const V1_MARK: &[u8] = b"PROXY ";
const V2_MARK: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// The beginning of a connection: a PROXY header, or none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Beginning {
    /// No header.
    None,
    /// Perhaps a header; more bytes will tell.
    Unfinished,
    /// A header of this many bytes, and the address that it names for the client, if it names one.
    Header(usize, Option<SocketAddr>),
    /// A header that says nothing valid.
    Malformed(&'static str),
}

/// Looks at the first bytes of a connection.
pub(super) fn beginning(bytes: &[u8]) -> Beginning {
    if begins(bytes, V1_MARK) {
        if bytes.len() < V1_MARK.len() { Beginning::Unfinished } else { v1(bytes) }
    } else if begins(bytes, V2_MARK) {
        if bytes.len() < V2_MARK.len() + 4 { Beginning::Unfinished } else { v2(bytes) }
    } else {
        Beginning::None
    }
}

/// Whether the bytes, as far as they go, are those of the mark.
fn begins(bytes: &[u8], mark: &[u8]) -> bool {
    let common = bytes.len().min(mark.len());
    common > 0 && bytes[..common] == mark[..common]
}

fn v1(bytes: &[u8]) -> Beginning {
    let line = &bytes[..bytes.len().min(V1_MAX)];
    let Some(end) = line.iter().position(|byte| *byte == b'\n') else {
        return if line.len() < V1_MAX {
            Beginning::Unfinished
        } else {
            Beginning::Malformed("a PROXY line of more than 107 bytes")
        };
    };
    let text = line[..end].strip_suffix(b"\r").and_then(|text| str::from_utf8(text).ok());
    let Some(text) = text else { return Beginning::Malformed("a PROXY line that is no line of text") };
    let mut words = text.split(' ').skip(1);
    let source = match words.next() {
        // The rest of the line is to be ignored.
        Some("UNKNOWN") => return Beginning::Header(end + 1, None),
        Some("TCP4") => v1_source::<Ipv4Addr>(words),
        Some("TCP6") => v1_source::<Ipv6Addr>(words),
        _ => return Beginning::Malformed("a PROXY line for another protocol than TCP"),
    };
    match source {
        Some(source) => Beginning::Header(end + 1, Some(source)),
        None => Beginning::Malformed("a PROXY line without two valid addresses and ports"),
    }
}

/// Source and target address, source and target port, and nothing else; answers the source.
fn v1_source<'a, A: FromStr + Into<IpAddr>>(mut words: impl Iterator<Item = &'a str>) -> Option<SocketAddr> {
    let source: A = words.next()?.parse().ok()?;
    let _target: A = words.next()?.parse().ok()?;
    let source_port = port(words.next()?)?;
    let _target_port = port(words.next()?)?;
    words.next().is_none().then(|| SocketAddr::new(source.into(), source_port))
}

/// Digits only, without leading zeros: `+1` is a number for the standard library and no port.
fn port(text: &str) -> Option<u16> {
    let plain = text.bytes().all(|byte| byte.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    plain.then(|| text.parse().ok()).flatten()
}

fn v2(bytes: &[u8]) -> Beginning {
    let (fixed, rest) = bytes.split_at(V2_MARK.len() + 4);
    let [version_and_command, family, high, low] = fixed[V2_MARK.len()..] else { return Beginning::Unfinished };
    let length = usize::from(u16::from_be_bytes([high, low]));
    if version_and_command >> 4 != 2 {
        return Beginning::Malformed("a PROXY header of another version than 1 and 2");
    }
    let whole = fixed.len() + length;
    if whole > HEADER_MAX {
        return Beginning::Malformed("a PROXY header of more than 536 bytes");
    }
    let names_client = match version_and_command & 0xf {
        // The balancer itself, as for health checks: there is no client.
        0 => false,
        1 => true,
        _ => return Beginning::Malformed("a PROXY header with an unknown command"),
    };
    let addresses = match family {
        0x00 => 0,
        0x11 | 0x12 => 12,
        0x21 | 0x22 => 36,
        0x31 | 0x32 => 216,
        // The bytes after a local one are to be skipped, of any family.
        _ if !names_client => 0,
        _ => return Beginning::Malformed("a PROXY header for an unknown protocol"),
    };
    if names_client && length < addresses {
        return Beginning::Malformed("a PROXY header that is too short for its addresses");
    }
    let Some(rest) = rest.get(..length) else { return Beginning::Unfinished };
    Beginning::Header(whole, if names_client { v2_source(family, rest) } else { None })
}

/// Two addresses, then two ports. Datagrams and Unix sockets name no client of ours.
fn v2_source(family: u8, rest: &[u8]) -> Option<SocketAddr> {
    let port = |at: usize| rest.get(at..at + 2).map(|port| u16::from_be_bytes([port[0], port[1]]));
    match family {
        0x11 => {
            let address: [u8; 4] = *rest.first_chunk()?;
            Some(SocketAddr::new(address.into(), port(8)?))
        }
        0x21 => {
            let address: [u8; 16] = *rest.first_chunk()?;
            Some(SocketAddr::new(address.into(), port(32)?))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn v2_header(version_and_command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
        let length = u16::try_from(rest.len()).unwrap().to_be_bytes();
        [V2_MARK, &[version_and_command, family], &length, rest].concat()
    }

    fn addresses_v4() -> Vec<u8> {
        [&[203, 0, 113, 7][..], &[192, 0, 2, 1], &40_000_u16.to_be_bytes(), &10_911_u16.to_be_bytes()].concat()
    }

    fn addresses_v6() -> Vec<u8> {
        let (source, target) = (Ipv6Addr::LOCALHOST.octets(), Ipv6Addr::UNSPECIFIED.octets());
        [&source[..], &target, &1_u16.to_be_bytes(), &2_u16.to_be_bytes()].concat()
    }

    fn good() -> Vec<(Vec<u8>, Option<&'static str>)> {
        let with_extension = [addresses_v4(), vec![4, 0, 3, 1, 2, 3]].concat();
        vec![
            (b"PROXY TCP4 203.0.113.7 192.0.2.1 40000 10911\r\n".to_vec(), Some("203.0.113.7:40000")),
            (b"PROXY TCP6 2001:db8::1 ::1 65535 0\r\n".to_vec(), Some("[2001:db8::1]:65535")),
            (b"PROXY UNKNOWN\r\n".to_vec(), None),
            (b"PROXY UNKNOWN whatever may stand here\r\n".to_vec(), None),
            (v2_header(0x21, 0x11, &addresses_v4()), Some("203.0.113.7:40000")),
            (v2_header(0x21, 0x11, &with_extension), Some("203.0.113.7:40000")),
            (v2_header(0x21, 0x12, &addresses_v4()), None),
            (v2_header(0x21, 0x21, &addresses_v6()), Some("[::1]:1")),
            (v2_header(0x21, 0x31, &[0; 216]), None),
            (v2_header(0x21, 0x00, &[]), None),
            (v2_header(0x21, 0x00, &[0; 520]), None),
            (v2_header(0x20, 0x00, &[]), None),
            (v2_header(0x20, 0x11, &addresses_v4()), None),
            (v2_header(0x20, 0x77, &[1, 2, 3]), None),
        ]
    }

    #[test]
    fn headers_are_known_and_cut_off_exactly() {
        for (header, source) in good() {
            let expected = Beginning::Header(header.len(), source.map(|source| source.parse().unwrap()));
            assert_eq!(beginning(&header), expected, "{header:?}");
            // The first frame follows.
            assert_eq!(beginning(&[&header[..], b"\0\0\0\x10\r\nPROXY "].concat()), expected, "{header:?}");
        }
    }

    #[test]
    fn a_header_that_comes_byte_by_byte_is_awaited() {
        for (header, _) in good() {
            for end in 1..header.len() {
                assert_eq!(beginning(&header[..end]), Beginning::Unfinished, "{end} of {header:?}");
            }
        }
    }

    #[test]
    fn malformed_headers_are_told_from_frames() {
        let mut bad = vec![
            b"PROXY \r\n".to_vec(),
            b"PROXY TCP4\r\n".to_vec(),
            b"PROXY TCP5 1.2.3.4 1.2.3.4 1 2\r\n".to_vec(),
            b"PROXY TCP4 1.2.3.4 1.2.3.4 1\r\n".to_vec(),
            b"PROXY TCP4 1.2.3.4 1.2.3.4 1 2 3\r\n".to_vec(),
            b"PROXY TCP4 1.2.3.4 1.2.3.4 1 2 \r\n".to_vec(),
            b"PROXY TCP4  1.2.3.4 1.2.3.4 1 2\r\n".to_vec(),
            b"PROXY TCP4 1.2.3.4 1.2.3.4 1 65536\r\n".to_vec(),
            b"PROXY TCP4 1.2.3.4 1.2.3.4 -1 2\r\n".to_vec(),
            b"PROXY TCP4 1.2.3.4 1.2.3.4 +1 2\r\n".to_vec(),
            b"PROXY TCP4 1.2.3.4 1.2.3.4 01 2\r\n".to_vec(),
            b"PROXY TCP4 ::1 ::1 1 2\r\n".to_vec(),
            b"PROXY TCP6 1.2.3.4 1.2.3.4 1 2\r\n".to_vec(),
            b"PROXY TCP4 1.2.3 1.2.3.4 1 2\r\n".to_vec(),
            b"PROXY TCP4 1.2.3.4 1.2.3.4 1 2\n".to_vec(),
            b"PROXY TCP4 1.2.3.4\0 1.2.3.4 1 2\r\n".to_vec(),
            b"PROXY TCP4 \xff\xfe 1.2.3.4 1 2\r\n".to_vec(),
            [b"PROXY UNKNOWN ".to_vec(), vec![b'x'; 100]].concat(),
            v2_header(0x11, 0x11, &addresses_v4()),
            v2_header(0x31, 0x11, &addresses_v4()),
            v2_header(0x22, 0x11, &addresses_v4()),
            v2_header(0x21, 0x13, &addresses_v4()),
            v2_header(0x21, 0x41, &addresses_v4()),
            v2_header(0x21, 0x11, &addresses_v4()[..11]),
            v2_header(0x21, 0x21, &addresses_v6()[..35]),
            v2_header(0x21, 0x31, &[0; 215]),
            v2_header(0x21, 0x11, &[0; 521]),
            v2_header(0x20, 0x00, &[0; 521]),
        ];
        // The declared length is refused before it has been awaited.
        bad.push([V2_MARK, &[0x21, 0x11, 0xff, 0xff]].concat());
        for header in bad {
            assert!(matches!(beginning(&header), Beginning::Malformed(_)), "{:?}", String::from_utf8_lossy(&header));
            // However it is cut, it never becomes a header or a frame.
            for end in 1..header.len() {
                let begun = beginning(&header[..end]);
                assert!(matches!(begun, Beginning::Unfinished | Beginning::Malformed(_)), "{end} of {header:?}");
            }
        }
    }

    #[test]
    fn frames_and_other_protocols_have_no_header() {
        for bytes in [
            &b""[..],
            b"\0",
            b"\0\0\0\x14\0\0\x01\x90",
            b"POST / HTTP/1.1\r\n\r\n",
            b"PROXYING",
            b"PROXY\n",
            b"PROX\0",
            b"proxy TCP4 1.2.3.4 1.2.3.4 1 2\r\n",
            b" PROXY TCP4 1.2.3.4 1.2.3.4 1 2\r\n",
            b"\r\n\r\n\0\r\nQUIT\r",
            b"\r\n\r\n\r\n",
            b"\n",
        ] {
            assert_eq!(beginning(bytes), Beginning::None, "{bytes:?}");
        }
    }
}
