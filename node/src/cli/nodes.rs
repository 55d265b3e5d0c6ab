//! `turnwise nodes`: shows the nodes that the database knows, and asks one to drain. Their states are the store's to
//! tell; which node a name means is decided here.

use std::process::ExitCode;

use clap::Subcommand;
use serde::Serialize;
use turnwise_engine::NodeId;

use super::common::Common;
use super::failure::Failure;
use super::show;
use crate::audit::{Action, Order};
use crate::exit;
use crate::store::{DrainAnswer, NodeView, Store};

/// List the nodes in the order of their turns, or ask one to drain
///
/// OFFSET is the database's clock minus the node's, with the most that it can be wrong; TRANSIT the way
/// from the node to the database. With --json each node also has its `targets`: the web apps that it calls jobs on,
/// whether they answer, and since when.
#[derive(Debug, clap::Args)]
#[command(
    args_conflicts_with_subcommands = true,
    after_long_help = "\
Examples:
  turnwise nodes
  turnwise nodes drain web-3"
)]
pub(super) struct Args {
    #[command(subcommand)]
    command: Option<Command>,

    #[command(flatten)]
    common: Common,

    /// Print a JSON array
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    Drain(DrainArgs),
}

/// Ask a node to leave the ring, finish what it runs and exit
///
/// The node hears of it with its next turn or read, and does what SIGTERM does: no slot is missed and no job is lost.
/// A node that is started again, or by whatever watches over it, is another node and does not drain. Asking again changes
/// nothing. Exits with 1 when no node has this name or id, when several have the name, and when the node is gone.
#[derive(Debug, clap::Args)]
struct DrainArgs {
    #[command(flatten)]
    common: Common,

    /// The node's name or id
    #[arg(value_name = "NAME_OR_ID")]
    node: String,

    /// Print {"id", "name", "result"}: `asked`, `asked-before`, `gone`, `unknown` or `ambiguous`
    #[arg(long)]
    json: bool,
}

/// Show all nodes, or do what was asked of one.
pub(super) async fn run(args: Args) -> Result<ExitCode, Failure> {
    match args.command {
        None => list(args.common, args.json).await,
        Some(Command::Drain(args)) => drain(args).await,
    }
}

