//! Values that nobody should send.

use super::json::Json;
use crate::dice::Dice;

/// Lengths at which something changes: limits of names, of properties and of length fields, and one beside each.
const LENGTHS: &[usize] = &[
    120, 121, 127, 128, 255, 256, 1024, 1025, 16_384, 32_000, 32_766, 32_767, 32_768, 65_000, 65_400, 65_450, 65_480,
    65_500, 65_520, 65_530, 65_534, 65_535, 65_536, 65_537, 70_000,
];

/// The fillings of long values. Some become longer when they are escaped, or are cut where separators stand.
const FILLINGS: &[&[u8]] = &[
    b"x",
    b"a-Z_9|%",
    "\u{20ac}".as_bytes(),
    "\u{10ffff}".as_bytes(),
    b"\"",
    b"\\",
    b"\0",
    b"\x01",
    b"\x02",
    b"k\x01v\x02",
    b",",
    b"a,",
    b";",
    b" ",
    b"|| a ",
    b"\n",
    b"9",
    b"\xff",
];

/// Numbers at the ends of types, and what looks like a number to some readers only.
#[rustfmt::skip] // a table
const NUMBERS: &[&str] = &[
    "0", "-0", "-1", "1", "2", "3", "4", "7", "8", "12", "16", "31", "32", "64", "255", "256", "1000", "16384", "16385",
    "32767", "32768", "-32768", "65535", "65536", "2147483646", "2147483647", "2147483648", "-2147483648",
    "-2147483649", "4294967295", "4294967296", "9007199254740993", "9223372036854775806", "9223372036854775807",
    "9223372036854775808", "-9223372036854775808", "-9223372036854775809", "18446744073709551615",
    "18446744073709551616", "170141183460469231731687303715884105728", "1.0", "1.5", "-0.0", "1e3", "1e400", "-1e400",
    "NaN", "Infinity", "0x10", "010", "+5", " 5", "5 ", "5\n", "1_000", "1,000", "\u{0665}", "5L", "--5", "",
];

/// Names with a meaning of their own.
#[rustfmt::skip] // a table
const NAMES: &[&str] = &[
    "TBW102", "%RETRY%", "%DLQ%", "%LMQ%", "%RETRY%evil-group-0", "%DLQ%evil-group-0", "%RETRY%%RETRY%evil-group-0",
    "SCHEDULE_TOPIC_XXXX", "RMQ_SYS_TRANS_HALF_TOPIC", "RMQ_SYS_TRANS_OP_HALF_TOPIC", "TRANS_CHECK_MAX_TIME_TOPIC",
    "RMQ_SYS_TRACE_TOPIC", "SELF_TEST_TOPIC", "OFFSET_MOVED_EVENT", "rmq_sys_wheel_timer", "rmq_sys_", "BenchmarkTest",
    "DefaultCluster", "DefaultCluster_REPLY_TOPIC", "CID_RMQ_SYS_TRANS", "CID_RMQ_SYS_x", "CID_ONSCLIENT-RMQ",
    "TOOLS_CONSUMER", "CLIENT_INNER_PRODUCER", "DEFAULT_CONSUMER", "DEFAULT_PRODUCER", "*", "a b", "a@b", "@", ".",
    "..", "../../../etc/passwd", "/", "//", "C:\\x", "%s%n%x", "${x}", "{}", "[]", "null", "true", "undefined", "-",
    "+a=b", "-a", "+", "a=b", "\u{feff}Evil0", "Evil0\u{202e}", "E\u{0301}vil0", "\u{ff25}vil0", "evil0", "EVIL0",
    " Evil0", "Evil0 ", "Evil0\u{a0}", "TAG", "SQL92", "a || b", "a > 1 AND", "((((((((((", "LOWER", "commit", "park",
];

/// Bytes that are no UTF-8: overlong forms, halves of surrogate pairs, cut sequences, what lies above Unicode.
const ODD: &[&[u8]] = &[
    b"\xc0\x80",
    b"\xc0\xaf",
    b"\xe0\x80\x80",
    b"\xed\xa0\x80",
    b"\xed\xb0\x80",
    b"\xed\xa0\x80\xed\xb0\x80",
    b"\xe2\x82",
    b"\xf0\x9f\x98",
    b"\xf4\x90\x80\x80",
    b"\xf8\x88\x80\x80\x80",
    b"\xff",
    b"\xfe\xff",
    b"\x80",
    b"Evil0\xff",
    b"\xc3Evil0",
];

