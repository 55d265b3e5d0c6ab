//! Decides what is answered to those who say how a job goes on, and what their words mean for it. The URL is all that they need:
//! no token is asked for, and none helps.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use rand_core::Rng;
use rand_pcg::Pcg64Mcg;
use serde::Deserialize;
use turnwise_engine::{NodeId, Token};
use uuid::Uuid;

use super::{PATH, Secret};
use crate::caller::answer::{called_back, no_retry, retry_after};
use crate::job::{ANSWER_BYTES_KEPT_MAX, JobFate, JobId, PROGRESS_NOTE_BYTES_MAX, Progress};
use crate::store::{AnyStore, Callbacks, LastAttempt, StoreError, Word, settle_all};

/// The longest reason of a failure that is taken, in bytes.
const REASON_BYTES_MAX: usize = 4 * 1024;
/// A proof that is not known makes the node look up the secret again, if it has not done so for this long.
const LOOK_UP_AGAIN: Duration = Duration::from_secs(3);
/// How long whoever calls waits for the database.
const TIMEOUT: Duration = Duration::from_secs(10);

struct Desk {
    store: AnyStore,
    secret: Secret,
}

/// What is answered under `/v1/callbacks`, over this database, to who is known by this secret.
pub fn routes(store: AnyStore, secret: Secret) -> Router {
    let desk = Arc::new(Desk { store, secret });
    Router::new()
        .route(&format!("{PATH}/{{job}}/{{proof}}/success"), post(success))
        .route(&format!("{PATH}/{{job}}/{{proof}}/failure"), post(failure))
        .route(&format!("{PATH}/{{job}}/{{proof}}/heartbeat"), post(heartbeat))
        // Whoever sends more is told so by what serves it, or here.
        .layer(DefaultBodyLimit::disable())
        .with_state(desk)
}

/// Why a word is not taken.
enum Refusal {
    /// There is no such attempt, or the proof is not its.
    Unknown,
    /// It does not go on any more.
    Over { state: String },
    /// What was sent is too long.
    TooLong(String),
    /// What was sent cannot be read.
    Unreadable(String),
    /// The database did not take it.
    Away(String),
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let (status, say) = match self {
            Self::Unknown => (
                StatusCode::NOT_FOUND,
                "no attempt has this URL; use the one in the header Turnwise-Callback as it came"
                    .to_owned(),
            ),
            Self::Over { state } => (
                StatusCode::GONE,
                format!(
                    "this attempt does not go on any more: its job is {state}; stop working on it"
                ),
            ),
            Self::TooLong(reason) => (StatusCode::PAYLOAD_TOO_LARGE, reason),
            Self::Unreadable(reason) => (StatusCode::BAD_REQUEST, reason),
            Self::Away(reason) => {
                (StatusCode::SERVICE_UNAVAILABLE, format!("{reason}; say it again later"))
            }
        };
        (status, format!("{say}\n")).into_response()
    }
}

impl From<StoreError> for Refusal {
    fn from(error: StoreError) -> Self {
        tracing::warn!("a callback was not taken: {error}");
        // The database's address is nobody's business there.
        Self::Away("the database did not take it".to_owned())
    }
}

type Answer = Result<StatusCode, Refusal>;

async fn success(
    State(desk): State<Arc<Desk>>,
    Path((job, proof)): Path<(String, String)>,
    body: Bytes,
) -> Answer {
    if body.len() > ANSWER_BYTES_KEPT_MAX {
        return Err(Refusal::TooLong(format!(
            "the result has {} bytes, of at most {ANSWER_BYTES_KEPT_MAX}; store it elsewhere and send where it is",
            body.len()
        )));
    }
    desk.take(&job, &proof, |_| {
        let answer = Some(body.to_vec()).filter(|answer| !answer.is_empty());
        Ok(Word::Ended { fate: JobFate::Succeeded, error: None, answer })
    })
    .await
}

#[expect(
    clippy::disallowed_methods,
    reason = "a Retry-After that names an instant is of the wall clock"
)]
async fn failure(
    State(desk): State<Arc<Desk>>,
    Path((job, proof)): Path<(String, String)>,
    headers: HeaderMap,
    body: Bytes,
) -> Answer {
    if body.len() > REASON_BYTES_MAX {
        return Err(Refusal::TooLong(format!(
            "the reason has {} bytes, of at most {REASON_BYTES_MAX}; send the beginning of it",
            body.len()
        )));
    }
    let reason = String::from_utf8_lossy(&body).trim().to_owned();
    let reason = match reason.is_empty() {
        true => "the target called back that it failed".to_owned(),
        false => format!("the target called back that it failed: {reason}"),
    };
    let asked = retry_after(&headers, SystemTime::now());
    desk.take(&job, &proof, |attempt| {
        let random = jitter();
        let verdict = called_back(&attempt.job, Some(reason), no_retry(&headers), asked, random);
        let (fate, error) = verdict;
        Ok(Word::Ended { fate, error, answer: None })
    })
    .await
}

/// What a heartbeat may say.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Beat {
    percent: Option<f64>,
    note: Option<String>,
}

