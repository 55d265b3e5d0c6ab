//! How an operation of a node begins: its row is locked, so that nobody else's statement about the node comes between.
//! Decides what of that row an operation finds and how it is renewed.

use sqlx::Row;
use sqlx::mysql::MySqlRow;
use turnwise_engine::{NodeId, Period, ServerInstant, Token};

use super::session::Session;
use super::{MySqlStore, check_in, literals, micros_of};
use crate::store::connections::Lent;
use crate::store::servers::Line;
use crate::store::{CheckIn, Claimed, NodeReport, StoreError};
use crate::store::{check_ins, rows};

/// What an operation of a node finds: its row is locked.
pub(super) struct Locked {
    pub(super) at: ServerInstant,
    pub(super) period: Period,
    /// The lowest token that may still claim.
    pub(super) lowest: i64,
    /// Its last check-in is long enough ago for the next to be written.
    pub(super) wants_check_in: bool,
    /// What the operation asked for besides.
    pub(super) rows: Vec<MySqlRow>,
}

impl Locked {
    /// What renews the lease, and sets more in the node's row, called `n`.
    pub(super) fn renewed(
        &self,
        node: NodeId,
        report: Option<&NodeReport>,
        more: &[String],
    ) -> String {
        let mut set = check_in(self.at, self.period, report);
        for more in more {
            set.push_str(&format!(", {more}"));
        }
        format!("UPDATE turnwise_nodes n SET {set} WHERE n.id = {}", literals::node(node))
    }
}

/// No claim with this token or an earlier one may take anything from now on.
pub(super) fn bar(token: Token) -> String {
    format!("n.token_floor = GREATEST(n.token_floor, {})", token.0.saturating_add(1))
}

impl MySqlStore {
    /// Begin a transaction by locking the row of a node, and ask `more` within it. None when the node is not known or was
    /// declared lost: there is no lock then.
    pub(super) async fn locked(
        &self,
        session: Lent<Line<Session>>,
        node: NodeId,
        more: &str,
    ) -> Result<(Lent<Line<Session>>, Option<Locked>), StoreError> {
        let sql = format!(
            "SELECT {}, (SELECT coalesce(t.period_ms, 1000) FROM turnwise_turn t WHERE t.id = 1),
                n.token_floor, {}, {}, 'here'
             FROM turnwise_nodes n WHERE n.id = {} AND n.state <> 'lost' FOR UPDATE; {more}",
            self.now(),
            micros_of!("n.last_check_in"),
            micros_of!("n.lease_until"),
            literals::node(node)
        );
        let (session, mut found) = self.begin(session, sql.trim_end_matches("; ")).await?;
        let is_here = |row: &MySqlRow| row.try_get::<String, _>(5).is_ok_and(|word| word == "here");
        if !found.first().is_some_and(is_here) {
            return Ok((session, None));
        }
        let first = found.remove(0);
        let at = ServerInstant::from_micros(self.column(&first, 0)?);
        let period = rows::period(self.column(&first, 1)?);
        let period = period.map_err(|trouble| self.trouble(trouble))?;
        let (last, lease) = (self.column(&first, 3)?, self.column(&first, 4)?);
        let locked = Locked {
            at,
            period,
            lowest: self.column(&first, 2)?,
            wants_check_in: check_ins::is_worth_writing(at, period, last, lease),
            rows: found,
        };
        Ok((session, Some(locked)))
    }

    /// End the transaction of a node that is not known.
    pub(super) async fn lost(&self, session: Lent<Line<Session>>) -> Result<Claimed, StoreError> {
        self.commit(session, Vec::new()).await?;
        Ok(Claimed { check_in: CheckIn::Lost, ..Claimed::default() })
    }
}
