//! Statements on the rows of nodes: announcing one, renewing its lease, asking it to drain, and what it says of itself.

use sqlx::FromRow;
use turnwise_engine::NodeId;

use super::statement::Statement;
use super::{PgStore, check_in, integer};
use crate::store::migrate;
use crate::store::rows;
use crate::store::{
    CheckIn, DrainAnswer, NodeReport, NodeView, Registration, Store, StoreError, TargetView,
};

impl PgStore {
    pub(super) async fn register_node(&self, node: &Registration) -> Result<(), StoreError> {
        // Rows of nodes long gone go with it. An hour by the last beat too, so that a step of the clock
        // alone makes nobody look gone.
        let register = Statement::of(
            "WITH gone AS (
                DELETE FROM turnwise.nodes WHERE id IN (
                    SELECT n.id FROM turnwise.nodes n, turnwise.turn t
                    WHERE n.id <> $1::text::uuid
                        AND n.lease_until < turnwise.clock() - interval '1 hour'
                        AND n.lease_until < t.beaten_at - interval '1 hour'
                    FOR UPDATE OF n SKIP LOCKED)
             ), here AS MATERIALIZED (SELECT turnwise.clock() AS now)
             INSERT INTO turnwise.nodes
                (id, name, state, lease_until, started_at, last_check_in, capacity, version)
             SELECT $1::text::uuid, $2::text, 'live', now + turnwise.lease(turnwise.period_ms()), now, now,
                $3::integer, $4::text
             FROM here
             ON CONFLICT (id) DO UPDATE SET
                name = excluded.name, state = 'live', lease_until = excluded.lease_until,
                started_at = excluded.started_at, last_check_in = excluded.last_check_in,
                capacity = excluded.capacity, version = excluded.version",
        )
        .bind(node.id.to_string())
        .bind(node.name.as_str())
        .bind(integer(node.capacity))
        .bind(migrate::THIS);
        self.ask(register).await?;
        Ok(())
    }

    pub(super) async fn deregister_node(&self, node: NodeId) -> Result<(), StoreError> {
        let deregister = Statement::of(
            "UPDATE turnwise.nodes SET state = 'left', running = 0, last_check_in = turnwise.clock()
             WHERE id = $1::text::uuid AND state <> 'lost'",
        )
        .bind(node.to_string());
        self.ask(deregister).await?;
        Ok(())
    }

    pub(super) async fn drain_node(&self, node: NodeId) -> Result<Option<DrainAnswer>, StoreError> {
        // What is selected is the row as it was before.
        let drain = Statement::of(
            "WITH asked AS (
                UPDATE turnwise.nodes SET drain_asked_at = turnwise.clock()
                WHERE id = $1::text::uuid AND state = 'live' AND drain_asked_at IS NULL
                RETURNING 1)
             SELECT EXISTS (SELECT FROM asked), n.state = 'live'
             FROM turnwise.nodes n WHERE n.id = $1::text::uuid",
        )
        .bind(node.to_string());
        let found = self.ask(drain).await?;
        let Some(row) = found.first() else { return Ok(None) };
        let was: Result<(bool, bool), _> = FromRow::from_row(row);
        let was = was.map_err(|error: sqlx::Error| self.trouble(error.into()))?;
        Ok(Some(match was {
            (true, _) => DrainAnswer::Asked,
            (false, true) => DrainAnswer::AskedBefore,
            (false, false) => DrainAnswer::Gone,
        }))
    }

    pub(super) async fn write_targets(
        &self,
        node: NodeId,
        targets: &[TargetView],
    ) -> Result<(), StoreError> {
        let targets = rows::targets_json(targets).map_err(|trouble| self.trouble(trouble))?;
        let tell =
            Statement::of("UPDATE turnwise.nodes SET targets = $2::text WHERE id = $1::text::uuid")
                .bind(node.to_string())
                .bind(targets);
        self.ask(tell).await?;
        Ok(())
    }

    pub(super) async fn renew_node(
        &self,
        node: NodeId,
        report: &NodeReport,
    ) -> Result<CheckIn, StoreError> {
        let renew = Statement::of(
            "SELECT turnwise.node_renew(
                $1::text::uuid, $2::integer, $3::bigint, $4::bigint, $5::bigint)",
        )
        .bind(node.to_string())
        .bind(integer(report.running))
        .bind(report.offset_us)
        .bind(report.offset_error_us)
        .bind(report.transit_us);
        let (lost,) = self.ask_for_one(renew).await?;
        Ok(check_in(lost))
    }

    pub(super) async fn list_nodes(&self) -> Result<Vec<NodeView>, StoreError> {
        let look = self.look().await?;
        let nodes = Statement::of(
            "SELECT id::text, name, state, turnwise.micros(lease_until),
                turnwise.micros(last_check_in), capacity::bigint, running::bigint,
                offset_us, offset_error_us, transit_us, drain_asked_at IS NOT NULL, targets
             FROM turnwise.nodes",
        );
        let nodes: Result<Vec<_>, _> =
            self.ask(nodes).await?.iter().map(FromRow::from_row).collect();
        let nodes = nodes.map_err(|error: sqlx::Error| self.trouble(error.into()))?;
        rows::node_views(nodes, &look).map_err(|trouble| self.trouble(trouble))
    }
}
