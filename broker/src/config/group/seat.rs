//! The seats of a group: the places of its members, as `dLegerPeers` lists them.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use super::host::{GroupHost, host_and_port};

/// How many founders a group may have. An even number waits for more members than the odd one below it, and survives no
/// more losses.
const COUNTS: [usize; 3] = [1, 3, 5];
/// Longest name of a seat: a letter and digits.
const NAME_BYTES_MAX: usize = 5;

/// The place of a member in its group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seat {
    /// A letter and a number, such as `n0`. No other seat of the group has the number.
    pub name: String,
    /// The machine: a name or an address.
    pub host: GroupHost,
    /// The port at which it talks to other members.
    pub port: u16,
}

impl Seat {
    /// The number in the name.
    pub fn number(&self) -> u16 {
        number(&self.name).unwrap_or_default()
    }

    /// The broker id that clients are told while this member does not lead; a leader's is 0.
    pub fn follower_id(&self) -> i64 {
        i64::from(self.number()) + 1
    }

    /// Where other members reach it, as `host:port`.
    pub fn address(&self) -> String {
        self.host.with_port(self.port)
    }
}

/// As in `dLegerPeers`.
impl fmt::Display for Seat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.name, self.address())
    }
}

impl FromStr for Seat {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bad = |why: &str| format!("'{text}' {why}");
        let (name, address) =
            text.split_once('-').ok_or_else(|| bad("is not of the form n0-host:port: a '-' follows the name"))?;
        if number(name).is_none() {
            return Err(bad("does not begin with a letter and a number of at most four digits, such as n0"));
        }
        let (host, port) = host_and_port(address).map_err(|why| bad(&why))?;
        if host.is_unspecified() {
            return Err(bad("names no machine: give the address by which the other members reach this one"));
        }
        Ok(Self { name: name.to_owned(), host, port })
    }
}

/// The number of a seat's name; `None` if it is no such name.
fn number(name: &str) -> Option<u16> {
    let digits = name.strip_prefix(|first: char| first.is_ascii_alphabetic())?;
    let is_number = name.len() <= NAME_BYTES_MAX && digits.bytes().all(|byte| byte.is_ascii_digit());
    digits.parse().ok().filter(|_| is_number)
}

/// The seats of a group in the order in which they were written; none for a broker alone.
///
/// Names, numbers and addresses differ, and there are as many as a group may be founded with.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Seats(Vec<Seat>);

impl Seats {
    /// All of them.
    pub fn all(&self) -> &[Seat] {
        &self.0
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none: the broker is alone.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The seat of that name.
    pub fn named(&self, name: &str) -> Option<&Seat> {
        self.0.iter().find(|seat| seat.name == name)
    }

    /// Whether all are at loopback addresses, so that other machines cannot reach them.
    pub fn are_loopback(&self) -> bool {
        self.0.iter().all(|seat| seat.host.is_loopback())
    }
}

impl fmt::Display for Seats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, seat) in self.0.iter().enumerate() {
            let gap = if at == 0 { "" } else { ";" };
            write!(f, "{gap}{seat}")?;
        }
        Ok(())
    }
}

impl FromStr for Seats {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts = text.split(';').map(str::trim).filter(|part| !part.is_empty());
        let seats = parts.map(str::parse).collect::<Result<Vec<Seat>, _>>()?;
        let count = seats.len();
        if count > 0 && !COUNTS.contains(&count) {
            return Err(match count {
                2 | 4 => format!(
                    "names {count} members, which survive no more losses than {}: a group is founded by 1, 3 or 5",
                    count - 1
                ),
                _ => format!("names {count} members: a group is founded by 1, 3 or 5"),
            });
        }
        let (mut numbers, mut addresses) = (BTreeSet::new(), BTreeSet::new());
        for seat in &seats {
            if !numbers.insert(seat.number()) {
                return Err(format!("'{seat}' has a number that another member has: number them n0, n1, n2"));
            }
            if !addresses.insert((seat.host.same(), seat.port)) {
                return Err(format!(
                    "'{seat}' has the address of another member: each has a host or a port of its own"
                ));
            }
        }
        Ok(Self(seats))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(text: &str) -> String {
        text.parse::<Seats>().unwrap_err()
    }

