//! Tokens: a row for each that opens.

use sqlx::FromRow;

use super::literals::{instant, text};
use super::{MySqlStore, micros_of};
use crate::store::StoreError;
use crate::store::tokens::{Columns, MOST, TokenMade, TokenView, Tokens, views};
use crate::token::{Role, TokenHash};

impl Tokens for MySqlStore {
    async fn make_token(
        &self,
        name: &str,
        role: Role,
        hash: TokenHash,
    ) -> Result<TokenMade, StoreError> {
        let name = text(name);
        // Two who make one at the same moment may both find room: there is one more then, and no harm done.
        let read = format!(
            "SELECT (SELECT count(*) FROM turnwise_tokens WHERE name <> {name}),
                (SELECT count(*) FROM turnwise_tokens WHERE name = {name}), {}",
            self.now()
        );
        let (session, found) = self.begin(self.session().await?, &read).await?;
        let row = self.one(&found)?;
        let (others, same): (i64, i64) = (self.column(row, 0)?, self.column(row, 1)?);
        let now: i64 = self.column(row, 2)?;
        let made = match (others, same) {
            (MOST.., _) => TokenMade::TooMany,
            (_, 1..) => TokenMade::NameTaken,
            _ => TokenMade::Made,
        };
        let write = format!(
            "INSERT INTO turnwise_tokens (name, role, hash, created_at) VALUES ({name}, '{}', '{hash}', {})",
            role.as_str(),
            instant(now)
        );
        let writes = if made == TokenMade::Made { vec![write] } else { Vec::new() };
        self.commit(session, writes).await?;
        Ok(made)
    }

    async fn tokens(&self) -> Result<Vec<TokenView>, StoreError> {
        let found = self.run(format!(
            "SELECT name, role, hash, {} FROM turnwise_tokens ORDER BY name LIMIT {MOST}",
            micros_of!("created_at")
        ));
        let found = found.await?;
        views(found.iter().map(Columns::from_row)).map_err(|trouble| self.trouble(trouble))
    }

    async fn revoke_token(&self, name: &str) -> Result<bool, StoreError> {
        let name = text(name);
        let read = format!("SELECT 1 FROM turnwise_tokens WHERE name = {name} FOR UPDATE");
        let (session, found) = self.begin(self.session().await?, &read).await?;
        let write = format!("DELETE FROM turnwise_tokens WHERE name = {name}");
        self.commit(session, vec![write]).await?;
        Ok(!found.is_empty())
    }
}
