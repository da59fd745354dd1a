//! The system flag of a message: how its body is compressed, where it stands in a transaction, how wide its hosts are.

use super::compression::CompressionType;

/// `sysFlag` of a message. Unknown bits are kept as they came.
///
/// Not to be mixed up with the `sysFlag` of a pull request, which has other bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct SysFlag(pub i32);

/// Bits 2 and 3 of [`SysFlag`]; also the values of `commitOrRollback` in `END_TRANSACTION`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum TransactionType {
    /// Not transactional, or a half message as the broker stores it. As a decision: unknown.
    #[default]
    None,
    /// A producer sets it when it sends a half message.
    Prepared,
    /// A committed message; the decision to commit.
    Commit,
    /// The decision to roll back.
    Rollback,
}

impl TransactionType {
    /// The value on the wire: 0, 4, 8 or 12.
    pub const fn bits(self) -> i32 {
        match self {
            Self::None => 0,
            Self::Prepared => 4,
            Self::Commit => 8,
            Self::Rollback => 12,
        }
    }

    /// The type whose bits are exactly `bits`; anything but 0, 4, 8 and 12 is none of them.
    pub const fn from_bits(bits: i32) -> Option<Self> {
        match bits {
            0 => Some(Self::None),
            4 => Some(Self::Prepared),
            8 => Some(Self::Commit),
            12 => Some(Self::Rollback),
            _ => None,
        }
    }
}

impl SysFlag {
    /// The body is compressed; how, is told by [`SysFlag::COMPRESSION_MASK`].
    pub const COMPRESSED: i32 = 1;
    /// Historic; kept, never set.
    pub const MULTI_TAGS: i32 = 1 << 1;
    /// The two transaction bits.
    pub const TRANSACTION_MASK: i32 = 12;
    /// The born host has 16 address bytes.
    pub const BORN_HOST_V6: i32 = 1 << 4;
    /// The store host has 16 address bytes.
    pub const STORE_HOST_V6: i32 = 1 << 5;
    /// Batch queues: the reader has to unwrap inner messages.
    pub const NEED_UNWRAP: i32 = 1 << 6;
    /// Batch queues: the unit holds several inner messages.
    pub const INNER_BATCH: i32 = 1 << 7;
    /// The compression type; zero means zlib, from the time before there was a choice.
    pub const COMPRESSION_MASK: i32 = 0x700;

    const HOST_BITS: i32 = Self::BORN_HOST_V6 | Self::STORE_HOST_V6;

    /// Whether all of `bits` are set.
    pub const fn contains(self, bits: i32) -> bool {
        self.0 & bits == bits
    }

    /// With `bits` set.
    #[must_use]
    pub const fn with(self, bits: i32) -> Self {
        Self(self.0 | bits)
    }

    /// With `bits` cleared.
    #[must_use]
    pub const fn without(self, bits: i32) -> Self {
        Self(self.0 & !bits)
    }

    /// Where the message stands in a transaction.
    pub const fn transaction(self) -> TransactionType {
        match self.0 & Self::TRANSACTION_MASK {
            4 => TransactionType::Prepared,
            8 => TransactionType::Commit,
            12 => TransactionType::Rollback,
            _ => TransactionType::None,
        }
    }

    /// With the transaction bits replaced and all others kept.
    #[must_use]
    pub const fn with_transaction(self, transaction: TransactionType) -> Self {
        Self((self.0 & !Self::TRANSACTION_MASK) | transaction.bits())
    }

    /// How the body is compressed; `None` if it is not. A type from the future is an error only when somebody
    /// decompresses, so it is `Some(Err(bits))` here.
    pub const fn compression(self) -> Option<Result<CompressionType, i32>> {
        if self.0 & Self::COMPRESSED == 0 {
            return None;
        }
        Some(CompressionType::from_sys_flag_bits(self.0 & Self::COMPRESSION_MASK))
    }

    /// Marks the body as compressed by `compression`.
    #[must_use]
    pub const fn with_compression(self, compression: CompressionType) -> Self {
        Self((self.0 & !Self::COMPRESSION_MASK) | Self::COMPRESSED | compression.sys_flag_bits())
    }

    /// The born host of this unit takes 20 bytes instead of 8.
    pub const fn is_born_host_v6(self) -> bool {
        self.contains(Self::BORN_HOST_V6)
    }

    /// The store host of this unit takes 20 bytes instead of 8.
    pub const fn is_store_host_v6(self) -> bool {
        self.contains(Self::STORE_HOST_V6)
    }

    /// With the two host bits as given, whatever they were: they follow from the hosts, never from a request.
    #[must_use]
    pub(super) const fn with_hosts(self, born_is_v6: bool, store_is_v6: bool) -> Self {
        let mut bits = self.0 & !Self::HOST_BITS;
        if born_is_v6 {
            bits |= Self::BORN_HOST_V6;
        }
        if store_is_v6 {
            bits |= Self::STORE_HOST_V6;
        }
        Self(bits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn transaction_bits_are_replaced_and_others_kept() {
        let half = SysFlag(0x305);
        assert_eq!(half.transaction(), TransactionType::Prepared);
        assert_eq!(half.with_transaction(TransactionType::Commit).0, 0x309);
        assert_eq!(half.with_transaction(TransactionType::None).0, 0x301);
    }

    #[test]
    fn a_decision_needs_exact_bits() {
        assert_eq!(TransactionType::from_bits(8), Some(TransactionType::Commit));
        assert_eq!(TransactionType::from_bits(9), None);
        assert_eq!(TransactionType::from_bits(-8), None);
    }

    #[test]
    fn legacy_compression_is_zlib_and_no_bit_is_none() {
        assert_eq!(SysFlag(1).compression(), Some(Ok(CompressionType::Zlib)));
        assert_eq!(SysFlag(769).compression(), Some(Ok(CompressionType::Zlib)));
        assert_eq!(SysFlag(257).compression(), Some(Ok(CompressionType::Lz4)));
        assert_eq!(SysFlag(513).compression(), Some(Ok(CompressionType::Zstd)));
        assert_eq!(SysFlag(768).compression(), None);
        assert_eq!(SysFlag(0x401).compression(), Some(Err(0x400)));
    }
}
