//! Tokens: a row for each that opens.

use sqlx::FromRow;

use super::PgStore;
use super::statement::Statement;
use crate::store::StoreError;
use crate::store::tokens::{Columns, MOST, TokenMade, TokenView, Tokens, views};
use crate::token::{Role, TokenHash};

impl Tokens for PgStore {
    async fn make_token(
        &self,
        name: &str,
        role: Role,
        hash: TokenHash,
    ) -> Result<TokenMade, StoreError> {
        // Two who make one at the same moment may both find room: there is one more then, and no harm done.
        let others = Statement::of("SELECT count(*) FROM turnwise.tokens WHERE name <> $1");
        let (others,): (i64,) = self.ask_for_one(others.bind(name.to_owned())).await?;
        if others >= MOST {
            return Ok(TokenMade::TooMany);
        }
        let statement = Statement::of(
            "INSERT INTO turnwise.tokens (name, role, hash, created_at) VALUES ($1, $2, $3, turnwise.clock())
             ON CONFLICT (name) DO NOTHING RETURNING name",
        );
        let statement = statement.bind(name.to_owned()).bind(role.as_str()).bind(hash.to_string());
        let is_made = !self.ask(statement).await?.is_empty();
        Ok(if is_made { TokenMade::Made } else { TokenMade::NameTaken })
    }

    async fn tokens(&self) -> Result<Vec<TokenView>, StoreError> {
        let statement = Statement::of(
            "SELECT t.name, t.role, t.hash, turnwise.micros(t.created_at) FROM turnwise.tokens t
             ORDER BY t.name COLLATE \"C\" LIMIT $1",
        );
        let found = self.ask(statement.bind(MOST)).await?;
        views(found.iter().map(Columns::from_row)).map_err(|trouble| self.trouble(trouble))
    }

    async fn revoke_token(&self, name: &str) -> Result<bool, StoreError> {
        let statement = Statement::of("DELETE FROM turnwise.tokens WHERE name = $1 RETURNING name");
        Ok(!self.ask(statement.bind(name.to_owned())).await?.is_empty())
    }
}
