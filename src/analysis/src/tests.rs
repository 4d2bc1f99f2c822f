//! Whole reports over hand-made recordings.

use std::io::Write;

use insta::assert_snapshot;
use leakline_recording::record::Record;

use crate::report::{Style, json, text};
use crate::testing::{origin, training};
use crate::*;

fn report(
    records: &[Record],
    width: usize,
    write: impl for<'a> Fn(&Model<'a>, &mut Stacks<'a>, Style, &mut dyn Write) -> std::io::Result<()>,
) -> String {
    let model = Model::new(records, origin());
    let mut stacks = Stacks::new(&model);
    let mut out = Vec::new();
    write(
        &model,
        &mut stacks,
        Style {
            width,
            colour: false,
            boxes: true,
        },
        &mut out,
    )
    .unwrap();
    String::from_utf8(out).unwrap()
}

fn query(model: &Model<'_>) -> TopQuery {
    TopQuery {
        span: Span::whole(model),
        by: GroupBy::Site,
        measure: Measure::Live,
        unit: Unit::Bytes,
        limit: None,
        filter: None,
    }
}

fn show_top(width: usize, by: GroupBy) -> String {
    report(&training(), width, |model, stacks, style, out| {
        let top = Top::new(model, stacks, TopQuery { by, ..query(model) });
        text::top(model, stacks, &top, style, out)
    })
}

#[test]
fn top_by_site() {
    println!("{}", show_top(80, GroupBy::Site));
    println!("{}", show_top(120, GroupBy::Site));
    for by in [
        GroupBy::Line,
        GroupBy::Function,
        GroupBy::File,
        GroupBy::Library,
        GroupBy::Process,
        GroupBy::Thread,
    ] {
        println!("{}", show_top(80, by));
    }
    println!(
        "{}",
        report(&training(), 80, |model, stacks, style, out| {
            let t = Tree::new(
                model,
                stacks,
                TreeQuery {
                    span: Span::at(model, &Instant::Peak).unwrap(),
                    measure: Measure::Live,
                    unit: Unit::Bytes,
                    inverted: false,
                    threshold: 0.0,
                    limit: None,
                    filter: None,
                    all_frames: false,
                },
            );
            text::tree(model, stacks, &t, style, out)
        })
    );
    println!(
        "{}",
        report(&training(), 80, |model, stacks, style, out| {
            let t = Tree::new(
                model,
                stacks,
                TreeQuery {
                    span: Span::whole(model),
                    measure: Measure::Live,
                    unit: Unit::Bytes,
                    inverted: true,
                    threshold: 0.01,
                    limit: None,
                    filter: None,
                    all_frames: false,
                },
            );
            text::tree(model, stacks, &t, style, out)
        })
    );
    println!(
        "{}",
        report(&training(), 80, |model, stacks, style, out| {
            let f = Lines::find_file(model, stacks, "train.py").unwrap();
            let t = Lines::new(
                model,
                stacks,
                LinesQuery {
                    span: Span::whole(model),
                    inclusive: false,
                    sort: None,
                    limit: None,
                    filter: None,
                },
                f,
                None,
            );
            text::lines(model, &t, style, out)
        })
    );
    println!(
        "{}",
        report(&training(), 80, |model, _stacks, style, out| {
            text::stats(model, &Stats::new(model), style, out)
        })
    );
    println!(
        "{}",
        report(&training(), 80, |model, stacks, style, out| {
            let s = Summary::new(model, stacks, Some(5));
            text::summary(model, stacks, &s, style, out)
        })
    );
    println!(
        "{}",
        report(&training(), 80, |model, stacks, _, out| {
            let top = Top::new(
                model,
                stacks,
                TopQuery {
                    limit: Some(2),
                    span: Span::between(model, &Instant::After(60_000_000_000), &Instant::End)
                        .unwrap(),
                    measure: Measure::Growth,
                    ..query(model)
                },
            );
            text::top(
                model,
                stacks,
                &top,
                Style {
                    width: 80,
                    colour: false,
                    boxes: false,
                },
                out,
            )?;
            json::top(model, stacks, &top, out)
        })
    );
    assert_snapshot!("", @"");
}
