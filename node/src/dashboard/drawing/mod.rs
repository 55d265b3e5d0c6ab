//! Decides how the farm is drawn: shapes and numbers, no colours (those are the style's) and no pages.

pub(super) mod offset;
pub(super) mod ring;
pub(super) mod timeline;

use turnwise_engine::Slot;

use crate::watch::{Farm, SlotView};

/// A number in a drawing: a tenth of a unit is fine enough.
fn number(value: f64) -> String {
    let text = format!("{value:.1}");
    let text = text.strip_suffix(".0").unwrap_or(&text);
    if text == "-0" { "0".to_owned() } else { text.to_owned() }
}

/// The class of a slot, by what became of it.
fn class(slot: &SlotView) -> &'static str {
    match slot.beat {
        None => "missed",
        Some(beat) if beat.is_off() => "off",
        Some(_) if slot.deputy().is_some() => "covered",
        Some(beat) if beat.claimed >= 10 => "many",
        Some(beat) if beat.claimed > 0 => "some",
        Some(_) => "empty",
    }
}

/// The same in words: for whoever points at it, or cannot see it.
fn words(farm: &Farm, slot: &SlotView) -> String {
    let Slot(number) = slot.slot;
    let name = |node| farm.member(node).name;
    let Some(beat) = slot.beat else {
        let whose = slot.place.map_or(String::new(), |place| format!(", {}'s", name(place.owner)));
        return format!("slot {number}{whose}: missed");
    };
    let claimed = match beat.claimed {
        0 => "empty".to_owned(),
        claimed => format!("claimed {claimed}"),
    };
    let late = match beat.late_us {
        None => String::new(),
        Some(late) => format!(", {} ms late", super::page::millis(late)),
    };
    let cover = match (slot.deputy(), slot.place) {
        (Some(_), Some(place)) => format!(" for {}", name(place.owner)),
        _ => String::new(),
    };
    format!("slot {number}: {}{cover}, {claimed}{late}", name(beat.node))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short() {
        assert_eq!(number(12.0), "12");
        assert_eq!(number(-0.04), "0");
        assert_eq!(number(-3.26), "-3.3");
    }
}
