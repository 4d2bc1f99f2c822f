//! Figures in words, the same in every report.

/// `512 B`, `14.6 MiB`, `1.09 GiB`: one decimal, in GiB and above three
/// digits.
pub fn bytes(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut value = bytes as f64 / 1024.0;
    let mut unit = 0;
    // 1023.95 would round to 1024.0 of its unit.
    while value >= 1023.95 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    let decimals = match (unit, value) {
        (0 | 1, _) => 1,
        (_, value) if value < 9.995 => 2,
        (_, value) if value < 99.95 => 1,
        _ => 0,
    };
    format!("{value:.decimals$} {}", UNITS[unit])
}

/// What stands between an estimate and its error.
pub(super) fn plus_minus(boxes: bool) -> &'static str {
    if boxes { "±" } else { "+/-" }
}

/// `12.4 MiB ± 0.9`: bytes, and by how much they may be off, in the same unit;
/// without an error as [`bytes`].
pub fn bytes_within(value: u64, error: Option<u64>, boxes: bool) -> String {
    let Some(error) = error.filter(|error| *error > 0) else {
        return bytes(value);
    };
    // In the unit, and with the digits, of the larger of the two.
    let words = bytes(value.max(error));
    let (number, unit) = words.split_once(' ').unwrap_or((&words, "B"));
    let decimals = number.split_once('.').map_or(0, |(_, digits)| digits.len());
    let power = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"]
        .iter()
        .position(|known| *known == unit)
        .unwrap_or(0);
    let scaled = |bytes: u64| bytes as f64 / (power as f64 * 10.0).exp2();
    format!(
        "{:.decimals$} {unit} {} {:.decimals$}",
        scaled(value),
        plus_minus(boxes),
        scaled(error)
    )
}

/// `196,119 ± 4,020`: a count, and by how much it may be off.
pub(super) fn blocks_within(count: u64, error: Option<u64>, boxes: bool) -> String {
    match error.filter(|error| *error > 0) {
        Some(error) => format!("{} {} {}", blocks(count), plus_minus(boxes), blocks(error)),
        None => blocks(count),
    }
}

/// As [`bytes`], with a sign: `+1.5 MiB`, `-512 B`, `0 B`.
pub fn signed_bytes(value: i64) -> String {
    let sign = match value {
        0 => "",
        1.. => "+",
        _ => "-",
    };
    format!("{sign}{}", bytes(value.unsigned_abs()))
}

/// A count with thousands apart: `48,201,337`.
pub fn blocks(count: u64) -> String {
    let digits = count.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A count with a sign.
pub fn signed_blocks(value: i64) -> String {
    let sign = match value {
        0 => "",
        1.. => "+",
        _ => "-",
    };
    format!("{sign}{}", blocks(value.unsigned_abs()))
}

/// `350 ms`, `4.2 s`, `12 min 04 s`, `2 h 05 min`, `1 d 03 h`.
pub fn duration(ns: u64) -> String {
    const MS: u64 = 1_000_000;
    const S: u64 = 1000 * MS;
    match ns {
        0 => "0 s".into(),
        1..=999_999 => format!("{} us", ns.div_ceil(1000)),
        _ if ns < S => format!("{} ms", ns / MS),
        _ if ns < 60 * S => format!("{}.{} s", ns / S, ns % S / (100 * MS)),
        _ => {
            let seconds = ns / S;
            let (minutes, hours) = (seconds / 60, seconds / 3600);
            match hours {
                0 => format!("{minutes} min {:02} s", seconds % 60),
                1..24 => format!("{hours} h {:02} min", minutes % 60),
                _ => format!("{} d {:02} h", hours / 24, hours % 24),
            }
        }
    }
}

/// `3.2 k`, `48.2 M`: a rate's three digits.
pub fn rate(per_second: f64) -> String {
    match per_second {
        rate if rate < 999.5 => format!("{rate:.0}"),
        rate if rate < 999_500.0 => format!("{:.1} k", rate / 1e3),
        rate => format!("{:.1} M", rate / 1e6),
    }
}

/// `1 site`, `3 sites`, `2,000 sites`.
pub fn counted(count: u64, one: &str, many: &str) -> String {
    if count == 1 {
        format!("1 {one}")
    } else {
        format!("{} {many}", blocks(count))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_have_one_decimal_or_three_digits() {
        for (value, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (15_309_210, "14.6 MiB"),
            (1024 * 1024 - 1, "1.0 MiB"),
            (1_170_378_588, "1.09 GiB"),
            (107_374_182_400, "100 GiB"),
            (u64::MAX, "16.0 EiB"),
        ] {
            assert_eq!(bytes(value), text);
        }
        assert_eq!(signed_bytes(-2048), "-2.0 KiB");
        assert_eq!(signed_bytes(i64::MIN), "-8.00 EiB");
    }

    #[test]
    fn counts_are_grouped() {
        assert_eq!(blocks(0), "0");
        assert_eq!(blocks(999), "999");
        assert_eq!(blocks(48_201_337), "48,201,337");
        assert_eq!(signed_blocks(-1000), "-1,000");
    }

    #[test]
    fn durations_have_two_units() {
        for (seconds, text) in [
            (0.000_5, "500 us"),
            (0.35, "350 ms"),
            (4.25, "4.2 s"),
            (724.0, "12 min 04 s"),
            (7_500.0, "2 h 05 min"),
            (97_200.0, "1 d 03 h"),
        ] {
            assert_eq!(duration((seconds * 1e9) as u64), text);
        }
        assert_eq!(duration(0), "0 s");
    }
}