async fn list(common: Common, json: bool) -> Result<ExitCode, Failure> {
    let nodes = common.store().await?.nodes().await?;
    if json {
        show::print_json(&nodes)?;
    } else if nodes.is_empty() {
        show::print("no nodes")?;
    } else {
        let header =
            ["RANK", "NAME", "STATE", "RUNNING", "OFFSET", "TRANSIT", "LAST CHECK-IN", "ID"];
        show::print(&show::table(header, nodes.iter().map(row).collect()))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn row(node: &NodeView) -> [String; 8] {
    let offset = match (node.offset_us, node.offset_error_us) {
        (Some(offset), Some(error)) => format!("{} ± {}", millis(offset), millis(error)),
        (Some(offset), None) => millis(offset),
        (None, _) => show::NOTHING.to_owned(),
    };
    [
        show::or_nothing(node.rank),
        show::printable(&node.name),
        show::printable(&node.state),
        format!("{}/{}", node.running, node.capacity),
        offset,
        show::or_nothing(node.transit_us.map(millis)),
        node.last_check_in.clone(),
        node.id.to_string(),
    ]
}

/// Microseconds as milliseconds with three places.
fn millis(micros: i64) -> String {
    let sign = if micros < 0 { "-" } else { "" };
    let micros = micros.unsigned_abs();
    format!("{sign}{}.{:03} ms", micros / 1_000, micros % 1_000)
}

/// What was done about a node.
#[derive(Debug, Serialize)]
struct Told<'a> {
    id: Option<NodeId>,
    name: Option<&'a str>,
    result: &'static str,
}

async fn drain(args: DrainArgs) -> Result<ExitCode, Failure> {
    let store = args.common.store().await?;
    let nodes = store.nodes().await?;
    let meant = Meant::of(&args.node, &nodes);
    let (node, answer) = match meant {
        Meant::One(node) => {
            let order = Order::by_command(Action::NodeDrain, node.id);
            (Some(node), order.carry_out(&store, store.drain(node.id)).await?)
        }
        Meant::Nobody | Meant::Several(_) => (None, None),
    };
    let (result, is_done, words) = in_words(&args.node, &meant, answer);
    if args.json {
        let name = node.map(|node| node.name.as_str());
        show::print_json(&Told { id: node.map(|node| node.id), name, result })?;
    } else if is_done {
        show::print(&words)?;
    }
    if is_done {
        return Ok(ExitCode::SUCCESS);
    }
    Err(Failure { code: exit::FAILED, message: words })
}

/// Which node a name or an id means.
#[derive(Debug, PartialEq, Eq)]
enum Meant<'a> {
    One(&'a NodeView),
    Nobody,
    Several(Vec<&'a NodeView>),
}

impl<'a> Meant<'a> {
    /// A node that was started again has another row under the same name: those that are there come before those that
    /// are silent, and those before the ones that are gone.
    fn of(wanted: &str, nodes: &'a [NodeView]) -> Self {
        let id: Option<NodeId> = wanted.parse().ok();
        if let Some(node) = nodes.iter().find(|node| Some(node.id) == id) {
            return Self::One(node);
        }
        let is_gone = |node: &NodeView| matches!(node.state.as_str(), "left" | "lost");
        let ranked = |node: &NodeView| (is_gone(node), node.state == "silent");
        let named: Vec<&NodeView> = nodes.iter().filter(|node| node.name == wanted).collect();
        let Some(best) = named.iter().map(|node| ranked(node)).min() else { return Self::Nobody };
        let best: Vec<_> = named.into_iter().filter(|node| ranked(node) == best).collect();
        match best[..] {
            // Of those that are gone none is more meant than another, and nothing is asked of any.
            [node] => Self::One(node),
            [node, ..] if is_gone(node) => Self::One(node),
            _ => Self::Several(best),
        }
    }
}

/// The word for programs, whether what was wanted is the case, and the words for people.
fn in_words(
    wanted: &str,
    meant: &Meant<'_>,
    answer: Option<DrainAnswer>,
) -> (&'static str, bool, String) {
    let wanted = show::printable(wanted);
    let node = match meant {
        Meant::One(node) => node,
        Meant::Several(nodes) => {
            let ids: Vec<String> = nodes.iter().map(|node| node.id.to_string()).collect();
            let words = format!(
                "{} nodes are called {wanted}: say which by its id: {}",
                nodes.len(),
                ids.join(", ")
            );
            return ("ambiguous", false, words);
        }
        Meant::Nobody => return ("unknown", false, unknown(&wanted)),
    };
    let name = format!("{} ({})", show::printable(&node.name), node.id);
    match answer {
        Some(DrainAnswer::Asked) if node.state == "silent" => {
            let words = format!(
                "node {name} is asked to drain, but it has not been heard of since {}: it hears of it when it is back",
                node.last_check_in
            );
            ("asked", true, words)
        }
        Some(DrainAnswer::Asked) => ("asked", true, format!("node {name} is asked to drain")),
        Some(DrainAnswer::AskedBefore) => {
            ("asked-before", true, format!("node {name} was asked to drain before"))
        }
        Some(DrainAnswer::Gone) => {
            ("gone", false, format!("node {name} is gone: there is nothing to drain"))
        }
        None => ("unknown", false, unknown(&wanted)),
    }
}

fn unknown(wanted: &str) -> String {
    format!(
        "there is no node {wanted} in this database; `turnwise nodes` shows those that there are"
    )
}

#[cfg(test)]
mod tests {

    use super::*;

    fn node(number: u128, name: &str, state: &str) -> NodeView {
        NodeView { state: state.to_owned(), ..NodeView::of_a_test(NodeId::from_u128(number), name) }
    }

    #[test]
    fn milliseconds_keep_their_sign() {
        assert_eq!(millis(-40), "-0.040 ms");
        assert_eq!(millis(1_234_567), "1234.567 ms");
        assert_eq!(millis(i64::MIN), "-9223372036854775.808 ms");
    }

    #[test]
    fn a_name_means_the_node_that_is_there() {
        let nodes = [
            node(1, "a", "left"),
            node(2, "a", "silent"),
            node(3, "a", "live"),
            node(4, "b", "live"),
            node(5, "b", "draining"),
            node(6, "c", "lost"),
            node(7, "c", "left"),
        ];
        assert_eq!(Meant::of("a", &nodes), Meant::One(&nodes[2]));
        assert_eq!(Meant::of(&nodes[1].id.to_string(), &nodes), Meant::One(&nodes[1]));
        assert_eq!(Meant::of("b", &nodes), Meant::Several(vec![&nodes[3], &nodes[4]]));
        assert_eq!(Meant::of("c", &nodes), Meant::One(&nodes[5]));
        assert_eq!(Meant::of("d", &nodes), Meant::Nobody);
    }

    #[test]
    fn each_answer_says_what_is_the_case() {
        let (live, silent) = (node(1, "a", "live"), node(2, "a", "silent"));
        let say = |node, answer| in_words("a", &Meant::One(node), answer);
        assert_eq!(
            (say(&live, Some(DrainAnswer::Asked)).0, say(&live, None).0),
            ("asked", "unknown")
        );
        assert!(say(&silent, Some(DrainAnswer::Asked)).2.contains("not been heard of"));
        let again = say(&live, Some(DrainAnswer::AskedBefore));
        assert!(again.0 == "asked-before" && again.1 && again.2.contains("before"));
        let gone = say(&live, Some(DrainAnswer::Gone));
        assert!(gone.0 == "gone" && !gone.1 && gone.2.contains("nothing to drain"));
        let many = in_words("a", &Meant::Several(vec![&live, &silent]), None);
        assert!(many.0 == "ambiguous" && many.2.contains(&silent.id.to_string()));
    }
}
