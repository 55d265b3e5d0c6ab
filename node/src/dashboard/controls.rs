//! Decides nothing: what whoever serves the dashboard may offer besides what a production farm can do from its pages.
//! A demonstration kills and delays nodes by it; a node in production offers nothing.

use futures_util::future::BoxFuture;

use crate::store::NodeView;

/// Something that can be done, shown as a button.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Action {
    /// What [`Controls::perform`] is given: at most 64 bytes (`kill`, `skew +5s`).
    pub name: String,
    /// The words on the button: a verb, and what goes with it.
    pub label: String,
    /// What it does, in a sentence: shown when the pointer rests on the button.
    pub hint: String,
}

/// What can be done to the farm and to its nodes from the pages *Ring* and *Nodes*.
///
/// A button is a form: it works without JavaScript, and only from a page of this dashboard.
pub trait Controls: Send + Sync + 'static {
    /// What can be done to this node as it is now. Asked for every node of a page: it must be quick.
    fn for_node(&self, node: &NodeView) -> Vec<Action>;

    /// What can be done to the farm as a whole.
    fn for_farm(&self) -> Vec<Action>;

    /// Do it: to the node, or to the farm. What comes back is shown to whoever pressed the button: what to watch for,
    /// or why it was not done. `action` may be any text, and the node may have changed since the page was drawn: what
    /// is not possible (any more) is an error that says what is the case now.
    fn perform<'a>(
        &'a self,
        action: &'a str,
        node: Option<&'a NodeView>,
    ) -> BoxFuture<'a, Result<String, String>>;
}
