//! Times as people read and write them.

use std::ops::Range;

use escrowmq_common::calendar::CalendarTime;

/// The last time that is taken for one, in milliseconds since 1970: a thousand years later.
const LATEST: i64 = 1000 * 365 * 24 * 60 * 60 * 1000;

/// A time in UTC: `2026-11-20 21:14:09.770`.
pub(super) fn readable(millis: i64) -> String {
    // Timestamps of messages are recent; anything else is shown as it is.
    if !(0..=LATEST).contains(&millis) {
        return millis.to_string();
    }
    let CalendarTime { year, month, day, hour, minute, second, millis } = CalendarTime::of(millis);
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}.{millis:03}")
}

/// Milliseconds since 1970 of a time in the form of RFC 3339: `2026-11-20T21:14:09.77+01:00`, with `Z` for UTC. `None` of
/// anything else, and of earlier times.
pub(super) fn parse(text: &str) -> Option<i64> {
    for (at, marks) in [(4, "-"), (7, "-"), (10, "Tt "), (13, ":"), (16, ":")] {
        text.get(at..=at).filter(|mark| marks.contains(*mark))?;
    }
    let (year, month, day) = (number(text, 0..4)?, number(text, 5..7)?, number(text, 8..10)?);
    let (hour, minute, second) = (number(text, 11..13)?, number(text, 14..16)?, number(text, 17..19)?);
    let rest = text.get(19..)?;
    let digits = rest.strip_prefix('.').map_or(0, |rest| rest.bytes().take_while(u8::is_ascii_digit).count());
    let (fraction, zone) = rest.split_at(if rest.starts_with('.') { 1 + digits } else { 0 });
    let millis = match fraction.trim_start_matches('.') {
        "" if fraction.is_empty() => 0,
        digits => number(&format!("{digits:0<3}"), 0..3).filter(|_| !digits.is_empty())?,
    };
    let behind = match zone.as_bytes() {
        [b'Z' | b'z'] => 0,
        [sign @ (b'+' | b'-'), _, _, b':', _, _] => {
            let (hours, minutes) = (number(zone, 1..3)?, number(zone, 4..6)?);
            let minutes = (hours < 24 && minutes < 60).then_some(hours * 60 + minutes)?;
            if *sign == b'+' { minutes } else { -minutes }
        }
        _ => return None,
    };
    let at = CalendarTime { year, month, day, hour, minute, second, millis }.since_1970()? - behind * 60_000;
    (at >= 0).then_some(at)
}

/// The number that these digits are.
fn number(text: &str, digits: Range<usize>) -> Option<i64> {
    let digits = text.get(digits).filter(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()))?;
    digits.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_readable() {
        assert_eq!(readable(1_795_209_249_770), "2026-11-20 21:14:09.770");
        assert_eq!(readable(0), "1970-01-01 00:00:00.000");
        assert_eq!(readable(951_782_400_000), "2000-02-29 00:00:00.000");
        assert_eq!(readable(1_735_689_599_999), "2024-12-31 23:59:59.999");
        assert_eq!(readable(-1), "-1");
        assert_eq!(readable(i64::MAX), i64::MAX.to_string());
    }

    #[test]
    fn times_are_read_with_their_zone() {
        for (text, millis) in [
            ("2026-11-20T21:14:09.770Z", 1_795_209_249_770),
            ("2026-11-20t22:14:09.77+01:00", 1_795_209_249_770),
            ("2026-11-20 15:44:09.770999-05:30", 1_795_209_249_770),
            ("1970-01-01T00:00:00z", 0),
            ("2000-02-29T00:00:00Z", 951_782_400_000),
            ("2025-01-01T00:59:59.999+01:00", 1_735_689_599_999),
        ] {
            assert_eq!(parse(text), Some(millis), "{text}");
        }
    }

    #[test]
    fn anything_else_is_no_time() {
        for text in [
            "",
            "now",
            "2026-11-20",
            // Which zone is meant?
            "2026-11-20T21:14:09",
            "2026-11-20T21:14:09.Z",
            "2026-11-20T21:14:09.7",
            "2026-11-20T21:14:09+0100",
            "2026-11-20T21:14:09+24:00",
            "2026-11-20T21:14:09ZZ",
            "2026-13-20T21:14:09Z",
            "2026-00-20T21:14:09Z",
            "2025-02-29T00:00:00Z",
            "2026-11-20T24:00:00Z",
            "2026-11-20T21:60:00Z",
            "1970-01-01T00:00:00+00:01",
            "1969-12-31T23:59:59Z",
            "+026-11-20T21:14:09Z",
            "ä026-11-20T21:14:09Z",
            "2026-11-20T21:14:0ä",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
