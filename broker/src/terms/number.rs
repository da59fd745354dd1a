//! Numbers that change their width without losing anything.

const _: () = assert!(usize::BITS >= 64, "positions and lengths of the log are 64 bits wide, in memory too");

/// A length or an offset as memory counts it.
#[expect(clippy::cast_possible_truncation, reason = "the assertion above")]
pub(crate) const fn to_usize(bytes: u64) -> usize {
    bytes as usize
}

/// A count that a bound keeps below 256.
///
/// # Panics
/// If it is not, as for [`to_u32`].
pub(crate) fn to_u8(bounded: usize) -> u8 {
    u8::try_from(bounded).expect("a count in a row is bounded below 256")
}

/// A length that a bound keeps below 4 GiB.
///
/// # Panics
/// If it is not: the bound does not hold, and a cut length would be a lost message.
pub(crate) fn to_u32(bounded: usize) -> u32 {
    u32::try_from(bounded).expect("a length of the store is bounded far below 4 GiB")
}
