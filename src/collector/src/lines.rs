//! Line tables of Python code objects: which line each instruction is on.
//!
//! Three formats (`Objects/lnotab_notes.txt`, `Objects/locations.md` of
//! CPython): 3.9's byte deltas, 3.10's ranges, and 3.11's location table.

/// Most entries kept of one table; no real function comes near.
const MAX_ENTRIES: usize = 1 << 20;

/// Reads a line table of `format` (see `leakline_wire::blob::CodeDef`).
///
/// Instruction offsets in bytes, rising, and the line that begins there; 0
/// where the instructions have no line. Nonsense in the table ends it early.
pub(crate) fn decode(format: u8, first_line: u32, table: &[u8]) -> Vec<(u32, u32)> {
    let mut lines = Lines {
        entries: Vec::new(),
    };
    match format {
        9 => deltas(first_line, table, &mut lines),
        10 => ranges(first_line, table, &mut lines),
        11 => locations(first_line, table, &mut lines),
        _ => lines.starts(0, i64::from(first_line)),
    }
    lines.entries
}

struct Lines {
    entries: Vec<(u32, u32)>,
}

impl Lines {
    fn starts(&mut self, offset: u32, line: i64) {
        let line = u32::try_from(line).unwrap_or(0);
        match self.entries.last_mut() {
            Some(last) if last.0 == offset => last.1 = line,
            Some(last) if last.1 == line => {}
            _ => {
                if self.entries.len() < MAX_ENTRIES {
                    self.entries.push((offset, line));
                }
            }
        }
    }
}

fn deltas(first_line: u32, table: &[u8], lines: &mut Lines) {
    let (mut offset, mut line) = (0u32, i64::from(first_line));
    lines.starts(offset, line);
    for pair in table.chunks_exact(2) {
        offset = offset.saturating_add(pair[0].into());
        line += i64::from(pair[1].cast_signed());
        lines.starts(offset, line);
    }
}

fn ranges(first_line: u32, table: &[u8], lines: &mut Lines) {
    const NO_LINE: i8 = -128;
    let (mut offset, mut line) = (0u32, i64::from(first_line));
    for pair in table.chunks_exact(2) {
        let change = pair[1].cast_signed();
        if change != NO_LINE {
            line += i64::from(change);
        }
        if pair[0] != 0 {
            lines.starts(offset, if change == NO_LINE { 0 } else { line });
        }
        offset = offset.saturating_add(pair[0].into());
    }
}

fn locations(first_line: u32, table: &[u8], lines: &mut Lines) {
    let (mut offset, mut line) = (0u32, i64::from(first_line));
    let mut rest = table;
    while let Some((&head, mut tail)) = rest.split_first() {
        let units = u32::from(head & 7) + 1;
        let has_line = match head >> 3 & 15 {
            15 => false,
            // Long form and the one without columns: a signed varint.
            13 | 14 => {
                let Some(change) = signed_varint(&mut tail) else {
                    return;
                };
                line += change;
                true
            }
            code @ 10..=12 => {
                line += i64::from(code - 10);
                true
            }
            _ => true,
        };
        lines.starts(offset, if has_line { line } else { 0 });
        // Code units are two bytes.
        offset = offset.saturating_add(units * 2);
        // Only the first byte of an entry has its top bit set: what is left
        // of this one (columns) is skipped by that.
        let next = tail
            .iter()
            .position(|byte| byte & 0x80 != 0)
            .unwrap_or(tail.len());
        rest = &tail[next..];
    }
}

/// Six bits a byte, lowest first, bit 6 = more follow; the lowest bit of the
/// whole is the sign.
fn signed_varint(bytes: &mut &[u8]) -> Option<i64> {
    let mut value = 0u64;
    let mut shift = 0;
    loop {
        let (&byte, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(byte & 63).checked_shl(shift)?;
        if byte & 64 == 0 {
            break;
        }
        shift += 6;
    }
    let magnitude = (value >> 1).cast_signed();
    Some(if value & 1 == 0 {
        magnitude
    } else {
        -magnitude
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_location_table_of_3_11_reads_as_co_lines_does() {
        // def f(x):        # line 1
        //     y = x + 1    # line 2
        //     return y     # line 3
        let table = [
            0x80, 0x00, 0xd8, 0x08, 0x09, 0x88, 0x41, 0x89, 0x05, 0x80, 0x41, 0xd8, 0x0b, 0x0c,
            0x80, 0x48,
        ];
        assert_eq!(decode(11, 1, &table), [(0, 1), (2, 2), (12, 3)]);
    }

    #[test]
    fn locations_without_line_are_line_0() {
        let table = [0xf8, 0xe8, 0x02, 0xf8];
        assert_eq!(decode(11, 7, &table), [(0, 0), (2, 8), (4, 0)]);
    }

    #[test]
    fn ranges_of_3_10() {
        let table = [4, 1, 2, 0x80, 6, 0xff, 0, 5, 2, 0];
        assert_eq!(decode(10, 10, &table), [(0, 11), (4, 0), (6, 10), (12, 15)]);
    }

    #[test]
    fn deltas_of_3_9() {
        let table = [0, 1, 8, 1, 10, 0xff];
        assert_eq!(decode(9, 5, &table), [(0, 6), (8, 7), (18, 6)]);
    }

    proptest! {
        #[test]
        fn any_bytes_give_rising_offsets(format in 8..13u8, first: u32, table: Vec<u8>) {
            let lines = decode(format, first, &table);
            prop_assert!(lines.windows(2).all(|pair| pair[0].0 < pair[1].0));
        }
    }
}
