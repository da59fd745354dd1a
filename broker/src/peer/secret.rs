//! The secret of a group, and when a group may do without one.

use std::fmt;
use std::net::IpAddr;

use escrowmq_common::net::split_address;

/// Fewest bytes of a secret: fewer could be guessed from a proof that somebody overheard.
const SECRET_BYTES_MIN: usize = 16;
/// Most bytes of a secret.
const SECRET_BYTES_MAX: usize = 4096;

/// What all members of a group know, and nobody else. Never sent, never shown.
#[derive(Clone)]
pub(crate) struct Secret {
    bytes: Vec<u8>,
}

/// A text that is no secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "a group secret has {SECRET_BYTES_MIN} to {SECRET_BYTES_MAX} bytes, this one has {bytes}: make one with 'openssl rand -hex 32' \
     and give it to all members"
)]
pub struct SecretError {
    bytes: usize,
}

impl Secret {
    /// The secret that a setting or a file holds; white space around it does not count.
    pub(crate) fn new(text: impl AsRef<[u8]>) -> Result<Secret, SecretError> {
        let bytes = text.as_ref().trim_ascii().to_vec();
        if (SECRET_BYTES_MIN..=SECRET_BYTES_MAX).contains(&bytes.len()) {
            Ok(Secret { bytes })
        } else {
            Err(SecretError { bytes: bytes.len() })
        }
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

/// An address that others can reach, in a group without a secret.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "'{address}' is no loopback address, and the group has no secret: whoever reaches it could join. Give all members the same \
     group secret, or let all of them use addresses of 127.0.0.1 or [::1]; then start again"
)]
pub struct Unguarded {
    /// The first address of those given that is not loopback for certain.
    pub address: String,
}

/// Whether a group may do without a secret: only if all these addresses (`host:port`; the one listened on and those of
/// all members) are loopback. A name other than `localhost` may lead anywhere, now or later.
pub(crate) fn check_unguarded<'a>(addresses: impl IntoIterator<Item = &'a str>) -> Result<(), Unguarded> {
    let outside = addresses.into_iter().find(|address| !is_loopback(address));
    outside.map_or(Ok(()), |address| Err(Unguarded { address: address.escape_debug().to_string() }))
}

fn is_loopback(address: &str) -> bool {
    let Some((host, _)) = split_address(address) else { return false };
    host.eq_ignore_ascii_case("localhost")
        || host.parse::<IpAddr>().is_ok_and(|address| address.to_canonical().is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_without_a_secret_stays_on_its_machine() {
        let local = ["127.0.0.1:40911", "[::1]:1", "localhost:2", "127.8.8.8:3", "[::ffff:127.0.0.1]:4"];
        assert_eq!(check_unguarded(local), Ok(()));
        for outside in ["0.0.0.0:1", "10.0.0.1:1", "broker:1", "[::]:1", "127.0.0.1", "localhost.example:1", ""] {
            let error = check_unguarded(["127.0.0.1:1", outside]).unwrap_err();
            assert_eq!(error.address, outside);
            assert!(error.to_string().contains("same group secret"), "{error}");
        }
    }

    #[test]
    fn a_secret_is_long_and_never_shown() {
        let secret = Secret::new("  0123456789abcdef\n").unwrap();
        assert_eq!(secret.bytes(), b"0123456789abcdef");
        assert_eq!(format!("{secret:?}"), "Secret");
        assert!(Secret::new("0123456789abcde ").unwrap_err().to_string().contains("has 15"));
        assert!(Secret::new("x".repeat(4097)).is_err());
    }
}
