//! Decides what may not grow, and by how much it may differ.

use crate::Arguments;
use crate::sample::Sample;

/// What an allocator may do without a leak: a share of what there was, and so much, in KiB.
const MEMORY: (f64, u64) = (1.10, 2_048);
/// What the beats' table keeps, and what it may have beyond that until somebody tidies up.
const BEATS_KEPT: i64 = 86_400 + 10_000;
/// Without anybody's old snapshot the turn row's table stays so small, in bytes.
const TURN_BYTES: i64 = 4 << 20;
/// So many times as long may a job wait as in the second row, and so much, in milliseconds.
const WAIT: (f64, f64) = (2.0, 50.0);

/// What grew. The first row is the farm's beginning, and is compared with nothing.
pub(crate) fn faults(samples: &[Sample], arguments: &Arguments) -> Vec<String> {
    let (Some(early), Some(last)) = (samples.get(1), samples.last()) else { return Vec::new() };
    let mut faults = Vec::new();
    let memory = (early.resident as f64 * MEMORY.0) as u64 + MEMORY.1;
    if last.resident > memory {
        faults.push(format!("memory of a node, {} to {} KiB", early.resident, last.resident));
    }
    if last.files > early.files + 2 {
        faults.push(format!("a node's open files, {} to {}", early.files, last.files));
    }
    if last.connections > early.connections + 1 {
        faults.push(format!("connections, {} to {}", early.connections, last.connections));
    }
    if last.beat_rows > BEATS_KEPT {
        faults.push(format!("rows in beats, to {}", last.beat_rows));
    }
    if last.turn_bytes > TURN_BYTES && !arguments.old_snapshot {
        faults.push(format!("the turn row's table, to {} bytes", last.turn_bytes));
    }
    if last.wait_p50 > early.wait_p50 * WAIT.0 + WAIT.1 {
        faults.push(format!("how long jobs wait, {} to {} ms", early.wait_p50, last.wait_p50));
    }
    if samples.iter().skip(1).any(|sample| sample.called == 0) {
        faults.push("there was a time when no job was called".to_owned());
    }
    faults
}
