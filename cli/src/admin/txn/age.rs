//! Durations as people write and read them.

use std::time::Duration;

const SECOND: u64 = 1000;
const MINUTE: u64 = 60 * SECOND;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;

/// Reads `500ms`, `90s`, `10m`, `2h`, `3d`, or several of them as in `1h30m`.
pub(super) fn parse(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is no duration; write 500ms, 90s, 10m, 2h, 3d or 1h30m");
    let mut rest = text.trim();
    if rest.is_empty() {
        return Err(wrong());
    }
    let mut millis = 0u64;
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let number: u64 = rest[..digits].parse().map_err(|_| wrong())?;
        rest = &rest[digits..];
        let letters = rest.bytes().take_while(u8::is_ascii_alphabetic).count();
        let unit = match &rest[..letters] {
            "ms" => 1,
            "s" => SECOND,
            "m" | "min" => MINUTE,
            "h" => HOUR,
            "d" => DAY,
            _ => return Err(wrong()),
        };
        rest = &rest[letters..];
        millis = number.checked_mul(unit).and_then(|more| millis.checked_add(more)).ok_or_else(wrong)?;
    }
    Ok(Duration::from_millis(millis))
}

/// The same for an interval, which must not be 0.
pub(crate) fn parse_interval(text: &str) -> Result<Duration, String> {
    match parse(text)? {
        Duration::ZERO => Err("an interval must not be 0".to_owned()),
        interval => Ok(interval),
    }
}

/// The two largest units of a number of milliseconds: `3d 4h`, `12m 5s`, `7s`, `850ms`.
pub(crate) fn short(millis: i64) -> String {
    // Clocks of two machines differ: what lies ahead is young.
    let millis = u64::try_from(millis).unwrap_or(0);
    let pair = |large: u64, small: u64, names: (&str, &str)| match millis % large / small {
        0 => format!("{}{}", millis / large, names.0),
        rest => format!("{}{} {rest}{}", millis / large, names.0, names.1),
    };
    match millis {
        DAY.. => pair(DAY, HOUR, ("d", "h")),
        HOUR.. => pair(HOUR, MINUTE, ("h", "m")),
        MINUTE.. => pair(MINUTE, SECOND, ("m", "s")),
        SECOND.. => format!("{}s", millis / SECOND),
        _ => format!("{millis}ms"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read() {
        for (text, millis) in
            [("500ms", 500), ("90s", 90_000), ("10m", 600_000), ("1h30m", 5_400_000), ("2d", 172_800_000)]
        {
            assert_eq!(parse(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        for bad in ["", "10", "m", "10x", "1.5h", "-1s", "99999999999999999999d", "9999999999999999d", "5é"] {
            assert!(parse(bad).is_err(), "{bad:?}");
        }
        assert!(parse_interval("0s").is_err());
    }

    #[test]
    fn ages_are_short() {
        for (millis, text) in [
            (850, "850ms"),
            (7_999, "7s"),
            (725_000, "12m 5s"),
            (7_200_000, "2h"),
            (3 * 86_400_000 + 4 * 3_600_000 + 1, "3d 4h"),
            (-5, "0ms"),
        ] {
            assert_eq!(short(millis), text);
        }
    }
}