/// JSON that is odd or no JSON, to stand where a value belongs.
#[rustfmt::skip] // a table
const RAW: &[&str] = &[
    "null", "true", "false", "{}", "[]", "{\"a\":{\"b\":[1,{}]}}", "[1,\"2\",null]", "\"\\ud800\"",
    "\"\\udc00\\ud800\"", "\"\\u0000\"", "\"\\ud83d\\ude00\"", "\"\\x41\"", "\"\\", "\"", "'Evil0'", "Evil0", "",
    "1e400", "-", "0123", ".5", "{0:1}", "{{\"a\":1}:2}", "{\"a\":1,}", "[1,]", "[,]", "{,}", "{\"a\"}", "{a:1}",
    "// x\n1", "/*", "\u{feff}1", "nul", "\"\t\"", "\"\u{7f}\"", "NaN", "-Infinity",
    "12345678901234567890123456789012345678901234567890",
];

/// A value to stand in the place of `was`.
pub(super) fn hostile(dice: &mut Dice, was: &[u8]) -> Json {
    match dice.below(28) {
        0 | 1 => Json::text(""),
        2..=5 => Json::text(dice.pick(NUMBERS)),
        6 => Json::raw(dice.pick(NUMBERS)),
        7..=12 => Json::Text(long(dice)),
        13..=15 => Json::text(dice.pick(ODD)),
        16 | 17 => Json::Text(with_control(dice, was)),
        18..=20 => Json::text(dice.pick(NAMES)),
        21 | 22 => Json::raw(dice.pick(RAW)),
        23 | 24 => Json::Text(beside(dice, was)),
        25 => Json::Text([was, was].concat()),
        26 => Json::Text(was.to_ascii_uppercase()),
        _ => Json::Text(was.iter().rev().copied().collect()),
    }
}

/// A number, or what may be taken for one.
pub(super) fn number(dice: &mut Dice) -> &'static str {
    dice.pick::<&str>(NUMBERS)
}

/// A name with a meaning of its own.
pub(super) fn name(dice: &mut Dice) -> &'static str {
    dice.pick::<&str>(NAMES)
}

/// JSON that is odd or no JSON.
pub(super) fn raw(dice: &mut Dice) -> Json {
    Json::raw(dice.pick(RAW))
}

/// A value whose length lies at a limit of something, seldom a very long one.
pub(super) fn long(dice: &mut Dice) -> Vec<u8> {
    let length = match dice.below(60) {
        0 => 1 << 20,
        1 => 4 << 20,
        2..=20 => dice.between(65_400, 65_540),
        _ => *dice.pick(LENGTHS),
    };
    filled(dice, length)
}

/// `length` bytes of one of the fillings. A character that does not fit at the end is cut.
pub(super) fn filled(dice: &mut Dice, length: usize) -> Vec<u8> {
    // Plain letters go through every check but that of the length: they come more often.
    let filling = if dice.one_in(2) { FILLINGS[0] } else { *dice.pick(FILLINGS) };
    filling.iter().copied().cycle().take(length).collect()
}

/// The value with a control character or a NUL somewhere.
fn with_control(dice: &mut Dice, was: &[u8]) -> Vec<u8> {
    let mut value = was.to_vec();
    let at = dice.below(value.len() + 1);
    let control = [0, 1, 2, 7, 8, 9, 10, 13, 27, 31, 127];
    value.insert(at, *dice.pick(&control));
    value
}

/// A number beside this one, or a text with one byte more, less or another.
fn beside(dice: &mut Dice, was: &[u8]) -> Vec<u8> {
    if let Some(number) = std::str::from_utf8(was).ok().and_then(|text| text.parse::<i64>().ok()) {
        let number = match dice.below(8) {
            0 => number.wrapping_neg(),
            1 => number.wrapping_add(1),
            2 => number.wrapping_sub(1),
            3 => number.wrapping_add(1 << 32),
            4 => number.wrapping_mul(1000),
            5 => !number,
            6 => number ^ (1 << dice.below(63)),
            _ => number / 2,
        };
        return number.to_string().into_bytes();
    }
    let mut value = was.to_vec();
    if value.is_empty() {
        return vec![dice.roll() as u8];
    }
    let at = dice.below(value.len());
    match dice.below(3) {
        0 => drop(value.remove(at)),
        1 => value[at] = dice.roll() as u8,
        _ => value.truncate(at),
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_kinds_come() {
        let mut dice = Dice::new(3);
        let values: Vec<Json> = (0..5_000).map(|_| hostile(&mut dice, b"17")).collect();
        let has = |what: &dyn Fn(&[u8]) -> bool| values.iter().any(|value| what(&value.bytes()));
        assert!(has(&<[u8]>::is_empty));
        assert!(has(&|bytes| bytes.len() == 65_535));
        assert!(has(&|bytes| bytes.len() > 1 << 20));
        assert!(has(&|bytes| std::str::from_utf8(bytes).is_err()));
        assert!(has(&|bytes| bytes.contains(&0)));
        assert!(has(&|bytes| bytes == b"-17"));
        assert!(values.iter().any(|value| matches!(value, Json::Raw(_))));
    }
}
