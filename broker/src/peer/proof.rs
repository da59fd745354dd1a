//! Proofs that a side knows the secret, each good for one connection and one direction.

use hmac::{Hmac, Mac as _};
use rustix::rand::{GetRandomFlags, getrandom};
use sha2::Sha256;

use super::greeting::NONCE_BYTES;
use super::secret::Secret;

/// Bytes of a proof.
pub(super) const PROOF_BYTES: usize = 32;

/// Whose proof it is. The label keeps one side from being given its own proof back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// The side that opened the connection.
    Dialer,
    /// The side that was listening.
    Listener,
}

impl Role {
    fn label(self) -> &'static [u8] {
        match self {
            Role::Dialer => b"EscrowMQ peer 1, dialer",
            Role::Listener => b"EscrowMQ peer 1, listener",
        }
    }
}

/// Both greetings of a connection, as they were sent.
#[derive(Clone, Copy, Debug)]
pub(super) struct Greetings<'a> {
    pub(super) dialer: &'a [u8],
    pub(super) listener: &'a [u8],
}

/// What a side sends as its proof.
pub(super) fn prove(secret: &Secret, role: Role, greetings: Greetings<'_>) -> [u8; PROOF_BYTES] {
    keyed(secret, role, greetings).finalize().into_bytes().into()
}

/// Whether a proof is the right one. Takes as long wherever it differs.
pub(super) fn is_proven(secret: &Secret, role: Role, greetings: Greetings<'_>, proof: &[u8]) -> bool {
    keyed(secret, role, greetings).verify_slice(proof).is_ok()
}

fn keyed(secret: &Secret, role: Role, greetings: Greetings<'_>) -> Hmac<Sha256> {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.bytes()).expect("a key may have any length");
    for part in [role.label(), greetings.dialer, greetings.listener] {
        // With its length in front no part can be read as another one.
        mac.update(&(part.len() as u64).to_be_bytes());
        mac.update(part);
    }
    mac
}

/// Random bytes that nobody can foresee. Fails where the system has none.
pub(super) fn nonce() -> std::io::Result<[u8; NONCE_BYTES]> {
    let mut nonce = [0; NONCE_BYTES];
    // So few bytes come whole or not at all.
    let bytes = getrandom(&mut nonce[..], GetRandomFlags::empty())?;
    if bytes == NONCE_BYTES { Ok(nonce) } else { Err(std::io::Error::other("the system gave too few random bytes")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proof_is_good_for_its_role_its_greetings_and_its_secret() {
        let secret = Secret::new("0123456789abcdef").unwrap();
        let greetings = Greetings { dialer: b"ab", listener: b"c" };
        let proof = prove(&secret, Role::Dialer, greetings);
        assert!(is_proven(&secret, Role::Dialer, greetings, &proof));
        assert!(!is_proven(&secret, Role::Listener, greetings, &proof));
        assert!(!is_proven(&Secret::new("0123456789abcdeF").unwrap(), Role::Dialer, greetings, &proof));
        for (dialer, listener) in [(&b"a"[..], &b"bc"[..]), (b"c", b"ab"), (b"ab", b"d"), (b"", b"abc")] {
            assert!(!is_proven(&secret, Role::Dialer, Greetings { dialer, listener }, &proof));
        }
        let mut other = proof;
        other[31] ^= 1;
        for wrong in [&other[..], &proof[..31], b"", &[0; 64]] {
            assert!(!is_proven(&secret, Role::Dialer, greetings, wrong));
        }
    }

    #[test]
    fn a_proof_is_hmac_sha256_over_lengths_and_parts() {
        // From Python: hmac.new(b"0123456789abcdef", b"".join(len(p).to_bytes(8, "big") + p for p in parts), "sha256")
        let secret = Secret::new("0123456789abcdef").unwrap();
        let proof = prove(&secret, Role::Listener, Greetings { dialer: b"ab", listener: b"c" });
        let expected = "f22b1738f3258a49299d3a27357f3297e4f7f51f24e240c36809fa970e73ba68";
        let digits = |at: usize| u8::from_str_radix(&expected[at..at + 2], 16).unwrap();
        assert!(proof.iter().copied().eq((0..64).step_by(2).map(digits)));
    }

    #[test]
    fn nonces_differ() {
        assert_ne!(nonce().unwrap(), nonce().unwrap());
    }
}
