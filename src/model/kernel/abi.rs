//! The identity of a kernel: the SHA-256 digest of its image file.

use crate::model::text::cut::short_id;
use serde::{Serialize, Serializer};
use std::fmt;

/// The number of hex digits.
pub(crate) const LEN: usize = 64;

/// 64 lowercase hex digits. A value proves the form only, not that such a kernel exists.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Abi(Box<str>);

impl Abi {
    /// `None` if the text has another form.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let is_lower_hex = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        (text.len() == LEN && text.bytes().all(is_lower_hex)).then(|| Self(text.into()))
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    /// The first 12 digits, for tables.
    pub(crate) fn short(&self) -> &str {
        short_id(&self.0)
    }
}

impl fmt::Display for Abi {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl fmt::Debug for Abi {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.short())
    }
}

impl Serialize for Abi {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_64_lowercase_hex_digits_are_an_abi() {
        let good = "0123456789abcdef".repeat(4);
        assert_eq!(Abi::parse(&good).unwrap().as_str(), good);
        let (short, long) = (good.get(1..).unwrap(), format!("{good}0"));
        let (upper, blank) = (good.to_uppercase(), format!(" {short}"));
        let (line, wide) = (format!("{short}\n"), "é".repeat(32));
        let (other, signed) = (format!("{short}g"), format!("+{short}"));
        let prefixed = format!("sha256:{good}");
        for bad in ["", short, &long, &upper, &blank, &line, &wide, &other, &signed, &prefixed] {
            assert_eq!(Abi::parse(bad), None, "{bad:?}");
        }
    }
}
