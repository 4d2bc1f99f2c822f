//! Heap graphs of an attached session, as its supervisor hears of them.

use std::time::Duration;

use leakline_collector::protocol::{GraphOutcome, GraphState};

/// Those that were asked for last.
#[derive(Debug, Default)]
pub(super) struct Graphs {
    /// What they are called.
    pub(super) name: String,
    /// Not all of them are settled.
    pub(super) is_expected: bool,
    states: Vec<GraphState>,
    /// Number of the last that was told of.
    told: u32,
}

impl Graphs {
    /// Takes what the collector says. Nothing: there is no process to take one of.
    pub(super) fn update(&mut self, states: Vec<GraphState>) {
        self.states = states;
        let asked: Vec<&GraphState> = self.asked().collect();
        let is_settled = asked.iter().all(|state| state.outcome.is_settled());
        // Before it knows of those that were asked for, it may have news of others.
        if self.states.is_empty() || !asked.is_empty() && is_settled {
            self.is_expected = false;
        }
    }

    fn asked(&self) -> impl Iterator<Item = &GraphState> {
        self.states.iter().filter(|state| state.name == self.name)
    }

    /// How far they are: changes with each step.
    pub(super) fn progress(&self) -> (usize, usize) {
        let begun = |state: &&GraphState| state.outcome != GraphOutcome::Waiting;
        let settled = |state: &&GraphState| state.outcome.is_settled();
        (
            self.asked().filter(begun).count(),
            self.asked().filter(settled).count(),
        )
    }

    /// Whether one is being taken.
    pub(super) fn is_any_begun(&self) -> bool {
        self.asked()
            .any(|state| state.outcome == GraphOutcome::Begun)
    }

    /// How long a process stood still for one of them, at most.
    pub(super) fn longest_pause(&self) -> Duration {
        let pauses = self.states.iter().map(|state| match state.outcome {
            GraphOutcome::Taken { paused_ns, .. } => Duration::from_nanos(paused_ns),
            _ => Duration::ZERO,
        });
        pauses.max().unwrap_or_default()
    }

    /// Those that are settled since this was last called, in their order.
    pub(super) fn take_settled(&mut self) -> Vec<GraphState> {
        let told = self.told;
        let settled: Vec<GraphState> = self
            .states
            .iter()
            .filter(|state| state.number > told)
            .take_while(|state| state.outcome.is_settled())
            .cloned()
            .collect();
        self.told = settled.last().map_or(told, |last| last.number);
        settled
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(number: u32, name: &str, outcome: GraphOutcome) -> GraphState {
        GraphState {
            number,
            pid: 7,
            name: name.into(),
            outcome,
            has_objects: true,
            lost: None,
        }
    }

    #[test]
    fn each_is_told_once_and_in_order() {
        let refused = || GraphOutcome::Refused("no memory".into());
        let mut graphs = Graphs {
            name: "attach".into(),
            is_expected: true,
            ..Graphs::default()
        };
        graphs.update(vec![
            state(1, "attach", GraphOutcome::Begun),
            state(2, "attach", refused()),
        ]);
        assert!(graphs.take_settled().is_empty());
        assert!(graphs.is_any_begun() && graphs.is_expected);
        let before = graphs.progress();
        graphs.update(vec![
            state(1, "attach", refused()),
            state(2, "attach", refused()),
        ]);
        assert_ne!(graphs.progress(), before);
        let numbers = |told: Vec<GraphState>| told.iter().map(|one| one.number).collect::<Vec<_>>();
        assert_eq!(numbers(graphs.take_settled()), [1, 2]);
        assert!(graphs.take_settled().is_empty());
        assert!(!graphs.is_expected);
    }

    #[test]
    fn news_of_others_end_no_wait() {
        let mut graphs = Graphs {
            name: "detach".into(),
            is_expected: true,
            ..Graphs::default()
        };
        graphs.update(vec![state(
            1,
            "attach",
            GraphOutcome::Refused(String::new()),
        )]);
        assert!(graphs.is_expected);
        // There is no Python in it.
        graphs.update(Vec::new());
        assert!(!graphs.is_expected);
    }
}
