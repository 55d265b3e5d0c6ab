//! Statements on the rows of nodes: announcing one, renewing its lease, asking it to drain, and what it says of itself.

use turnwise_engine::{NodeId, ServerInstant};

use super::literals::{self, instant, text};
use super::{MySqlStore, lease_end, micros_of};
use crate::store::{
    CheckIn, DrainAnswer, NodeReport, NodeView, Registration, Store, StoreError, TargetView,
};
use crate::store::{migrate, rows};

impl MySqlStore {
    pub(super) async fn register_node(&self, node: &Registration) -> Result<(), StoreError> {
        let id = literals::node(node.id);
        // Rows of nodes long gone go with it. An hour by the last beat too, so that a step of the clock
        // alone makes nobody look gone.
        let sql = format!(
            "SELECT {}, coalesce(period_ms, 1000), NULL FROM turnwise_turn WHERE id = 1;
             SELECT n.id FROM turnwise_nodes n
             WHERE n.id <> {id} AND n.lease_until < {} - INTERVAL 1 HOUR
                AND n.lease_until < (SELECT t.beaten_at FROM turnwise_turn t WHERE t.id = 1) - INTERVAL 1 HOUR
             FOR UPDATE SKIP LOCKED",
            self.now(),
            self.inner.clock,
        );
        let (session, found) = self.begin(self.session().await?, &sql).await?;
        let (first, gone) = found.split_first().ok_or_else(|| self.nothing())?;
        let at = ServerInstant::from_micros(self.column(first, 0)?);
        let period =
            rows::period(self.column(first, 1)?).map_err(|trouble| self.trouble(trouble))?;
        let gone: Vec<String> =
            gone.iter().map(|row| self.column(row, 0)).collect::<Result<_, _>>()?;
        let mut statements = Vec::new();
        if !gone.is_empty() {
            let gone = literals::list(gone.iter().map(String::as_str));
            statements.push(format!("DELETE FROM turnwise_nodes WHERE id IN {gone}"));
        }
        let set = format!(
            "name = {}, state = 'live', lease_until = {}, started_at = {at}, last_check_in = {at},
             capacity = {}, version = {}",
            text(&node.name),
            instant(lease_end(at, period)),
            node.capacity,
            text(migrate::THIS),
            at = instant(at.as_micros()),
        );
        statements.push(format!(
            "INSERT INTO turnwise_nodes SET id = {id}, {set} ON DUPLICATE KEY UPDATE {set}"
        ));
        self.commit(session, statements).await
    }

    pub(super) async fn deregister_node(&self, node: NodeId) -> Result<(), StoreError> {
        self.run(format!(
            "UPDATE turnwise_nodes SET state = 'left', running = 0, last_check_in = {}
             WHERE id = {} AND state <> 'lost'",
            self.inner.clock,
            literals::node(node),
        ))
        .await?;
        Ok(())
    }

    pub(super) async fn drain_node(&self, node: NodeId) -> Result<Option<DrainAnswer>, StoreError> {
        let node = literals::node(node);
        let read = format!(
            "SELECT n.state = 'live', n.drain_asked_at IS NOT NULL FROM turnwise_nodes n
             WHERE n.id = {node} FOR UPDATE"
        );
        let (session, found) = self.begin(self.session().await?, &read).await?;
        let answer = match found.first() {
            None => None,
            Some(row) => Some(match (self.column(row, 0)?, self.column(row, 1)?) {
                (false, _) => DrainAnswer::Gone,
                (true, true) => DrainAnswer::AskedBefore,
                (true, false) => DrainAnswer::Asked,
            }),
        };
        let ask = format!(
            "UPDATE turnwise_nodes SET drain_asked_at = {} WHERE id = {node}",
            self.inner.clock
        );
        let asks = answer == Some(DrainAnswer::Asked);
        self.commit(session, if asks { vec![ask] } else { Vec::new() }).await?;
        Ok(answer)
    }

    pub(super) async fn write_targets(
        &self,
        node: NodeId,
        targets: &[TargetView],
    ) -> Result<(), StoreError> {
        let targets = rows::targets_json(targets).map_err(|trouble| self.trouble(trouble))?;
        self.run(format!(
            "UPDATE turnwise_nodes SET targets = {} WHERE id = {}",
            text(&targets),
            literals::node(node)
        ))
        .await?;
        Ok(())
    }

    pub(super) async fn renew_node(
        &self,
        node: NodeId,
        report: &NodeReport,
    ) -> Result<CheckIn, StoreError> {
        let (session, head) = self.locked(self.session().await?, node, "").await?;
        let Some(head) = head else {
            self.commit(session, Vec::new()).await?;
            return Ok(CheckIn::Lost);
        };
        self.commit(session, vec![head.renewed(node, Some(report), &[])]).await?;
        Ok(CheckIn::Alive)
    }

    pub(super) async fn list_nodes(&self) -> Result<Vec<NodeView>, StoreError> {
        let look = self.look().await?;
        let sql = concat!(
            "SELECT id, name, state, ",
            micros_of!("lease_until"),
            ", ",
            micros_of!("last_check_in"),
            ", capacity, running, offset_us, offset_error_us, transit_us,
             drain_asked_at IS NOT NULL, targets FROM turnwise_nodes"
        );
        let found = self.run(sql.to_owned()).await?;
        let nodes: Result<Vec<_>, sqlx::Error> =
            found.iter().map(sqlx::FromRow::from_row).collect();
        let nodes = nodes.map_err(|error| self.trouble(error.into()))?;
        rows::node_views(nodes, &look).map_err(|trouble| self.trouble(trouble))
    }
}