    #[test]
    fn seats_are_read_and_shown() {
        let text = "n0-10.0.0.1:40911;n1-broker-1.brokers.svc:40911;n12-[fd00::1]:40912";
        let seats: Seats = text.parse().unwrap();
        assert_eq!(seats.to_string(), text);
        let shown: Vec<_> = seats.all().iter().map(|seat| (seat.name.as_str(), seat.address(), seat.port)).collect();
        let expected = [
            ("n0", "10.0.0.1:40911".to_owned(), 40_911),
            ("n1", "broker-1.brokers.svc:40911".to_owned(), 40_911),
            ("n12", "[fd00::1]:40912".to_owned(), 40_912),
        ];
        assert_eq!(shown, expected);
        assert_eq!(seats.named("n12").map(Seat::follower_id), Some(13));
        assert_eq!(seats.named("n2"), None);
        assert_eq!(" n0-a:1 ;".parse::<Seats>().unwrap().to_string(), "n0-a:1");
        assert!("".parse::<Seats>().unwrap().is_empty());
    }

    #[test]
    fn a_group_is_founded_by_one_three_or_five() {
        let seats = |count: usize| (0..count).map(|n| format!("n{n}-h{n}:1")).collect::<Vec<_>>().join(";");
        for count in [1, 3, 5] {
            assert_eq!(seats(count).parse::<Seats>().unwrap().count(), count);
        }
        assert!(refused(&seats(2)).contains("no more losses than 1"), "{}", refused(&seats(2)));
        assert!(refused(&seats(4)).contains("no more losses than 3"));
        assert!(refused(&seats(7)).contains("1, 3 or 5"));
    }

    #[test]
    fn what_is_no_seat_says_why() {
        for (text, why) in [
            ("n0", "'-' follows the name"),
            ("broker-a:1", "a letter and a number"),
            ("0-a:1", "a letter and a number"),
            ("n-a:1", "a letter and a number"),
            ("n+1-a:1", "a letter and a number"),
            ("n12345-a:1", "a letter and a number"),
            ("n0-a", "names no port"),
            ("n0-a:0", "1 to 65535"),
            ("n0-a:65536", "1 to 65535"),
            ("n0-a:x", "1 to 65535"),
            ("n0-:1", "has no host"),
            ("n0-fd00::1:1", "without brackets"),
            ("n0-[fd00::1:1", "behind its brackets"),
            ("n0-[a]:1", "no IPv6 address"),
            ("n0-a b:1", "neither"),
            ("n0-256.0.0.1:1", "neither"),
            ("n0-0.0.0.0:1", "no machine"),
            ("n0-[::]:1", "no machine"),
        ] {
            let said = refused(text);
            assert!(said.starts_with(&format!("'{text}'")) && said.contains(why), "{text}: {said}");
        }
    }

    #[test]
    fn numbers_and_addresses_differ() {
        assert!(refused("n0-a:1;n0-b:1;n1-c:1").contains("'n0-b:1' has a number"));
        assert!(refused("n0-a:1;m0-b:1;n1-c:1").contains("'m0-b:1' has a number"), "followers' ids would be the same");
        for twin in ["a:1", "A:1", "a.:1"] {
            let text = format!("n0-a:1;n1-{twin};n2-b:1");
            assert!(refused(&text).contains("the address of another"), "{text}");
        }
        assert!(refused("n0-localhost:1;n1-127.0.0.1:1;n2-[::1]:1").contains("'n1-127.0.0.1:1' has the address"));
        assert!("n0-a:1;n1-a:2;n2-a:3".parse::<Seats>().is_ok());
    }
}
