//! Decides how many bytes of bodies one claim may bring: a node holds them all in memory, and the connection carries nothing
//! else meanwhile.

use crate::job::BODY_BYTES_MAX;

/// The most that the bodies of the jobs of one claim come to, in bytes, unless it is a single job.
pub(super) const CLAIM_BYTES_MAX: usize = 8 << 20;
/// The same for a beat: while its answer is sent the turn row is locked.
pub(super) const BEAT_BYTES_MAX: usize = 1 << 20;

/// How many of these jobs, in their order, a claim takes whose bodies may come to `most` bytes: all that fit, and at least one.
/// A body that is too long to be sent counts for nothing.
pub(super) fn fitting(lengths: impl Iterator<Item = usize>, most: usize) -> usize {
    let mut sum = 0_usize;
    let fits = lengths.take_while(|length| {
        let length = if *length <= BODY_BYTES_MAX { *length } else { 0 };
        let is_first = sum == 0;
        sum = sum.saturating_add(length);
        is_first || sum <= most
    });
    fits.count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_are_taken_as_fit_and_at_least_one() {
        let table: [(&[usize], usize, usize); 7] = [
            (&[], 10, 0),
            (&[11, 1], 10, 1),
            (&[4, 6, 1], 10, 2),
            (&[4, 7, 1], 10, 1),
            (&[0, 0, 10, 0, 1], 10, 4),
            (&[0, 11], 10, 2),
            (&[BODY_BYTES_MAX + 1, 10, 1], 10, 2),
        ];
        for (lengths, most, taken) in table {
            assert_eq!(fitting(lengths.iter().copied(), most), taken, "{lengths:?}");
        }
    }
}
