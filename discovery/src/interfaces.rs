//! Which network interfaces take part in multicast discovery.

/// Chooses interfaces by name. Names may end in `*`: `eth*`.
///
/// The default takes every interface that is up, except loopback and point-to-point ones (the
/// far end of a tunnel is reached through unicast DNS-SD or a seed).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Interfaces {
    /// Only these. Empty means all. Loopback takes part only when it is named here.
    pub only: Vec<String>,
    /// None of these, even if they are in `only`.
    pub except: Vec<String>,
}

impl Interfaces {
    /// Whether the interface called `name` takes part.
    pub fn allows(&self, name: &str, loopback: bool) -> bool {
        let named = |patterns: &[String]| patterns.iter().any(|pattern| matches(pattern, name));
        if named(&self.except) {
            return false;
        }
        if self.only.is_empty() { !loopback } else { named(&self.only) }
    }
}

fn matches(pattern: &str, name: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(prefix) => name.starts_with(prefix),
        None => pattern == name,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_prefixes_choose() {
        let all = Interfaces::default();
        assert!(all.allows("eth0", false) && !all.allows("lo", true));
        let some = Interfaces {
            only: vec!["eth*".into(), "lo".into()],
            except: vec!["eth1".into(), "ethx*".into()],
        };
        assert!(some.allows("eth0", false) && some.allows("lo", true));
        assert!(!some.allows("eth1", false) && !some.allows("ethx7", false));
        assert!(!some.allows("wlan0", false) && !some.allows("et", false));
    }
}
