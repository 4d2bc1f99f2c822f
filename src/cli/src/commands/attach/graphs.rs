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
    /// Why there are none.
    refused: Option<String>,
    /// Number of the last that was told of.
    told: u32,
}

impl Graphs {
    /// Takes what the collector says.
    pub(super) fn update(&mut self, states: Vec<GraphState>) {
        self.states = states;
        let asked: Vec<&GraphState> = self.asked().collect();
        let is_settled = asked.iter().all(|state| state.outcome.is_settled());
        // Before it knows of those that were asked for, it may have news of others.
        if !asked.is_empty() && is_settled {
            self.is_expected = false;
        }
    }

    /// There will be none of those that were asked for.
    pub(super) fn refuse(&mut self, why: String) {
        self.is_expected = false;
        self.refused = Some(why);
    }

    /// What is to be said of those that were asked for and are not there, now that nobody
    /// waits any longer. Of a program that never had one nothing.
    pub(super) fn missing(&self) -> Vec<String> {
        let late = self.asked().filter(|state| !state.outcome.is_settled());
        let late = late.map(|state| {
            let GraphState { number, pid, .. } = state;
            format!(
                "heap graph {number} of process {pid} was not waited for: the process did not \
                 come by, or it took too long"
            )
        });
        let refused = self.refused.iter().filter(|_| self.told > 0);
        let refused = refused.map(|why| format!("heap graphs cannot be taken now: {why}"));
        late.chain(refused).collect()
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

    /// Whether one is being taken, of whatever name: others wait for it.
    pub(super) fn is_any_begun(&self) -> bool {
        let mut states = self.states.iter();
        states.any(|state| state.outcome == GraphOutcome::Begun)
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
        assert!(graphs.missing().is_empty());
        // There is no Python in it.
        graphs.refuse("nobody is there".into());
        assert!(!graphs.is_expected && graphs.missing().is_empty());
        // But there was.
        graphs.take_settled();
        assert_eq!(graphs.missing().len(), 1);
    }

    #[test]
    fn one_that_waits_for_another_is_waited_for() {
        let mut graphs = Graphs {
            name: "detach".into(),
            is_expected: true,
            ..Graphs::default()
        };
        graphs.update(vec![
            state(3, "growth", GraphOutcome::Begun),
            state(4, "detach", GraphOutcome::Waiting),
        ]);
        assert!(graphs.is_expected && graphs.is_any_begun());
    }

    #[test]
    fn who_is_not_waited_for_is_named() {
        let mut graphs = Graphs {
            name: "detach".into(),
            is_expected: true,
            ..Graphs::default()
        };
        graphs.update(vec![state(3, "detach", GraphOutcome::Waiting)]);
        let [missing] = &graphs.missing()[..] else {
            panic!("one is missing");
        };
        assert!(missing.starts_with("heap graph 3 of process 7"));
    }
}
