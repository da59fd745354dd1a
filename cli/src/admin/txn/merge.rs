//! One list, oldest first, out of the pages of several brokers.
//!
//! No request is made here: [`Merge::step`] says which broker's next page is needed, or gives the next transaction.

use std::collections::VecDeque;

use escrowmq_client::{TransactionInfo, TransactionPage};

/// The rows that a broker still has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rest {
    /// A page after this half id.
    After(Option<u64>),
    Nothing,
}

#[derive(Debug)]
struct Lane {
    rows: VecDeque<TransactionInfo>,
    rest: Rest,
    /// The last half id that was given, or the beginning.
    given: Option<u64>,
}

/// The next step of the caller.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Ask this broker for its page after the half id.
    Fetch(usize, Option<u64>),
    /// The next transaction, of this broker.
    Row(usize, Box<TransactionInfo>),
    /// There are no more.
    End,
}

/// Brokers by their place in a list.
#[derive(Debug)]
pub(super) struct Merge {
    lanes: Vec<Lane>,
}

impl Merge {
    /// Each broker starts after its half id.
    pub(super) fn new(starts: impl IntoIterator<Item = Option<u64>>) -> Self {
        let lane = |start| Lane { rows: VecDeque::new(), rest: Rest::After(start), given: start };
        Self { lanes: starts.into_iter().map(lane).collect() }
    }

    pub(super) fn step(&mut self) -> Step {
        // The oldest of all is known when the oldest of each is.
        for (at, lane) in self.lanes.iter().enumerate() {
            if let (true, Rest::After(after)) = (lane.rows.is_empty(), lane.rest) {
                return Step::Fetch(at, after);
            }
        }
        let fronts = self.lanes.iter().enumerate().filter_map(|(at, lane)| Some((lane.rows.front()?.prepared_at, at)));
        let Some((_, at)) = fronts.min() else { return Step::End };
        let lane = &mut self.lanes[at];
        let row = lane.rows.pop_front().expect("it has a front");
        lane.given = Some(row.half_id);
        Step::Row(at, Box::new(row))
    }

    /// The page that was asked for.
    pub(super) fn page(&mut self, at: usize, page: TransactionPage) {
        let lane = &mut self.lanes[at];
        // A broker that repeats itself must not keep us for ever.
        let goes_on = page.next.filter(|next| Rest::After(Some(*next)) != lane.rest);
        lane.rest = goes_on.map_or(Rest::Nothing, |next| Rest::After(Some(next)));
        lane.rows.extend(page.transactions);
    }

    /// This broker does not answer.
    pub(super) fn give_up(&mut self, at: usize) {
        self.lanes[at].rest = Rest::Nothing;
    }

    /// Where each broker goes on after what was given.
    pub(super) fn cursors(&self) -> impl Iterator<Item = Option<u64>> {
        self.lanes.iter().map(|lane| match lane.rest {
            Rest::After(next) if lane.rows.is_empty() => next,
            _ => lane.given,
        })
    }

    /// Whether there may be more than was given.
    pub(super) fn has_more(&self) -> bool {
        self.lanes.iter().any(|lane| !lane.rows.is_empty() || lane.rest != Rest::Nothing)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info(half_id: u64, prepared_at: i64) -> TransactionInfo {
        TransactionInfo { half_id, prepared_at, ..TransactionInfo::default() }
    }

    /// Answers as brokers do that have these transactions, in pages of two.
    fn take(merge: &mut Merge, brokers: &[Vec<TransactionInfo>], limit: usize) -> Vec<(usize, u64)> {
        let mut taken = Vec::new();
        while taken.len() < limit {
            match merge.step() {
                Step::Fetch(at, after) => {
                    let mut rest = brokers[at].iter().filter(|info| Some(info.half_id) > after).cloned();
                    let transactions: Vec<_> = rest.by_ref().take(2).collect();
                    let next = rest.next().and(transactions.last()).map(|last| last.half_id);
                    merge.page(at, TransactionPage { next, transactions });
                }
                Step::Row(at, row) => taken.push((at, row.half_id)),
                Step::End => break,
            }
        }
        taken
    }

    #[test]
    fn pages_of_brokers_become_one_list_and_cursors_continue_it() {
        let brokers = [
            (1..=5).map(|n| info(n, n.cast_signed() * 10)).collect::<Vec<_>>(),
            vec![info(100, 5), info(200, 25), info(300, 26)],
            Vec::new(),
        ];
        let whole = take(&mut Merge::new([None; 3]), &brokers, usize::MAX);
        assert_eq!(whole, [(1, 100), (0, 1), (0, 2), (1, 200), (1, 300), (0, 3), (0, 4), (0, 5)]);
        for limit in 1..=whole.len() {
            let mut pages = Vec::new();
            let mut starts = vec![None; 3];
            loop {
                let mut merge = Merge::new(starts);
                pages.extend(take(&mut merge, &brokers, limit));
                if !merge.has_more() {
                    break;
                }
                starts = merge.cursors().collect();
            }
            assert_eq!(pages, whole, "in pages of {limit}");
        }
    }

    #[test]
    fn an_empty_page_with_a_next_one_is_followed_and_a_repeated_one_is_not() {
        let mut merge = Merge::new([None]);
        assert_eq!(merge.step(), Step::Fetch(0, None));
        merge.page(0, TransactionPage { next: Some(50), transactions: Vec::new() });
        assert_eq!(merge.cursors().next(), Some(Some(50)));
        assert_eq!(merge.step(), Step::Fetch(0, Some(50)));
        merge.page(0, TransactionPage { next: Some(50), transactions: Vec::new() });
        assert_eq!(merge.step(), Step::End);
    }

    #[test]
    fn a_broker_that_does_not_answer_is_left_out() {
        let mut merge = Merge::new([Some(3), None]);
        assert_eq!(merge.step(), Step::Fetch(0, Some(3)));
        merge.give_up(0);
        assert_eq!(merge.step(), Step::Fetch(1, None));
        merge.page(1, TransactionPage { next: None, transactions: vec![info(1, 1)] });
        assert!(matches!(merge.step(), Step::Row(1, _)));
        assert_eq!(merge.cursors().collect::<Vec<_>>(), [Some(3), Some(1)]);
    }
}
