//! Decides which ids the jobs of a request have that names a key (`Idempotency-Key`), so that a repetition of it enqueues
//! nothing new: an id follows from the key and from the job's place in the request, and from nothing else.

use axum::http::{HeaderMap, HeaderName};
use sha2::{Digest, Sha256};
use uuid::{Builder, Uuid};

use super::problem::{Kind, Problem};
use crate::batch::BatchId;
use crate::job::JobId;

/// The header, in lower case.
pub(super) const HEADER: HeaderName = HeaderName::from_static("idempotency-key");
/// The longest key, in bytes.
pub(super) const KEY_BYTES_MAX: usize = 255;
/// What is hashed before a key, so that no other use of a hash comes to the same ids.
const SALT: &[u8] = b"turnwise idempotency key\0";

/// The key of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Key(String);

impl Key {
    /// The key that the headers name; none: they name none. One in quotes, as the draft of the header has it, is what stands
    /// between them.
    pub(super) fn of(headers: &HeaderMap) -> Result<Option<Self>, Problem> {
        let mut given = headers.get_all(HEADER).iter();
        let Some(value) = given.next() else { return Ok(None) };
        let wrong = |reason: String| Problem::fault(Kind::BadRequest, HEADER.as_str(), reason);
        if given.next().is_some() {
            return Err(wrong("it is given twice; a request has one key".to_owned()));
        }
        let text = value.to_str().unwrap_or_default().trim();
        let quoted = text.strip_prefix('"').and_then(|text| text.strip_suffix('"'));
        let text = quoted.unwrap_or(text);
        let is_readable = text.bytes().all(|byte| (b' '..=b'~').contains(&byte) && byte != b'"');
        match text.len() {
            1..=KEY_BYTES_MAX if is_readable => Ok(Some(Self(text.to_owned()))),
            _ => Err(wrong(format!(
                "a key has 1 to {KEY_BYTES_MAX} characters of ASCII that can be seen; a UUID would do"
            ))),
        }
    }

    /// The key of the jobs of a batch whose id whoever makes it has given, so that it can be made again.
    pub(crate) fn of_batch(batch: BatchId) -> Self {
        Self(batch.to_string())
    }

    /// The id of the job at this place, from 0: a UUID of version 8 (RFC 9562, section 5.8), 74 bits of it from a hash of key and
    /// place. Jobs are shown by their ids, newest first: where the key is a UUID of version 7, the id begins with its time; of
    /// any other key with zero, so that such jobs come after all that have a time.
    pub(crate) fn id(&self, place: usize) -> JobId {
        let mut hash = Sha256::new();
        hash.update(SALT);
        hash.update((self.0.len() as u64).to_be_bytes());
        hash.update(&self.0);
        hash.update((place as u64).to_be_bytes());
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&hash.finalize()[..16]);
        let time = match Uuid::try_parse(&self.0) {
            Ok(key) if key.get_version_num() == 7 => *key.as_bytes(),
            _ => [0; 16],
        };
        bytes[..6].copy_from_slice(&time[..6]);
        JobId(Builder::from_custom_bytes(bytes).into_uuid())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(value: &str) -> Result<Option<Key>, Problem> {
        let mut headers = HeaderMap::new();
        headers.insert(HEADER, value.parse().unwrap());
        Key::of(&headers)
    }

    #[test]
    fn the_ids_of_a_key_are_always_the_same() {
        let id = |text: &str, place| key(text).unwrap().unwrap().id(place).to_string();
        // Stored beside jobs by apps: another version of the program must come to the same.
        assert_eq!(id("order-7", 0), "00000000-0000-83f3-a750-7963ce93a86d");
        assert_eq!(id("order-7", 1), "00000000-0000-8b3d-88c0-81d4bce29e32");
        assert_eq!(
            id("01936c5e-7d1a-7cc3-98c4-dc0c0c07398f", 0),
            "01936c5e-7d1a-87d0-831b-8466f524e2b6"
        );
        assert_eq!(id("\"order-7\"", 0), id("order-7", 0));
        assert_ne!(id("order-7", 0), id("order-8", 0));
    }

    #[test]
    fn what_cannot_be_a_key_is_refused() {
        assert!(key(&"k".repeat(KEY_BYTES_MAX)).is_ok());
        for bad in ["", "\"\"", "a\"b", "a\tb", "k".repeat(KEY_BYTES_MAX + 1).as_str()] {
            assert!(key(bad).is_err(), "{bad}");
        }
        assert_eq!(Key::of(&HeaderMap::new()).unwrap(), None);
        let mut twice = HeaderMap::new();
        twice.append(HEADER, "a".parse().unwrap());
        twice.append(HEADER, "a".parse().unwrap());
        assert!(Key::of(&twice).is_err());
    }
}
