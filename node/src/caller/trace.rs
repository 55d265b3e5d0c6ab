//! Decides which trace a call belongs to: the one that its job was enqueued in, if it was in any (W3C Trace Context). No
//! trace is made up: nobody would know of it.

use http::HeaderMap;

const PARENT: &str = "traceparent";
const STATE: &str = "tracestate";

/// Leave out a `traceparent` that is none, and a `tracestate` that has none: a server would begin a trace of its own at
/// best, and at worst join strangers' traces.
pub(super) fn check(headers: &mut HeaderMap) {
    let is_good =
        |headers: &HeaderMap| headers.get(PARENT).is_some_and(|value| is_parent(value.as_bytes()));
    if (headers.contains_key(PARENT) || headers.contains_key(STATE)) && !is_good(headers) {
        headers.remove(PARENT);
        headers.remove(STATE);
    }
}

/// Whether a text is a `traceparent` (W3C Trace Context, section 3.2.2): version, trace, parent and flags, in lower case
/// hexadecimal with dashes in between, neither id all zero. A version that is not known yet may have more after another dash;
/// version ff there is none.
fn is_parent(text: &[u8]) -> bool {
    const LENGTHS: [usize; 4] = [2, 32, 16, 2];
    let mut parts = text.split(|byte| *byte == b'-');
    let fields = LENGTHS.map(|length| {
        parts.next().filter(|part| part.len() == length && part.iter().all(is_lower_hex))
    });
    let [Some(version), Some(trace), Some(parent), Some(_)] = fields else { return false };
    let has_more = parts.next().is_some();
    let is_zero = |id: &[u8]| id.iter().all(|byte| *byte == b'0');
    let is_whole = version != b"ff" && (version != b"00" || !has_more);
    is_whole && !is_zero(trace) && !is_zero(parent)
}

fn is_lower_hex(byte: &u8) -> bool {
    matches!(byte, b'0'..=b'9' | b'a'..=b'f')
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn a_traceparent_is_of_one_form() {
        let more = [&GOOD.replacen("00", "cc", 1), "-what-comes-later"].concat();
        for good in [GOOD, &GOOD.replacen("00", "cc", 1), &more, &GOOD.replace("-01", "-ff")] {
            assert!(is_parent(good.as_bytes()), "{good}");
        }
        let bad = [
            "",
            "00",
            "0af7651916cd43dd8448eb211c80319c",
            &GOOD.to_uppercase(),
            &GOOD.replacen("00", "ff", 1),
            &GOOD.replacen("00", "0", 1),
            &GOOD.replacen("00", "000", 1),
            &GOOD.replace("4bf92f3577b34da6a3ce929d0e0e4736", &"0".repeat(32)),
            &GOOD.replace("00f067aa0ba902b7", &"0".repeat(16)),
            &GOOD.replace("00f067aa0ba902b7", "00f067aa0ba902b"),
            &GOOD.replace("4bf9", "4bfg"),
            &GOOD.replace('-', "_"),
            &format!("{GOOD}-more"),
            &format!("{GOOD}-"),
            &format!(" {GOOD}"),
            &format!("{GOOD}, {GOOD}"),
        ];
        for bad in bad {
            assert!(!is_parent(bad.as_bytes()), "{bad}");
        }
    }

    #[test]
    fn what_is_no_trace_is_left_out_and_takes_its_state_along() {
        let sent = |given: &[(&'static str, &str)]| {
            let mut headers: HeaderMap = given
                .iter()
                .map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()))
                .collect();
            check(&mut headers);
            headers.len()
        };
        let state = (STATE, "vendor=1");
        assert_eq!(sent(&[(PARENT, GOOD), state, ("x-a", "1")]), 3);
        assert_eq!(sent(&[(PARENT, "00-0-0-00"), state, ("x-a", "1")]), 1);
        assert_eq!(sent(&[state, ("x-a", "1")]), 1);
        assert_eq!(sent(&[(PARENT, GOOD)]), 1);
    }
}
