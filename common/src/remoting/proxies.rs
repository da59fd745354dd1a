//! Whose PROXY headers are believed.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// Addresses and networks, `10.0.0.7;192.168.0.0/16;fd00::/8`. Without any, nobody is trusted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TrustedProxies(Vec<Network>);

/// Addresses that begin with the same bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Network {
    address: IpAddr,
    bits: u8,
}

impl TrustedProxies {
    /// Believes everybody: for connections whose senders have proven who they are.
    pub fn everybody() -> TrustedProxies {
        let any = |address: IpAddr| Network { address, bits: 0 };
        TrustedProxies(vec![any(Ipv4Addr::UNSPECIFIED.into()), any(Ipv6Addr::UNSPECIFIED.into())])
    }

    /// Whether what this sender says about its clients is believed.
    pub fn trusts(&self, sender: IpAddr) -> bool {
        let sender = sender.to_canonical();
        self.0.iter().any(|network| network.holds(sender))
    }
}

impl Network {
    fn holds(&self, address: IpAddr) -> bool {
        match (self.address, address) {
            (IpAddr::V4(ours), IpAddr::V4(theirs)) => {
                let differing = ours.to_bits() ^ theirs.to_bits();
                differing.checked_shr(32 - u32::from(self.bits)).unwrap_or(0) == 0
            }
            (IpAddr::V6(ours), IpAddr::V6(theirs)) => {
                let differing = ours.to_bits() ^ theirs.to_bits();
                differing.checked_shr(128 - u32::from(self.bits)).unwrap_or(0) == 0
            }
            _ => false,
        }
    }
}

impl FromStr for Network {
    type Err = String;

    fn from_str(text: &str) -> Result<Network, String> {
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address, Some(bits)),
            None => (text, None),
        };
        let wrong = || format!("'{text}' is neither an address nor a network such as 10.0.0.0/8");
        let address: IpAddr = address.parse().map_err(|_| wrong())?;
        let whole = if address.is_ipv4() { 32 } else { 128 };
        let bits = match bits {
            None => whole,
            Some(bits) => bits.parse().ok().filter(|bits| *bits <= whole).ok_or_else(wrong)?,
        };
        Ok(Network { address, bits })
    }
}

impl FromStr for TrustedProxies {
    type Err = String;

    fn from_str(text: &str) -> Result<TrustedProxies, String> {
        let parts = text.split([';', ',']).map(str::trim).filter(|part| !part.is_empty());
        parts.map(str::parse).collect::<Result<_, _>>().map(TrustedProxies)
    }
}

impl fmt::Display for TrustedProxies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, network) in self.0.iter().enumerate() {
            let whole = if network.address.is_ipv4() { 32 } else { 128 };
            f.write_str(if at > 0 { ";" } else { "" })?;
            write!(f, "{}", network.address)?;
            if network.bits < whole {
                write!(f, "/{}", network.bits)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_and_networks_are_trusted_and_nobody_else() {
        let trusted: TrustedProxies = "10.0.0.7; 192.168.0.0/16,fd00::/8;".parse().unwrap();
        let trusts = |sender: &str| trusted.trusts(sender.parse().unwrap());
        for good in ["10.0.0.7", "::ffff:10.0.0.7", "192.168.0.0", "192.168.255.255", "fd12:3456::1"] {
            assert!(trusts(good), "{good}");
        }
        for bad in ["10.0.0.6", "192.169.0.0", "192.167.255.255", "fe80::1", "::1", "127.0.0.1"] {
            assert!(!trusts(bad), "{bad}");
        }
        assert_eq!(trusted.to_string(), "10.0.0.7;192.168.0.0/16;fd00::/8");
        assert_eq!(trusted.to_string().parse(), Ok(trusted));
        assert!(!TrustedProxies::default().trusts(IpAddr::from([127, 0, 0, 1])));
        let all: TrustedProxies = "0.0.0.0/0;::/0".parse().unwrap();
        assert!(all.trusts(IpAddr::from([1, 2, 3, 4])) && all.trusts("::1".parse().unwrap()));
    }

    #[test]
    fn what_is_no_address_is_refused_by_name() {
        for bad in ["proxy.example", "10.0.0.0/33", "10.0.0.0/-1", "10.0.0.0/", "::/129", "10.0.0", "/8"] {
            let error = bad.parse::<TrustedProxies>().unwrap_err();
            assert!(error.contains(bad), "{error}");
        }
    }
}
