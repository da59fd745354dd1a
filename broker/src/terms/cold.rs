//! Values that change rarely: settings of topics and groups, members. Bincode reads and writes them.

use escrowmq_common::limits;
use serde::{Serialize, de::DeserializeOwned};

/// The first byte of each value.
const COLD_VERSION: u8 = 1;
/// A bound on what the lengths in a value may claim together. It is far above what a command can hold: the log has no
/// limits of its own, and what it holds must load.
const COLD_LIMIT_BYTES: usize = 1 << 30;
/// Bytes that bincode counts for a pair of texts beside the texts.
const PAIR_BYTES: usize = size_of::<(String, String)>() + 2 * size_of::<u64>();
const _: () = assert!(
    limits::ATTRIBUTES_BYTES_MAX * (1 + PAIR_BYTES) + 4 * limits::QUEUES_MAX as usize + (1 << 20) < COLD_LIMIT_BYTES,
    "a topic within the limits loads, even if its attributes are one byte each"
);

/// Encodes a cold value.
pub(crate) fn encode_cold<T: Serialize>(value: &T) -> Vec<u8> {
    let mut out = vec![COLD_VERSION];
    let config = bincode::config::standard().with_big_endian().with_fixed_int_encoding();
    let body = bincode::serde::encode_to_vec(value, config).expect("plain data always encodes");
    out.extend_from_slice(&body);
    out
}

/// Decodes a cold value; the error says why not.
pub(crate) fn decode_cold<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, String> {
    let (version, body) = bytes.split_first().ok_or("empty")?;
    if *version != COLD_VERSION {
        return Err(format!("version {version} is newer than this program"));
    }
    let config =
        bincode::config::standard().with_big_endian().with_fixed_int_encoding().with_limit::<COLD_LIMIT_BYTES>();
    let (value, read) = bincode::serde::decode_from_slice(body, config).map_err(|error| error.to_string())?;
    if read == body.len() { Ok(value) } else { Err("bytes behind the end".to_owned()) }
}
