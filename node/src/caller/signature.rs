//! Decides how a call is signed, by Standard Webhooks, and what a key to sign with looks like. From where a node has its
//! keys is the configuration's to say.

use std::fmt;
use std::str::FromStr;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use http::{HeaderName, HeaderValue};
use sha2::Sha256;

use super::request::{ID, TIMESTAMP};
use super::{Call, Rejection};

/// What a key's text begins with.
const PREFIX: &str = "whsec_";
/// The shortest key, in bytes (Standard Webhooks 1.0.0, "Signature scheme": 192 bits).
pub const KEY_BYTES_MIN: usize = 24;
/// The longest key, in bytes (the same: 512 bits).
pub const KEY_BYTES_MAX: usize = 64;
/// The most keys of a node. Two are needed while one takes the place of another.
pub const KEYS_MAX: usize = 8;

const SIGNATURE: HeaderName = HeaderName::from_static("webhook-signature");

/// What says which scheme a signature is of: HMAC-SHA256.
const SCHEME: &str = "v1,";
/// A signature with its scheme, in base64, and the space before the next one, in bytes.
const SIGNATURE_BYTES: usize = SCHEME.len() + 44 + 1;

/// A key to sign calls with. It is never shown: only whoever wrote it down can tell it.
#[derive(Clone)]
pub struct SigningKey {
    /// The state after the key: what each signature begins with, computed once.
    keyed: Hmac<Sha256>,
}

/// Why a text is no key. The text is not repeated: it may be nearly the right one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "this is no key to sign with: {reason}; a key is {PREFIX} and then the base64 of {KEY_BYTES_MIN} to {KEY_BYTES_MAX} random bytes, \
     make one with `turnwise config new-signing-key`"
)]
pub struct SigningKeyError {
    reason: Reason,
}

/// What is wrong with a key's text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
enum Reason {
    #[error("it does not begin with {PREFIX}")]
    Prefix,
    #[error("what follows {PREFIX} is not base64 (with its padding)")]
    Base64,
    #[error("it has {0} bytes")]
    Bytes(usize),
}

impl SigningKey {
    /// A new key as its text, made of `random` bytes that nobody can guess.
    pub fn text_of(random: &[u8; 32]) -> String {
        format!("{PREFIX}{}", STANDARD.encode(random))
    }

    /// The HMAC (RFC 2104) of what Standard Webhooks signs: id, timestamp and body, with full stops in between.
    fn signature(&self, id: &[u8], timestamp: &[u8], body: &[u8]) -> impl AsRef<[u8]> + Eq {
        let mut hmac = self.keyed.clone();
        for part in [id, b".", timestamp, b".", body] {
            hmac.update(part);
        }
        hmac.finalize().into_bytes()
    }
}

impl FromStr for SigningKey {
    type Err = SigningKeyError;

    fn from_str(text: &str) -> Result<Self, SigningKeyError> {
        let wrong = |reason| SigningKeyError { reason };
        let encoded = text.strip_prefix(PREFIX).ok_or(wrong(Reason::Prefix))?;
        let key = STANDARD.decode(encoded).map_err(|_| wrong(Reason::Base64))?;
        if !(KEY_BYTES_MIN..=KEY_BYTES_MAX).contains(&key.len()) {
            return Err(wrong(Reason::Bytes(key.len())));
        }
        let keyed = Hmac::new_from_slice(&key).map_err(|_| wrong(Reason::Bytes(key.len())))?;
        Ok(Self { keyed })
    }
}

/// Two keys are the same if they sign the same.
impl PartialEq for SigningKey {
    fn eq(&self, other: &Self) -> bool {
        self.signature(b"", b"", b"") == other.signature(b"", b"", b"")
    }
}

impl Eq for SigningKey {}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SigningKey(…)")
    }
}

/// The keys of a node, at most [`KEYS_MAX`], the current one first; none: its calls are not signed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SigningKeys(Vec<SigningKey>);

