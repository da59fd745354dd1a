//! Finds the bytes of a JSON string that mean something, eight at a time.

const LOW: u64 = 0x7f7f_7f7f_7f7f_7f7f;

/// A word with the given byte in all eight places.
const fn all(byte: u8) -> u64 {
    u64::from_be_bytes([byte; 8])
}

/// The top bit of each byte of `word` that is zero; exact, no carry runs from byte to byte.
fn zeros(word: u64) -> u64 {
    !(((word & LOW) + LOW) | word | LOW)
}

/// Position of the first quote, backslash or control character, or the length if there is none.
pub(super) fn special(bytes: &[u8]) -> usize {
    let mut at = 0;
    while let Some(chunk) = bytes[at..].first_chunk::<8>() {
        let word = u64::from_be_bytes(*chunk);
        // Below 0x20 is where the top three bits are all zero.
        let found = zeros(word ^ all(b'"')) | zeros(word ^ all(b'\\')) | zeros(word & all(0xe0));
        if found != 0 {
            return at + found.leading_zeros() as usize / 8;
        }
        at += 8;
    }
    let rest = bytes[at..].iter().position(|byte| is_special(*byte));
    rest.map_or(bytes.len(), |position| at + position)
}

fn is_special(byte: u8) -> bool {
    byte < 0x20 || byte == b'"' || byte == b'\\'
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn it_finds_what_a_plain_search_finds(bytes in prop::collection::vec(prop_oneof![
            Just(b'"'), Just(b'\\'), Just(0x1f_u8), Just(0x20), Just(0x00), Just(0x80), Just(0xdc), Just(0xa2), any::<u8>(), 0x60_u8..0x7a
        ], 0..40)) {
            let plain = bytes.iter().position(|byte| is_special(*byte)).unwrap_or(bytes.len());
            prop_assert_eq!(special(&bytes), plain);
        }

        #[test]
        fn a_late_one_is_found_too(clean in prop::collection::vec(0x23_u8..0x5b, 0..60), byte in any::<u8>()) {
            let mut bytes = clean.clone();
            bytes.push(byte);
            prop_assert_eq!(special(&bytes), if is_special(byte) { clean.len() } else { bytes.len() });
        }
    }
}
