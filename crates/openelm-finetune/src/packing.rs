//! Conversations into rows of a fixed length: the longest first, each into the fullest row that still has room.
//!
//! What must stay true: every conversation is in exactly one row; no row is longer than the limit.

use std::collections::BTreeMap;

/// Rows of indices into `lengths`, none longer than `limit` altogether; a length above the limit has a row of its own.
pub(crate) fn pack(lengths: &[usize], limit: usize) -> Vec<Vec<usize>> {
    let mut order: Vec<usize> = (0..lengths.len()).collect();
    order.sort_by_key(|index| std::cmp::Reverse(lengths[*index]));
    let mut rows: Vec<Vec<usize>> = Vec::new();
    // Rows by the room that is left in them; the first one of a kind is taken first.
    let mut rooms: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for index in order {
        let length = lengths[index];
        let found = rooms.range(length..).next().map(|(room, _)| *room);
        let (row, room) = match found.and_then(|room| Some((rooms.get_mut(&room)?.pop()?, room))) {
            Some(found) => found,
            None => {
                rows.push(Vec::new());
                (rows.len() - 1, limit.max(length))
            }
        };
        if rooms.get(&room).is_some_and(Vec::is_empty) {
            rooms.remove(&room);
        }
        rows[row].push(index);
        rooms.entry(room - length).or_default().push(row);
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_full_and_hold_everything_once() {
        let lengths: Vec<usize> = (0..500).map(|at| at * 7919 % 97 + 3).collect();
        let rows = pack(&lengths, 100);
        let mut seen: Vec<usize> = rows.iter().flatten().copied().collect();
        seen.sort_unstable();
        assert_eq!(seen, (0..500).collect::<Vec<_>>());
        let size = |row: &Vec<usize>| row.iter().map(|index| lengths[*index]).sum::<usize>();
        assert!(rows.iter().all(|row| size(row) <= 100));
        let least = lengths.iter().sum::<usize>().div_ceil(100);
        assert!(rows.len() <= least + least / 10, "{} rows, at least {least}", rows.len());
        assert_eq!(pack(&[200, 5], 100), [vec![0], vec![1]]);
    }
}
