//! The keys that a job may have: one that it holds alone, and one of whose jobs only so many run at once. Decides what such a key may be.

use std::str::FromStr;

/// The longest key, in bytes.
pub const KEY_BYTES_MAX: usize = 256;

/// A unique key: from 1 to [`KEY_BYTES_MAX`] bytes, none of them NUL, which PostgreSQL does not store.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UniqueKey(String);

/// A concurrency key: of the jobs of a queue that have the same one, no more run at once than the queue says. From 1 to
/// [`KEY_BYTES_MAX`] bytes, none of them NUL.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConcurrencyKey(String);

impl UniqueKey {
    /// The key as it is written.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl ConcurrencyKey {
    /// The key as it is written.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for UniqueKey {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        checked(text, "unique key").map(Self)
    }
}

impl FromStr for ConcurrencyKey {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        checked(text, "concurrency key").map(Self)
    }
}

/// The text, if it can be such a key.
fn checked(text: &str, what: &'static str) -> Result<String, KeyError> {
    match text.len() {
        0 => Err(KeyError::Empty { what }),
        1..=KEY_BYTES_MAX if text.contains('\0') => Err(KeyError::Nul { what }),
        1..=KEY_BYTES_MAX => Ok(text.to_owned()),
        bytes => Err(KeyError::TooLong { what, bytes }),
    }
}

/// Why a text cannot be a key; `what` says which.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// There is nothing in it.
    #[error("a {what} is not empty; leave it out where any number of jobs may be")]
    Empty {
        /// Which key.
        what: &'static str,
    },
    /// It is over [`KEY_BYTES_MAX`] bytes.
    #[error("this {what} has {bytes} bytes, of at most {KEY_BYTES_MAX}; a hash of it would do")]
    TooLong {
        /// Which key.
        what: &'static str,
        /// How long it is.
        bytes: usize,
    },
    /// A character of it cannot be stored.
    #[error("a {what} has no NUL character")]
    Nul {
        /// Which key.
        what: &'static str,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_has_1_to_256_bytes() {
        let key = |text: &str| text.parse::<ConcurrencyKey>().map_err(|error| error.to_string());
        assert_eq!(key("customer 7").unwrap().as_str(), "customer 7");
        assert!(key(&"k".repeat(KEY_BYTES_MAX)).is_ok());
        assert_eq!(
            key(&"é".repeat(129)).unwrap_err(),
            "this concurrency key has 258 bytes, of at most 256; a hash of it would do"
        );
        assert_eq!(key("a\0b").unwrap_err(), "a concurrency key has no NUL character");
        let error = "".parse::<UniqueKey>().unwrap_err().to_string();
        assert_eq!(
            error,
            "a unique key is not empty; leave it out where any number of jobs may be"
        );
    }
}
