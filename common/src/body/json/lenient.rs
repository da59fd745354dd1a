//! Numbers as other clients write them: plain, or in quotes.

use std::fmt;
use std::marker::PhantomData;

use serde::de::{Deserializer, Error, SeqAccess, Visitor};

/// For `deserialize_with`: an integer, possibly in quotes. One that does not fit is an error.
pub fn number<'de, D: Deserializer<'de>, N: TryFrom<i64>>(from: D) -> Result<N, D::Error> {
    from.deserialize_any(Number(PhantomData))
}

/// For `deserialize_with`: a list of integers, possibly in quotes.
pub fn numbers<'de, D: Deserializer<'de>, N: TryFrom<i64>>(from: D) -> Result<Vec<N>, D::Error> {
    from.deserialize_seq(Numbers(PhantomData))
}

struct Number<N>(PhantomData<N>);

impl<N: TryFrom<i64>> Number<N> {
    fn fit<E: Error>(value: i64) -> Result<N, E> {
        N::try_from(value).map_err(|_| E::custom("number out of range"))
    }
}

impl<N: TryFrom<i64>> Visitor<'_> for Number<N> {
    type Value = N;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an integer")
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<N, E> {
        Self::fit(value)
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<N, E> {
        Self::fit(i64::try_from(value).map_err(E::custom)?)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<N, E> {
        Self::fit(text.trim().parse().map_err(E::custom)?)
    }
}

struct Numbers<N>(PhantomData<N>);

impl<'de, N: TryFrom<i64>> Visitor<'de> for Numbers<N> {
    type Value = Vec<N>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of integers")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Vec<N>, A::Error> {
        let mut numbers = Vec::new();
        while let Some(OneNumber(number)) = list.next_element()? {
            numbers.push(number);
        }
        Ok(numbers)
    }
}

struct OneNumber<N>(N);

impl<'de, N: TryFrom<i64>> serde::Deserialize<'de> for OneNumber<N> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        number(from).map(OneNumber)
    }
}
