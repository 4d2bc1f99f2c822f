//! Looks at processes' memory (ledgers, counts of pages): the older, the fewer.
//!
//! What is named stays, and of each process the first and the last of a kind. Of the
//! others there is one in each cell of the width that bins of that age have.

use std::collections::BTreeMap;

use super::{CompactError, Detail, SECOND_NS, fields, widths};

/// What there is of them, and then which are left out.
#[derive(Debug, Default)]
pub(super) struct Looks {
    /// By kind and process, in the order of the file.
    all: BTreeMap<(u8, u32), Vec<Look>>,
    /// Positions of those that are left out, rising.
    left_out: Vec<u64>,
}

#[derive(Debug)]
struct Look {
    position: u64,
    at_ns: u64,
    is_named: bool,
}

impl Looks {
    /// Takes note of a record of either kind, at a position in the recording.
    pub(super) fn take(&mut self, record: &[u8], position: u64) -> Result<(), CompactError> {
        let (process, at_ns, name): (u32, u64, &str) = fields(record)?;
        let kind = record.first().copied().unwrap_or_default();
        self.all.entry((kind, process)).or_default().push(Look {
            position,
            at_ns,
            is_named: !name.is_empty(),
        });
        Ok(())
    }

    /// Chooses those that are left; ages count from `now_ns`.
    pub(super) fn choose(&mut self, now_ns: u64, detail: Detail) {
        for looks in std::mem::take(&mut self.all).into_values() {
            let cell = |look: &Look| {
                let age_ns = now_ns.saturating_sub(look.at_ns);
                let (width_ns, _) = widths(age_ns, SECOND_NS, detail);
                (width_ns, look.at_ns / width_ns)
            };
            // The last in a cell stands for it. What is named stands for itself.
            let unnamed: Vec<&Look> = looks.iter().filter(|look| !look.is_named).collect();
            let ends = [looks.first(), looks.last()].map(|look| look.map(|look| look.position));
            for pair in unnamed.windows(2) {
                let [look, next] = [pair[0], pair[1]];
                if cell(look) == cell(next) && !ends.contains(&Some(look.position)) {
                    self.left_out.push(look.position);
                }
            }
        }
        self.left_out.sort_unstable();
    }

    /// Whether the record at a position is left out.
    pub(super) fn leaves_out(&self, position: u64) -> bool {
        self.left_out.binary_search(&position).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{Ledger, PageCost, Record};

    fn at(seconds: &[(u64, &str)], now: u64, detail: Detail) -> Vec<u64> {
        let mut looks = Looks::default();
        for (position, (at, name)) in seconds.iter().enumerate() {
            let record = Record::Ledger(Ledger {
                at_ns: at * SECOND_NS,
                name: (*name).into(),
                ..Ledger::default()
            });
            let bytes = postcard::to_stdvec(&record).unwrap();
            looks.take(&bytes, position as u64).unwrap();
            // Of another kind: they do not replace each other.
            let record = Record::PageCost(PageCost {
                at_ns: at * SECOND_NS,
                name: "kept".into(),
                ..PageCost::default()
            });
            let bytes = postcard::to_stdvec(&record).unwrap();
            looks.take(&bytes, 1000 + position as u64).unwrap();
        }
        looks.choose(now * SECOND_NS, detail);
        let count = seconds.len() as u64;
        assert!((1000..1000 + count).all(|at| !looks.leaves_out(at)));
        (0..count).filter(|at| !looks.leaves_out(*at)).collect()
    }

    #[test]
    fn the_older_the_fewer_but_the_named_the_first_and_the_last() {
        let minutes: Vec<(u64, &str)> = (0..40).map(|minute| (minute * 60, "")).collect();
        // Young: one a second, and there is one a minute.
        assert_eq!(at(&minutes, 2400, Detail::Full).len(), 40);
        // Days old: one in ten minutes, the last of them, and the first.
        assert_eq!(at(&minutes, 200_000, Detail::Full), [0, 9, 19, 29, 39]);
        assert_eq!(at(&minutes, 20_000, Detail::Full).len(), 40);
        assert_eq!(at(&minutes, 20_000, Detail::Coarse), [0, 9, 19, 29, 39]);
        let named = [
            (0, ""),
            (61, ""),
            (62, "here"),
            (63, ""),
            (64, ""),
            (70, "end"),
        ];
        assert_eq!(at(&named, 200_000, Detail::Full), [0, 2, 4, 5]);
    }
}
