//! Stamps of events and nanoseconds of the session, and the way between them.
//!
//! Producers stamp with the time-stamp counter where the kernel itself trusts
//! it, else with the monotonic clock. The counter's rate is measured against
//! the monotonic clock from the session's first to its latest instant.

use leakline_wire::layout::clock;
use rustix::time::{ClockId, clock_gettime};

/// One instant on both clocks.
#[derive(Clone, Copy, Debug)]
struct Instant {
    stamp: u64,
    monotonic_ns: u64,
}

/// The session's clock.
#[derive(Debug)]
pub(crate) struct Clock {
    kind: u32,
    first: Instant,
    /// Stamps are converted by their distance from here.
    anchor: Instant,
    ns_per_tick: f64,
    started_unix_ns: u64,
}

impl Clock {
    /// Starts the session's time, on the best clock of this machine.
    pub(crate) fn start() -> Self {
        Self::start_on(if tsc_is_trusted() {
            clock::TSC
        } else {
            clock::MONOTONIC
        })
    }

    fn start_on(kind: u32) -> Self {
        let first = read_both(kind);
        Clock {
            kind,
            first,
            anchor: first,
            ns_per_tick: 1.0,
            started_unix_ns: nanoseconds(ClockId::Realtime),
        }
    }

    /// One of [`leakline_wire::layout::clock`].
    pub(crate) fn kind(&self) -> u32 {
        self.kind
    }

    /// Wall clock at time 0, nanoseconds since 1970.
    pub(crate) fn started_unix_ns(&self) -> u64 {
        self.started_unix_ns
    }

    /// Now, as a stamp. Loads that follow in the program happen after it.
    pub(crate) fn now(&self) -> u64 {
        stamp(self.kind)
    }

    /// Measures the counter's rate again, over the session so far.
    pub(crate) fn calibrate(&mut self) {
        if self.kind != clock::TSC {
            return;
        }
        let mut now = read_both(self.kind);
        // The first measurement wants a distance that dwarfs its own error.
        while now.monotonic_ns - self.first.monotonic_ns < 1_000_000 {
            std::thread::sleep(std::time::Duration::from_micros(200));
            now = read_both(self.kind);
        }
        let ticks = now.stamp.saturating_sub(self.first.stamp).max(1);
        self.ns_per_tick = (now.monotonic_ns - self.first.monotonic_ns) as f64 / ticks as f64;
        self.anchor = now;
    }

    /// Nanoseconds since the session began; 0 for stamps from before.
    pub(crate) fn ns(&self, stamp: u64) -> u64 {
        let ticks = stamp.wrapping_sub(self.anchor.stamp).cast_signed();
        let since_anchor = (ticks as f64 * self.ns_per_tick) as i64;
        let anchor = (self.anchor.monotonic_ns - self.first.monotonic_ns).cast_signed();
        anchor.saturating_add(since_anchor).max(0).cast_unsigned()
    }

    /// The stamp of an instant of the session.
    pub(crate) fn stamp(&self, ns: u64) -> u64 {
        let anchor = self.anchor.monotonic_ns - self.first.monotonic_ns;
        let since_anchor = ns.wrapping_sub(anchor).cast_signed();
        let ticks = (since_anchor as f64 / self.ns_per_tick) as i64;
        self.anchor.stamp.wrapping_add(ticks.cast_unsigned())
    }

    /// How long so many ticks are.
    pub(crate) fn span_ns(&self, ticks: u64) -> u64 {
        (ticks as f64 * self.ns_per_tick) as u64
    }

    /// As many ticks as a span of `ns`.
    pub(crate) fn ticks(&self, ns: u64) -> u64 {
        (ns as f64 / self.ns_per_tick) as u64
    }
}

fn nanoseconds(id: ClockId) -> u64 {
    let time = clock_gettime(id);
    time.tv_sec.cast_unsigned() * 1_000_000_000 + time.tv_nsec.cast_unsigned()
}

/// Now, on a clock of [`leakline_wire::layout::clock`].
#[cfg(target_arch = "x86_64")]
pub(crate) fn stamp(kind: u32) -> u64 {
    if kind != clock::TSC {
        return nanoseconds(ClockId::Monotonic);
    }
    // SAFETY: both instructions exist on every x86-64 CPU. The fence keeps
    // later loads (of rings' heads) from being done before the counter is
    // read, which is what makes the cut in `order` consistent.
    unsafe {
        let now = core::arch::x86_64::_rdtsc();
        core::arch::x86_64::_mm_lfence();
        now
    }
}

/// Now, on a clock of [`leakline_wire::layout::clock`].
#[cfg(not(target_arch = "x86_64"))]
pub(crate) fn stamp(_kind: u32) -> u64 {
    nanoseconds(ClockId::Monotonic)
}

/// Reads both clocks; of some tries the one that was disturbed least.
fn read_both(kind: u32) -> Instant {
    let mut best = Instant {
        stamp: 0,
        monotonic_ns: 0,
    };
    let mut best_width = u64::MAX;
    for _ in 0..4 {
        let before = stamp(kind);
        let monotonic_ns = nanoseconds(ClockId::Monotonic);
        let width = stamp(kind).saturating_sub(before);
        if width < best_width {
            best_width = width;
            best = Instant {
                stamp: before + width / 2,
                monotonic_ns,
            };
        }
    }
    best
}

/// Whether the counter runs at one rate on all CPUs, asleep or awake, by the
/// kernel's own judgement.
pub fn tsc_is_trusted() -> bool {
    if !cfg!(target_arch = "x86_64") {
        return false;
    }
    let source = "/sys/devices/system/clocksource/clocksource0/current_clocksource";
    let chosen = std::fs::read_to_string(source).is_ok_and(|name| name.trim() == "tsc");
    chosen
        && std::fs::read_to_string("/proc/cpuinfo").is_ok_and(|text| {
            text.lines()
                .find(|line| line.starts_with("flags"))
                .is_some_and(|flags| {
                    ["constant_tsc", "nonstop_tsc"]
                        .iter()
                        .all(|flag| flags.split_ascii_whitespace().any(|word| word == *flag))
                })
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stamps_and_nanoseconds_go_both_ways() {
        for kind in [clock::TSC, clock::MONOTONIC] {
            let mut clock = Clock::start_on(kind);
            clock.calibrate();
            let now = clock.now();
            let ns = clock.ns(now);
            assert!(clock.stamp(ns).abs_diff(now) <= clock.ticks(1_000));
            assert!(
                clock
                    .ns(now + clock.ticks(1_000_000))
                    .abs_diff(ns + 1_000_000)
                    < 1_000
            );
        }
    }

    #[test]
    fn instants_before_the_session_are_its_beginning() {
        let clock = Clock::start_on(clock::MONOTONIC);
        assert_eq!(clock.ns(0), 0);
    }
}
