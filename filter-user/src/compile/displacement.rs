//! Sparse rows laid one over the other so that no two of their entries meet (Tarjan
//! and Yao, Storing a sparse table, 1979): an entry is found by one access, at
//! the row's displacement plus the entry's column.

/// A bitmap that grows, and ends in zeros.
#[derive(Default)]
struct Places(Vec<u64>);

impl Places {
    fn insert(&mut self, place: usize) {
        if self.0.len() <= place / 64 {
            self.0.resize(place / 64 + 1, 0);
        }
        self.0[place / 64] |= 1 << (place % 64);
    }

    /// The 64 places from this one on.
    fn from(&self, place: usize) -> u64 {
        let word = |index: usize| self.0.get(index).copied().unwrap_or(0);
        let (index, shift) = (place / 64, place % 64);
        let low = word(index) >> shift;
        if shift == 0 {
            low
        } else {
            low | word(index + 1) << (64 - shift)
        }
    }
}

/// The displacement of each row, by the columns that it has entries in: 0 where there
/// are none, and no other two are the same. `Err` has the highest so far where it is
/// more than `most`.
///
/// The densest come first, each where it first fits, and the sparse ones fill
/// what those have left.
pub(super) fn displace(rows: &[Vec<u32>], most: usize) -> Result<Vec<u32>, usize> {
    let mut order: Vec<usize> = (0..rows.len()).collect();
    order.sort_by_key(|&row| std::cmp::Reverse(rows[row].len()));
    let mut displacements = vec![0; rows.len()];
    let mut taken = Places::default();
    let mut owners = Places::default();
    owners.insert(0);
    // Where there was no room for a row, there is seldom any for the next of as
    // many entries.
    let (mut length, mut start) = (0, 0);
    for row in order {
        let columns = &rows[row];
        if columns.is_empty() {
            break;
        }
        if columns.len() != length {
            (length, start) = (columns.len(), 0);
        }
        let displacement = loop {
            let mut free = !owners.from(start);
            for &column in columns {
                free &= !taken.from(start + column as usize);
                if free == 0 {
                    break;
                }
            }
            if free != 0 {
                break start + free.trailing_zeros() as usize;
            }
            start += 64;
        };
        if displacement > most {
            return Err(displacement);
        }
        owners.insert(displacement);
        for &column in columns {
            taken.insert(displacement + column as usize);
        }
        displacements[row] = displacement as u32;
    }
    Ok(displacements)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_entries_meet() {
        // Numbers that look random.
        let mut random = 1_u64;
        let mut next = |below: u64| {
            random = random.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
            (random >> 33) % below
        };
        let rows: Vec<Vec<u32>> = (0..300)
            .map(|row| {
                let chance = if row % 10 == 0 { 2 } else { 40 };
                (1..200).filter(|_| next(chance) == 0).collect()
            })
            .filter(|row: &Vec<u32>| !row.is_empty())
            .collect();
        let displacements = displace(&rows, usize::MAX).expect("room");
        let mut owners = std::collections::HashSet::new();
        let mut places = std::collections::HashSet::new();
        for (row, &displacement) in rows.iter().zip(&displacements) {
            assert!(displacement != 0 && owners.insert(displacement));
            assert!(
                row.iter()
                    .all(|column| places.insert(displacement + column))
            );
        }
        let last = displacements.iter().max().copied().unwrap_or(0) as usize;
        assert!(last + 200 < places.len() * 2, "{last}, {}", places.len());
        assert_eq!(displace(&rows, last).as_ref(), Ok(&displacements));
        assert!(displace(&rows, last - 1).is_err_and(|reached| reached >= last));
    }

    #[test]
    fn rows_of_one_entry_fill_all() {
        let rows = vec![vec![7]; 1_000];
        let displacements = displace(&rows, 1_000).expect("room");
        assert!((1..=1_000).eq(displacements));
    }
}
