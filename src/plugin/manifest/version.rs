//! Versions: three numbers.

use std::fmt;

use serde::{Serialize, Serializer};

/// `major.minor.patch`; what is left out is 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version([u32; 3]);

impl Version {
    /// Reads `1`, `1.2` or `1.2.3`.
    pub fn parse(text: &str) -> Option<Self> {
        let mut numbers = [0; 3];
        let parts: Vec<&str> = text.split('.').collect();
        if parts.len() > 3 {
            return None;
        }
        for (number, part) in numbers.iter_mut().zip(&parts) {
            *number = part
                .parse()
                .ok()
                .filter(|_| part.bytes().all(|byte| byte.is_ascii_digit()) && part.len() < 10)?;
        }
        Some(Self(numbers))
    }

    /// Of this rowbeat.
    pub fn of_rowbeat() -> Self {
        Self::parse(env!("CARGO_PKG_VERSION")).expect("the package's version is three numbers")
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [major, minor, patch] = self.0;
        write!(f, "{major}.{minor}.{patch}")
    }
}

impl Serialize for Version {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}
