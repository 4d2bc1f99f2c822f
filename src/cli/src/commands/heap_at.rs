//! When heap graphs are taken: `--heap` and `--heap-at` of `run` and `attach`.

use std::time::Duration;

use leakline_collector::protocol::{GraphAt, GraphPlan, NAME_BYTES};

/// When heap graphs are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Heap {
    /// By themselves, where there is memory enough.
    Auto,
    /// Only when asked for.
    Never,
}

/// An instant at which a heap graph is asked for beforehand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum HeapAt {
    /// The end.
    Exit,
    /// Whenever more lives than ever.
    Peak,
    /// So long after the beginning; as it was written.
    After(String, Duration),
}

pub(crate) fn parse_heap_at(text: &str) -> Result<HeapAt, String> {
    let wrong = || "not `exit`, `peak` or a time after the beginning such as `+90s`".to_owned();
    match text {
        "exit" => Ok(HeapAt::Exit),
        "peak" => Ok(HeapAt::Peak),
        _ => {
            let time = text.strip_prefix('+').filter(|_| text.len() <= NAME_BYTES);
            let time = super::attach::parse_duration(time.ok_or_else(wrong)?);
            Ok(HeapAt::After(text.to_owned(), time.map_err(|_| wrong())?))
        }
    }
}

/// What the collector is to take by itself.
pub(crate) fn plan(is_auto: bool, asked: &[HeapAt]) -> GraphPlan {
    let after = asked.iter().filter_map(|at| match at {
        HeapAt::After(name, after) => Some(GraphAt {
            name: name.clone(),
            after: *after,
        }),
        HeapAt::Exit | HeapAt::Peak => None,
    });
    GraphPlan {
        auto: is_auto,
        peak: asked.contains(&HeapAt::Peak),
        at: after.collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instants_are_words_or_times_after_the_beginning() {
        assert_eq!(parse_heap_at("exit"), Ok(HeapAt::Exit));
        assert_eq!(parse_heap_at("peak"), Ok(HeapAt::Peak));
        for (text, seconds) in [("+90s", 90.0), ("+1h30m", 5400.0), ("+0.5", 0.5)] {
            let after = Duration::from_secs_f64(seconds);
            assert_eq!(
                parse_heap_at(text),
                Ok(HeapAt::After(text.into(), after)),
                "{text}"
            );
        }
        let long = format!("+{}s", "0".repeat(NAME_BYTES));
        for wrong in ["", "end", "Peak", "90s", "+", "+0s", "+soon", "+-1s", &long] {
            let error = parse_heap_at(wrong).unwrap_err();
            assert!(error.contains("`exit`, `peak`"), "{wrong}: {error}");
        }
    }

    #[test]
    fn what_is_asked_for_is_planned_beside_what_is_not() {
        let asked = ["exit", "+2s", "peak", "+1m"].map(|text| parse_heap_at(text).unwrap());
        let planned = plan(false, &asked);
        assert!(planned.peak && !planned.auto);
        let at: Vec<(&str, u64)> = planned
            .at
            .iter()
            .map(|at| (at.name.as_str(), at.after.as_secs()))
            .collect();
        assert_eq!(at, [("+2s", 2), ("+1m", 60)]);
        assert_eq!(
            plan(true, &[]),
            GraphPlan {
                auto: true,
                ..GraphPlan::default()
            }
        );
    }
}
