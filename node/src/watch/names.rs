//! Decides by what name a node is known, also when its row is gone.

use std::collections::{BTreeMap, BTreeSet};

use turnwise_engine::NodeId;

use super::event::Member;
use crate::store::NodeView;

/// The names of the nodes that are in what is shown.
#[derive(Clone, Debug, Default)]
pub(super) struct Names(BTreeMap<NodeId, String>);

impl Names {
    /// A node by its name; by the beginning of its id when nobody knows its name any more.
    pub(super) fn member(&self, node: NodeId) -> Member {
        let name = self.0.get(&node).cloned();
        let short = || node.to_string().chars().take(8).collect();
        Member { node, name: name.unwrap_or_else(short) }
    }

    /// Names of nodes that have no row any more are kept while they stand in what is `shown`.
    pub(super) fn learn(&mut self, nodes: &[NodeView], shown: impl Iterator<Item = NodeId>) {
        let mut known: BTreeSet<NodeId> = shown.collect();
        for node in nodes {
            known.insert(node.id);
            self.0.insert(node.id, node.name.clone());
        }
        self.0.retain(|node, _| known.contains(node));
    }
}
