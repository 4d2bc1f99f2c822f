//! What a busy day's recording may take: 100 MB at 20,000 sites.
#![expect(clippy::unwrap_used, reason = "a test")]

#[path = "day/model.rs"]
mod model;

use leakline_recording::{Detail, Writer};
use std::fs::File;

/// A hundredth of the sites in a hundredth of the bytes; `examples/day` takes
/// all of them.
#[test]
fn a_day_at_twenty_thousand_sites_fits_into_a_hundred_megabytes() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("day.leakline");
    let file = File::options()
        .read(true)
        .write(true)
        .create_new(true)
        .open(&path)
        .unwrap();
    let mut writer = Writer::new(file).unwrap();
    let shape = model::Shape {
        sites: 200,
        large_one_in: 100,
        step_seconds: 10,
    };
    let mut day = model::Day::new(shape, &mut writer);
    for at in 1..=24 * 360 {
        day.step(&mut writer);
        // As often as the writer would ask for it, were it a hundred times as
        // large; small as it is, it would be kept in full detail.
        if at % 150 == 0 {
            day.compact(&mut writer, Detail::Thinned, &path);
        }
    }
    assert_eq!(day.quiet_sites(), 198);
    assert!(day.most_bytes < 1_000_000, "{} bytes", day.most_bytes);
    day.check(&path);
}
