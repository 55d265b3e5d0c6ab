//! `turnwise nodes`: shows the nodes that the database knows. Their states are the store's to tell.

use std::process::ExitCode;

use super::common::Common;
use super::failure::Failure;
use super::show;
use crate::store::{NodeView, Store};

/// List the nodes in the order of their turns
///
/// OFFSET is the database's clock minus the node's, with the most that it can be wrong; TRANSIT the way
/// from the node to the database.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    common: Common,

    /// Print a JSON array
    #[arg(long)]
    json: bool,
}

/// Show all nodes.
pub(super) async fn run(args: Args) -> Result<ExitCode, Failure> {
    let nodes = args.common.store().await?.nodes().await?;
    if args.json {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn milliseconds_keep_their_sign() {
        assert_eq!(millis(-40), "-0.040 ms");
        assert_eq!(millis(1_234_567), "1234.567 ms");
        assert_eq!(millis(i64::MIN), "-9223372036854775.808 ms");
    }
}
