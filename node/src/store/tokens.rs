//! The tokens that callers of the API show, as the stores keep them. What a token opens is the door's to decide.

use std::future::Future;

use turnwise_engine::ServerInstant;

use super::errors::Trouble;
use super::{Store, StoreError};
use crate::token::{Role, TOKENS_MAX, TokenHash};

/// A token as people see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenView {
    /// Its name, for people.
    pub name: String,
    /// What it opens.
    pub role: Role,
    /// What is kept of it.
    pub hash: TokenHash,
    /// When it was made, by the server's clock.
    pub created_at: ServerInstant,
}

/// What became of making a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenMade {
    /// It opens from now on.
    Made,
    /// There is another of that name, and it is left as it is.
    NameTaken,
    /// There are [`TOKENS_MAX`] already.
    TooMany,
}

/// What people order of tokens.
pub trait Tokens: Store {
    /// Make a token whose hash is `hash`. Fails with [`StoreError::Failed`] when the name has no or more than
    /// [`TOKEN_NAME_BYTES_MAX`](crate::token::TOKEN_NAME_BYTES_MAX) bytes.
    fn make_token(
        &self,
        name: &str,
        role: Role,
        hash: TokenHash,
    ) -> impl Future<Output = Result<TokenMade, StoreError>> + Send;

    /// All tokens, by name, of more than [`TOKENS_MAX`] the first. One that cannot be read opens nothing, and is left out.
    fn tokens(&self) -> impl Future<Output = Result<Vec<TokenView>, StoreError>> + Send;

    /// Remove a token: it opens nothing any more. False when there is none of that name.
    fn revoke_token(&self, name: &str) -> impl Future<Output = Result<bool, StoreError>> + Send;
}

/// [`TOKENS_MAX`], for SQL.
pub(super) const MOST: i64 = TOKENS_MAX as i64;

/// The columns of a token: name, role, hash, and the instant in microseconds.
pub(super) type Columns = (String, String, String, i64);

pub(super) fn views(
    rows: impl IntoIterator<Item = Result<Columns, sqlx::Error>>,
) -> Result<Vec<TokenView>, Trouble> {
    let mut views = Vec::new();
    for row in rows {
        let (name, role, hash, created) = row?;
        match (role.parse(), hash.parse()) {
            (Ok(role), Ok(hash)) => {
                let created_at = ServerInstant::from_micros(created);
                views.push(TokenView { name, role, hash, created_at });
            }
            _ => {
                tracing::warn!(token = %name, "the row of this token cannot be read: it opens nothing");
            }
        }
    }
    Ok(views)
}
