//! The counted targets of a micro-batch, gathered: a head that is wanted for some positions alone works on a smaller matrix.
//!
//! What must stay true: targets stand row by row, in their order.

use crate::micro_batch::MicroBatch;

/// Where a row's positions are among the tokens that go through the model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RowPlace {
    /// The token of its first position.
    pub begin: usize,
    /// Positions that are another row's as well.
    pub shared: usize,
    /// The token of the first position behind these.
    pub own: usize,
}

impl RowPlace {
    /// A row that shares nothing.
    pub fn whole(begin: usize) -> Self {
        Self { begin, shared: 0, own: begin }
    }

    fn token(self, position: usize) -> usize {
        match position.checked_sub(self.shared) {
            Some(behind) => self.own + behind,
            None => self.begin + position,
        }
    }
}

/// Positions whose targets count, with their rows.
pub(crate) struct Counted {
    rows: usize,
    /// Index among the tokens that go through the model.
    positions: Vec<usize>,
    /// Row of each.
    row_of: Vec<usize>,
    /// Target of each.
    pub targets: Vec<u32>,
}

impl Counted {
    /// The counted targets of those rows of `batch` for which `wanted` holds, with the rows' places among the tokens.
    pub fn of(batch: &MicroBatch, places: &[RowPlace], wanted: impl Fn(usize) -> bool) -> Self {
        let mut counted = Self { rows: batch.batch(), positions: Vec::new(), row_of: Vec::new(), targets: Vec::new() };
        for (row, (targets, place)) in batch.target_ids().chunks(batch.sequence().max(1)).zip(places).enumerate() {
            let targets = targets.iter().enumerate().filter(|(_, target)| **target != batch.padding_id() && wanted(row));
            for (position, target) in targets {
                counted.positions.push(place.token(position));
                counted.row_of.push(row);
                counted.targets.push(*target);
            }
        }
        counted
    }

    /// The rows of `values` [tokens, width] at the positions.
    pub fn gather(&self, values: &[f32], width: usize) -> Vec<f32> {
        let mut gathered = Vec::with_capacity(self.positions.len() * width);
        for position in &self.positions {
            gathered.extend_from_slice(&values[position * width..][..width]);
        }
        gathered
    }

    /// Adds `values` to their positions in `to` [tokens, width], which is 0 before. A position that rows share has several.
    pub fn scatter(&self, values: &[f32], width: usize, to: &mut [f32]) {
        to.fill(0.0);
        for (position, values) in self.positions.iter().zip(values.chunks_exact(width.max(1))) {
            to[position * width..][..width].iter_mut().zip(values).for_each(|(to, value)| *to += value);
        }
    }

    /// Sums of the targets' values by row.
    pub fn row_sums(&self, values: &[f64]) -> Vec<f64> {
        let mut sums = vec![0.0; self.rows];
        for (row, value) in self.row_of.iter().zip(values) {
            sums[*row] += value;
        }
        sums
    }

    /// The weight of each target's row.
    pub fn weights(&self, of_rows: &[f64]) -> Vec<f32> {
        self.row_of.iter().map(|row| of_rows[*row] as f32).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_gathered_goes_back_to_its_place() {
        let batch = MicroBatch::new(&[1, 5, 9, 2, 1, 7, 3, 9], 3, 9, 10).unwrap();
        let values: Vec<f32> = (0..12).map(|value| value as f32).collect();
        let places = [RowPlace::whole(0), RowPlace::whole(3)];
        let all = Counted::of(&batch, &places, |_| true);
        assert_eq!(all.targets, [5, 2, 7, 3]);
        assert_eq!(all.gather(&values, 2), [0.0, 1.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0]);
        assert_eq!(all.row_sums(&[1.0, 2.0, 3.0, 4.0]), [3.0, 7.0]);
        let second = Counted::of(&batch, &places, |row| row == 1);
        let mut to = vec![7.0; 12];
        second.scatter(&[1.0, 2.0, 3.0, 4.0], 2, &mut to);
        assert_eq!(to, [0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0, 2.0, 3.0, 4.0, 0.0, 0.0]);
        assert_eq!(second.weights(&[0.5, 0.25]), [0.25, 0.25]);
        assert_eq!(second.row_sums(&[1.0, 1.0]), [0.0, 2.0]);
        // The second row begins as the first one does.
        let shared = Counted::of(&batch, &[RowPlace::whole(0), RowPlace { begin: 0, shared: 1, own: 3 }], |_| true);
        shared.scatter(&[1.0, 1.0, 2.0, 2.0, 3.0, 3.0, 4.0, 4.0], 2, &mut to);
        assert_eq!(to, [4.0, 4.0, 0.0, 0.0, 2.0, 2.0, 4.0, 4.0, 0.0, 0.0, 0.0, 0.0]);
    }
}