impl SigningKeys {
    /// These keys, each once, in this order.
    ///
    /// # Errors
    ///
    /// How many there are, if they are more than [`KEYS_MAX`].
    pub fn new(keys: impl IntoIterator<Item = SigningKey>) -> Result<Self, usize> {
        let mut each = Vec::new();
        for key in keys {
            if !each.contains(&key) {
                each.push(key);
            }
        }
        if each.len() > KEYS_MAX { Err(each.len()) } else { Ok(Self(each)) }
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// `call` with the header `webhook-signature`: one signature for each key, over the id and the timestamp that it carries
    /// and exactly the body that is sent. Without keys the call stays as it is.
    ///
    /// # Errors
    ///
    /// The call has no id or no timestamp to be signed.
    pub fn sign(&self, mut call: Call) -> Result<Call, Rejection> {
        if self.0.is_empty() {
            return Ok(call);
        }
        let unsigned = || Rejection::Header(SIGNATURE.to_string());
        let signed = |name: HeaderName| {
            call.headers.get(name).map(HeaderValue::as_bytes).ok_or_else(unsigned)
        };
        let (id, timestamp) = (signed(ID)?, signed(TIMESTAMP)?);
        let mut value = String::with_capacity(SIGNATURE_BYTES * self.0.len());
        for key in &self.0 {
            if !value.is_empty() {
                value.push(' ');
            }
            value.push_str(SCHEME);
            STANDARD.encode_string(key.signature(id, timestamp, &call.body), &mut value);
        }
        let value = HeaderValue::try_from(value).map_err(|_| unsigned())?;
        call.headers.insert(SIGNATURE, value);
        Ok(call)
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http::{HeaderMap, Method};
    use url::Url;

    use super::*;

    /// The key of the specification's own libraries' tests, and another one.
    const KEY: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    const OTHER: &str = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

    fn call(id: &str, timestamp: &str, body: &[u8]) -> Call {
        let mut headers = HeaderMap::new();
        headers.insert("webhook-id", id.parse().unwrap());
        headers.insert("webhook-timestamp", timestamp.parse().unwrap());
        Call {
            method: Method::POST,
            url: Url::parse("http://app/x").unwrap(),
            own_target: true,
            h2c: false,
            headers,
            body: Bytes::copy_from_slice(body),
            deadline: std::time::Duration::from_secs(1),
        }
    }

    fn keys(texts: &[&str]) -> SigningKeys {
        SigningKeys::new(texts.iter().map(|text| text.parse().unwrap())).unwrap()
    }

    fn signature(keys: &SigningKeys, call: Call) -> String {
        let signed = keys.sign(call).unwrap();
        signed.headers["webhook-signature"].to_str().unwrap().to_owned()
    }

    #[test]
    fn a_signature_is_the_one_that_the_specifications_libraries_expect() {
        // The pair that the libraries of the specification test themselves by.
        let call = call("msg_p5jXN8AQM9LWM0D4loKWxJek", "1614265330", br#"{"test": 2432232314}"#);
        assert_eq!(
            signature(&keys(&[KEY]), call),
            "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
        );
    }

    #[test]
    fn without_keys_nothing_is_signed() {
        let call = call("a", "1", b"x");
        assert_eq!(SigningKeys::default().sign(call.clone()).unwrap(), call);
    }

    #[test]
    fn what_has_no_id_is_not_signed() {
        let mut call = call("a", "1", b"x");
        call.headers.remove("webhook-id");
        assert!(keys(&[KEY]).sign(call).is_err());
    }

    #[test]
    fn while_keys_change_each_signs_and_the_current_one_first() {
        let each = [OTHER, KEY].map(|key| signature(&keys(&[key]), call("a", "1", b"body")));
        assert_ne!(each[0], each[1]);
        let both = signature(&keys(&[OTHER, KEY]), call("a", "1", b"body"));
        assert_eq!(both, each.join(" "));
    }

    #[test]
    fn a_key_that_is_none_is_told_what_is_wrong_and_is_not_repeated() {
        let of = |bytes: usize| format!("{PREFIX}{}", STANDARD.encode(vec![7; bytes]));
        for good in [of(24), of(32), of(64), SigningKey::text_of(&[1; 32])] {
            assert!(good.parse::<SigningKey>().is_ok(), "{good}");
        }
        let bad = [
            ("", "does not begin with whsec_"),
            ("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "does not begin with whsec_"),
            ("WHSEC_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "does not begin with whsec_"),
            ("whsk_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "does not begin with whsec_"),
            ("whsec_", "it has 0 bytes"),
            ("whsec_MfKQ9r8G KYqrTwjUPD8ILPZIo2LaLaSw", "is not base64"),
            ("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLa-_", "is not base64"),
            // Padding that is missing: what verifies in other languages needs it.
            ("whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8", "is not base64"),
            (&of(23), "it has 23 bytes"),
            (&of(65), "it has 65 bytes"),
        ];
        for (text, reason) in bad {
            let error = text.parse::<SigningKey>().unwrap_err().to_string();
            assert!(error.contains(reason), "{text:?}: {error}");
            assert!(error.contains("turnwise config new-signing-key"), "{error}");
            let secret = text.trim_start_matches(PREFIX);
            assert!(secret.is_empty() || !error.contains(secret), "{error}");
        }
    }

    #[test]
    fn keys_are_counted_once_each_and_not_shown() {
        assert_eq!(keys(&[KEY, OTHER, KEY]).count(), 2);
        let key = |byte: u8| SigningKey::text_of(&[byte; 32]).parse::<SigningKey>().unwrap();
        assert_eq!(SigningKeys::new((0..8).map(key)).unwrap().count(), KEYS_MAX);
        assert_eq!(SigningKeys::new((0..9).map(key)), Err(9));
        assert_eq!(format!("{:?}", keys(&[KEY])), "SigningKeys([SigningKey(…)])");
    }
}