async fn heartbeat(
    State(desk): State<Arc<Desk>>,
    Path((job, proof)): Path<(String, String)>,
    body: Bytes,
) -> Answer {
    let progress = progress(&body).map_err(Refusal::Unreadable)?;
    desk.take(&job, &proof, |attempt| {
        let deadline = Duration::from_millis(u64::try_from(attempt.job.deadline_ms).unwrap_or(0));
        let within = attempt.job.particulars.heartbeat().unwrap_or(deadline);
        Ok(Word::Alive { within, progress })
    })
    .await
}

fn progress(body: &[u8]) -> Result<Progress, String> {
    if body.trim_ascii().is_empty() {
        return Ok(Progress::default());
    }
    let form = r#"write it as {"percent": 40, "note": "sending"}, or send nothing"#;
    let beat: Beat = serde_json::from_slice(body)
        .map_err(|error| format!("the progress cannot be read: {error}; {form}"))?;
    let percent = match beat.percent {
        None => None,
        Some(percent) if (0.0..=100.0).contains(&percent) => Some(percent as u8),
        Some(percent) => return Err(format!("percent is {percent}, not from 0 to 100; {form}")),
    };
    if let Some(note) = &beat.note
        && note.len() > PROGRESS_NOTE_BYTES_MAX
    {
        return Err(format!(
            "the note has {} bytes, of at most {PROGRESS_NOTE_BYTES_MAX}; send a shorter one",
            note.len()
        ));
    }
    Ok(Progress { percent, note: beat.note })
}

impl Desk {
    /// Take a word, if whoever says it may: what it is depends on the attempt.
    async fn take(
        &self,
        job: &str,
        proof: &str,
        word: impl FnOnce(&LastAttempt) -> Result<Word, Refusal>,
    ) -> Answer {
        let taking = async {
            let job: JobId = job.parse().map_err(|_| Refusal::Unknown)?;
            let attempt = self.store.last_attempt(job).await?.ok_or(Refusal::Unknown)?;
            let claim = (attempt.node, attempt.job.token);
            if !self.opens(proof, job, claim).await? {
                return Err(Refusal::Unknown);
            }
            let is_done = attempt.state == "succeeded";
            let word = word(&attempt)?;
            let is_success = matches!(word, Word::Ended { fate: JobFate::Succeeded, .. });
            if !attempt.goes_on && is_done && is_success {
                // Said again: the answer to the first time was lost.
                return Ok(StatusCode::NO_CONTENT);
            }
            if !attempt.goes_on {
                return Err(Refusal::Over { state: attempt.state });
            }
            match self.store.hear(job, claim, &word).await? {
                true => {
                    tracing::debug!(%job, ?word, "called back");
                    let batch = attempt.job.particulars.batch_id();
                    if let Some(batch) = batch.filter(|_| matches!(word, Word::Ended { .. })) {
                        // It may have ended with this; where this fails, a node looks later.
                        let looked = settle_all(&self.store, vec![batch]).await;
                        if let Err(error) = looked {
                            tracing::debug!(%batch, "a batch was not looked at: {error}");
                        }
                    }
                    Ok(StatusCode::NO_CONTENT)
                }
                false => {
                    let attempt = self.store.last_attempt(job).await?;
                    let state = attempt.map_or_else(|| "gone".to_owned(), |attempt| attempt.state);
                    Err(Refusal::Over { state })
                }
            }
        };
        match tokio::time::timeout(TIMEOUT, taking).await {
            Ok(answer) => answer,
            Err(_) => Err(Refusal::Away("the database did not answer in time".to_owned())),
        }
    }

    /// Whether `proof` is that of the attempt under this claim. Nodes that came after a failover may share another secret.
    async fn opens(
        &self,
        proof: &str,
        job: JobId,
        claim: (NodeId, Token),
    ) -> Result<bool, Refusal> {
        if self.secret.opens(proof, job, claim) {
            return Ok(true);
        }
        if !self.secret.was_looked_up_within(LOOK_UP_AGAIN) {
            self.secret.look_up(&self.store).await?;
        }
        match self.secret.is_known() {
            true => Ok(self.secret.opens(proof, job, claim)),
            false => Err(Refusal::Away("the secret of the database's nodes is empty".to_owned())),
        }
    }
}

/// Chance for the wait until the next attempt.
#[expect(
    clippy::disallowed_methods,
    reason = "two who failed together are not to come back together"
)]
fn jitter() -> u64 {
    let seed = Uuid::new_v4().as_u128();
    Pcg64Mcg::new(seed).next_u64()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_heartbeat_may_say_how_far_it_is() {
        let said = |text: &str| progress(text.as_bytes());
        assert_eq!(said(" \n"), Ok(Progress::default()));
        assert_eq!(said(r#"{"percent": 40.7}"#), Ok(Progress { percent: Some(40), note: None }));
        let both = Progress { percent: Some(100), note: Some("done".to_owned()) };
        assert_eq!(said(r#"{"percent": 100, "note": "done"}"#), Ok(both));
        let long = format!(r#"{{"note": "{}"}}"#, "x".repeat(1_025));
        for (text, word) in [
            ("40", "cannot be read"),
            ("{", "cannot be read"),
            (r#"{"per_cent": 4}"#, "per_cent"),
            (r#"{"percent": 101}"#, "101"),
            (r#"{"percent": -0.1}"#, "from 0 to 100"),
            (long.as_str(), "1025 bytes"),
        ] {
            let error = said(text).unwrap_err();
            assert!(error.contains(word), "{text}: {error}");
        }
    }
}
