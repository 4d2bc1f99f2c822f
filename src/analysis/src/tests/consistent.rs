//! Figures of a recording as a recorder makes it, at any instant: what is live
//! was allocated, whatever bins leave out.

use leakline_recording::record::{Counters, Domain, Record};
use proptest::collection::vec;
use proptest::prelude::*;

use crate::testing::{Builder, SECOND, origin};
use crate::{Instant, Model, Span};

const SITES: usize = 3;

/// What a site does in the time of one event.
#[derive(Clone, Debug)]
enum Event {
    Allocate(usize, u64),
    /// Frees its oldest block.
    Free(usize),
    /// A bin ends here, without the sites that moved little or with them.
    EndBin {
        complete: bool,
    },
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        5 => (0..SITES, prop_oneof![1..100_u64, 1..200_000_u64])
            .prop_map(|(site, bytes)| Event::Allocate(site, bytes)),
        4 => (0..SITES).prop_map(Event::Free),
        2 => prop::bool::weighted(0.3).prop_map(|complete| Event::EndBin { complete }),
    ]
}

/// Records what happens as the recorder does.
fn record(events: &[Event]) -> Vec<Record> {
    let mut b = Builder::new(&["app"]);
    let process = b.process(10, &["app"]);
    let node = b.native(0, 0, 0x10);
    let sites = [(); SITES].map(|()| b.site(process, node, Domain::Native));
    let mut blocks: [Vec<u64>; SITES] = Default::default();
    let mut now = [Counters::default(); SITES];
    let mut told = now;
    let mut peak = (0, 0, Vec::new());
    let mut at_ns = 0;
    for event in events.iter().chain([&Event::EndBin { complete: true }]) {
        at_ns += SECOND;
        match *event {
            Event::Allocate(site, bytes) => {
                blocks[site].push(bytes);
                now[site].live_bytes += bytes;
                now[site].live_blocks += 1;
                now[site].total_bytes += bytes;
                now[site].total_blocks += 1;
            }
            Event::Free(site) if blocks[site].is_empty() => {}
            Event::Free(site) => {
                now[site].live_bytes -= blocks[site].remove(0);
                now[site].live_blocks -= 1;
            }
            Event::EndBin { complete } => {
                let mut points = Vec::new();
                for site in 0..SITES {
                    let (told, now) = (&mut told[site], now[site]);
                    let moved = now.live_bytes.abs_diff(told.live_bytes);
                    if complete || moved >= (64 << 10).max(told.live_bytes / 100) {
                        *told = now;
                        points.push((sites[site], now));
                    }
                }
                b.bin(at_ns, &points);
                if let Some(Record::Bin(bin)) = b.records.last_mut() {
                    bin.complete = complete;
                }
            }
        }
        let live: u64 = now.iter().map(|site| site.live_bytes).sum();
        if live > peak.0 {
            let held = sites.iter().zip(now);
            let held = held.map(|(&site, now)| (site, now.live_bytes, now.live_blocks));
            peak = (live, at_ns, held.collect());
        }
    }
    b.peak(peak.1, &peak.2);
    b.process_end(process, at_ns, Some(0));
    b.end(at_ns);
    b.records
}

proptest! {
    #[test]
    fn what_is_live_was_allocated(events in vec(event(), 0..60)) {
        let records = record(&events);
        let model = Model::new(&records, origin());
        let mut instants = vec![Instant::Peak];
        instants.extend((0..=events.len() as u64 + 1).map(|at| Instant::After(at * SECOND)));
        let peak_ns = model.high_water().at_ns;
        for to in &instants {
            let span = Span::at(&model, to).unwrap();
            for figures in model.figures(&span) {
                prop_assert!(figures.total_bytes as i64 >= figures.live_bytes, "{to:?}: {figures:?}");
                prop_assert!(figures.total_blocks as i64 >= figures.live_blocks, "{to:?}: {figures:?}");
                if span.to().resolved_ns() >= peak_ns {
                    prop_assert!(figures.total_bytes >= figures.peak_bytes, "{to:?}: {figures:?}");
                    prop_assert!(figures.total_blocks >= figures.peak_blocks, "{to:?}: {figures:?}");
                }
            }
            for from in &instants {
                let Ok(span) = Span::between(&model, from, to) else { continue };
                for figures in model.figures(&span) {
                    prop_assert!(figures.total_bytes as i64 >= figures.delta_bytes, "{from:?}-{to:?}: {figures:?}");
                    prop_assert!(figures.total_blocks as i64 >= figures.delta_blocks, "{from:?}-{to:?}: {figures:?}");
                }
            }
        }
    }
}
