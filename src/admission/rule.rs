//! The rules that a client may be refused by.

use std::fmt;

/// Why a client is not let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// `proxy_protocol.accept_from`: it is none of those who may connect.
    AcceptFrom,
    /// `[service.proxy_protocol]`: it has sent no header, or none that can be read.
    ProxyProtocol,
    /// `[service.access]`
    Access,
    /// `limits.max_connections`: it waits.
    MaxConnections,
    /// `limits.accept_rate`: it waits.
    AcceptRate,
    /// `limits.max_per_source`
    MaxPerSource,
    /// `limits.rate_per_source`
    RatePerSource,
}

impl Rule {
    /// All of them, each at its own number.
    pub const ALL: [Self; 7] = [
        Self::AcceptFrom,
        Self::ProxyProtocol,
        Self::Access,
        Self::MaxConnections,
        Self::AcceptRate,
        Self::MaxPerSource,
        Self::RatePerSource,
    ];

    /// Its name, as in the file.
    pub fn name(self) -> &'static str {
        match self {
            Self::AcceptFrom => "accept_from",
            Self::ProxyProtocol => "proxy_protocol",
            Self::Access => "access",
            Self::MaxConnections => "max_connections",
            Self::AcceptRate => "accept_rate",
            Self::MaxPerSource => "max_per_source",
            Self::RatePerSource => "rate_per_source",
        }
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_rule_is_at_its_own_number() {
        for (at, rule) in Rule::ALL.into_iter().enumerate() {
            assert_eq!(rule as usize, at);
        }
    }
}
