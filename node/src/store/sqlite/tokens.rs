//! Tokens: a row for each that opens.

use super::{SqliteStore, Trouble};
use crate::sabotage::Sabotage;
use crate::store::StoreError;
use crate::store::tokens::{Columns, MOST, TokenMade, TokenView, Tokens, views};
use crate::token::{Role, TokenHash};

impl<B: Sabotage> Tokens for SqliteStore<B> {
    async fn make_token(
        &self,
        name: &str,
        role: Role,
        hash: TokenHash,
    ) -> Result<TokenMade, StoreError> {
        let mut connection = self.begin().await?;
        let made = async {
            let others: i64 =
                sqlx::query_scalar("SELECT count(*) FROM turnwise_tokens WHERE name <> ?")
                    .bind(name)
                    .fetch_one(&mut *connection)
                    .await?;
            if others >= MOST {
                return Ok(TokenMade::TooMany);
            }
            let done = sqlx::query(
                "INSERT INTO turnwise_tokens (name, role, hash, created_at) VALUES (?1, ?2, ?3, ?4)
                 ON CONFLICT (name) DO NOTHING",
            )
            .bind(name)
            .bind(role.as_str())
            .bind(hash.to_string())
            .bind(self.now().as_micros())
            .execute(&mut *connection)
            .await?;
            Ok(if done.rows_affected() > 0 { TokenMade::Made } else { TokenMade::NameTaken })
        };
        let made: Result<TokenMade, Trouble> = made.await;
        self.settle(connection, made).await
    }

    async fn tokens(&self) -> Result<Vec<TokenView>, StoreError> {
        let mut connection = self.connection().await?;
        let found: Result<Vec<Columns>, sqlx::Error> = sqlx::query_as(
            "SELECT name, role, hash, created_at FROM turnwise_tokens ORDER BY name LIMIT ?",
        )
        .bind(MOST)
        .fetch_all(&mut *connection)
        .await;
        connection.give_back();
        let found = found.map_err(Trouble::from).and_then(|found| views(found.into_iter().map(Ok)));
        found.map_err(|trouble| self.trouble(trouble))
    }

    async fn revoke_token(&self, name: &str) -> Result<bool, StoreError> {
        let mut connection = self.begin().await?;
        let done = sqlx::query("DELETE FROM turnwise_tokens WHERE name = ?")
            .bind(name)
            .execute(&mut *connection)
            .await
            .map_err(Trouble::from);
        Ok(self.settle(connection, done).await?.rows_affected() > 0)
    }
}
