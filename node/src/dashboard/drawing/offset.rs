//! A node's offset with the most that it can be wrong, on a scale that all nodes share.

use maud::{Markup, html};

use super::number;
use crate::store::NodeView;

/// Half the width of the drawing.
const HALF: f64 = 120.0;

/// The largest distance from zero that has to be drawn, in microseconds, rounded up to 1, 2 or 5 of a power of ten.
pub(in super::super) fn scale(nodes: &[NodeView]) -> i64 {
    let reach = |node: &NodeView| {
        let offset = node.offset_us.unwrap_or(0).saturating_abs();
        offset.saturating_add(node.offset_error_us.unwrap_or(0))
    };
    let most = nodes.iter().filter(|node| node.rank.is_some()).map(reach).max().unwrap_or(0);
    let steps = (0..17).flat_map(|power| [1, 2, 5].map(|step| step * 10_i64.pow(power)));
    steps.into_iter().find(|step| *step >= most.max(100)).unwrap_or(i64::MAX)
}

/// The offset as a point with its error bar; none before the first exchange.
pub(in super::super) fn draw(node: &NodeView, scale_us: i64) -> Option<Markup> {
    let offset = node.offset_us?;
    let error = node.offset_error_us.unwrap_or(0);
    let x = |us: i64| (us as f64 / scale_us.max(1) as f64 * HALF).clamp(-HALF - 6.0, HALF + 6.0);
    let (low, high) = (x(offset.saturating_sub(error)), x(offset.saturating_add(error)));
    Some(html! {
        svg .offset viewBox="-130 -12 260 24" aria-hidden="true" {
            path .axis d="M-126 0H126M0-8V8" {}
            path .error d=(format!("M{l} -5V5M{l} 0H{h}M{h} -5V5", l = number(low), h = number(high))) {}
            circle .point cx=(number(x(offset))) r="3.5" {}
        }
    })
}

#[cfg(test)]
mod tests {
    use turnwise_engine::NodeId;

    use super::*;

    fn node(offset_us: Option<i64>, offset_error_us: Option<i64>) -> NodeView {
        NodeView {
            rank: Some(0),
            offset_us,
            offset_error_us,
            ..NodeView::of_a_test(NodeId::from_u128(1), "a")
        }
    }

    #[test]
    fn the_scale_holds_every_bar() {
        assert_eq!(scale(&[]), 100);
        assert_eq!(scale(&[node(Some(-180), Some(30)), node(None, None)]), 500);
        assert_eq!(scale(&[node(Some(i64::MIN), Some(i64::MAX))]), i64::MAX);
        assert!(draw(&node(None, None), 100).is_none());
        let drawn = draw(&node(Some(i64::MIN), Some(i64::MAX)), 1).unwrap().into_string();
        assert!(drawn.contains("M-126 -5V5") && drawn.contains("cx=\"-126\""), "{drawn}");
    }
}
