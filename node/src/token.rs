//! What a token is: who shows one may call a node's API as far as its role goes. Decides how a token looks, and what of it is
//! kept: its hash alone.

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Serialize;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::audit::Actor;

/// What every token begins with, so that one that was published by mistake is recognised.
pub const PREFIX: &str = "tw_";
/// The longest name of a token, in bytes.
pub const TOKEN_NAME_BYTES_MAX: usize = 100;
/// So many tokens there may be: each is compared with what a caller shows.
pub const TOKENS_MAX: usize = 100;

/// What who shows a token may do. Each includes the former.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// See everything.
    Read,
    /// Enqueue jobs.
    Enqueue,
    /// Do whatever can be done.
    Operate,
}

impl Role {
    /// Every role, the least first.
    pub const ALL: [Self; 3] = [Self::Read, Self::Enqueue, Self::Operate];

    /// The word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Enqueue => "enqueue",
            Self::Operate => "operate",
        }
    }
}

impl FromStr for Role {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let role = Self::ALL.into_iter().find(|role| role.as_str() == text);
        role.ok_or_else(|| {
            format!("there is no role {text:?}; there are read, enqueue and operate")
        })
    }
}

/// SHA-256 of a token. A token has 256 bits of chance: no salt is needed, and no slow hash.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct TokenHash([u8; 32]);

impl TokenHash {
    /// The hash of what somebody shows.
    pub fn of(token: &str) -> Self {
        Self(Sha256::digest(token.as_bytes()).into())
    }

    /// Whether it is the same, told in a time that does not tell where the two differ.
    pub fn is_same(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl fmt::Display for TokenHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for TokenHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenHash")
    }
}

impl FromStr for TokenHash {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, &'static str> {
        let wrong = "a hash has 64 hexadecimal digits";
        let mut bytes = [0; 32];
        if text.len() != 2 * bytes.len() || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(wrong);
        }
        for (byte, place) in bytes.iter_mut().zip((0..).step_by(2)) {
            *byte = u8::from_str_radix(&text[place..place + 2], 16).map_err(|_| wrong)?;
        }
        Ok(Self(bytes))
    }
}

/// A new token: 256 bits of the system's chance. It is shown once, and kept nowhere.
///
/// # Errors
///
/// The system gives no chance.
pub fn generate() -> Result<String, getrandom::Error> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes)?;
    Ok(format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(bytes)))
}

/// The name of a token, or what is wrong with it.
pub(crate) fn parse_name(text: &str) -> Result<String, String> {
    if text.is_empty() || text.len() > TOKEN_NAME_BYTES_MAX {
        return Err(format!("a token’s name has from 1 to {TOKEN_NAME_BYTES_MAX} bytes"));
    }
    if text.chars().any(char::is_control) {
        return Err("a token’s name has no control characters".to_owned());
    }
    if Actor::is_taken(text) {
        return Err(format!(
            "a token cannot be called {text:?}: in the audit that stands for somebody else; choose another name"
        ));
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_recognised_and_no_two_are_the_same() {
        let (one, other) = (generate().unwrap(), generate().unwrap());
        assert!(one.starts_with("tw_") && one.len() == 46, "{one}");
        assert_ne!(one, other);
        assert!(TokenHash::of(&one).is_same(&TokenHash::of(&one)));
        assert!(!TokenHash::of(&one).is_same(&TokenHash::of(&other)));
    }

    #[test]
    fn a_hash_is_that_of_the_standard_and_is_read_as_it_is_written() {
        // FIPS 180-4, the example of one block.
        let hash = TokenHash::of("abc");
        let text = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(hash.to_string(), text);
        assert!(text.parse::<TokenHash>().unwrap().is_same(&hash));
        for bad in [
            "",
            "ba78",
            &text.replace('b', "g"),
            &text.replace("ba", "ä"),
            &format!("+{}", &text[1..]),
        ] {
            assert!(bad.parse::<TokenHash>().is_err(), "{bad}");
        }
        assert_eq!(format!("{hash:?}"), "TokenHash", "it stands in no log");
    }

    #[test]
    fn each_role_includes_the_former() {
        assert!(Role::Read < Role::Enqueue && Role::Enqueue < Role::Operate);
        for role in Role::ALL {
            assert_eq!(role.as_str().parse(), Ok(role));
        }
        assert!("admin".parse::<Role>().is_err());
    }
}
