//! Jobs that go on after their call was answered, and how they are heard of. Decides who may say how an attempt goes on:
//! whoever holds its URL, which names the job and proves the claim.
//!
//! - here: the URL and its proof;
//! - `secret`: what the nodes of a database share for that, and when it is looked up again;
//! - `routes`: what is answered to those who call it.

mod routes;
mod secret;

use std::fmt;

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use turnwise_engine::{NodeId, Token};

pub use self::routes::routes;
pub use self::secret::Secret;
use crate::job::JobId;

/// The header that tells a target where it may say how its job goes on.
pub const HEADER: &str = "turnwise-callback";
/// Where the routes lie.
const PATH: &str = "/v1/callbacks";

/// Whether a path is one that is called back at.
pub(crate) fn is_of_callbacks(path: &str) -> bool {
    path.strip_prefix(PATH).is_some_and(|rest| rest.starts_with('/'))
}

/// What callbacks are made of in this process.
#[derive(Clone, Debug)]
pub struct Callbacks {
    /// What a URL begins with, without a slash at its end: the node's own API, or what leads to any node's.
    pub base: String,
    /// By which they are known.
    pub secret: Secret,
}

/// By which a callback's URL is made, and known again by any node of the same database.
///
/// The proof is HMAC-SHA256 (RFC 2104) under the secret over the ids of job and node and the claim's token, in hexadecimal. So it
/// opens one attempt alone, and need not be stored.
#[derive(Clone)]
pub struct Key(Hmac<Sha256>);

/// The secret is not shown.
impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(…)")
    }
}

impl Key {
    /// The key of a secret. None of a secret that is empty.
    pub fn of(secret: &str) -> Option<Self> {
        let key = Hmac::new_from_slice(secret.as_bytes()).ok()?;
        (!secret.is_empty()).then_some(Self(key))
    }

    /// The URL that leads to the attempt under this claim.
    pub fn url(&self, base: &str, job: JobId, claim: (NodeId, Token)) -> String {
        let proof = self.over(job, claim).finalize().into_bytes();
        let digits: String = proof.iter().map(|byte| format!("{byte:02x}")).collect();
        format!("{base}{PATH}/{job}/{digits}")
    }

    /// Whether `proof` is that of the attempt under this claim. It takes as long whatever is wrong with it.
    fn opens(&self, proof: &str, job: JobId, claim: (NodeId, Token)) -> bool {
        let pairs = proof.as_bytes().chunks(2);
        let byte = |pair: &[u8]| {
            let digit = |byte: &u8| char::from(*byte).to_digit(16);
            let [high, low] = pair else { return None };
            u8::try_from(digit(high)? * 16 + digit(low)?).ok()
        };
        let Some(bytes) = pairs.map(byte).collect::<Option<Vec<u8>>>() else { return false };
        self.over(job, claim).verify_slice(&bytes).is_ok()
    }

    fn over(&self, job: JobId, (node, token): (NodeId, Token)) -> Hmac<Sha256> {
        let mut mac = self.0.clone();
        mac.update(format!("{job}.{node}.{}", token.0).as_bytes());
        mac
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    #[test]
    fn a_proof_opens_one_attempt_alone() {
        let (job, other) = (JobId(Uuid::from_u128(1)), JobId(Uuid::from_u128(2)));
        let (node, token) = (NodeId::new(Uuid::from_u128(3)), Token(4));
        let key = Key::of("secret").unwrap();
        let url = key.url("http://127.0.0.1:7171", job, (node, token));
        let (head, proof) = url.rsplit_once('/').unwrap();
        assert_eq!(head, format!("http://127.0.0.1:7171/v1/callbacks/{job}"));
        assert_eq!(proof.len(), 64);
        assert!(key.opens(proof, job, (node, token)));
        assert!(!key.opens(proof, other, (node, token)));
        assert!(!key.opens(proof, job, (NodeId::new(Uuid::from_u128(5)), token)));
        assert!(!key.opens(proof, job, (node, Token(5))));
        assert!(!Key::of("another").unwrap().opens(proof, job, (node, token)));
        for wrong in ["", "0", "zz", &proof[..62], &format!("{proof}00"), "é"] {
            assert!(!key.opens(wrong, job, (node, token)), "{wrong}");
        }
    }

    #[test]
    fn an_empty_secret_makes_no_key_and_none_is_shown() {
        assert!(Key::of("").is_none());
        assert!(!format!("{:?}", Key::of("geheim")).contains("geheim"));
        let secret = Secret::offering("geheim".to_owned());
        let callbacks = Callbacks { base: "http://b".to_owned(), secret };
        assert!(!format!("{callbacks:?}").contains("geheim"));
    }
}
