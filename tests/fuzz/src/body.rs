//! What the fuzz target and a property test of the reader share.
//!
//! Makes a file by the words of docs/format.md, not by the writer's code, so
//! that a fuzzer's bytes reach what lies behind the checksums.

use leakline_recording::record::{Frame, Record};
use leakline_recording::{Reader, Recording};
use std::io::Cursor;
use std::path::Path;

/// Reads `bytes` as a file, and as the content of a whole chunk of one.
pub(crate) fn run(bytes: &[u8]) {
    check(bytes);
    for kind in [1, 2] {
        let mut file = file_header();
        file.extend(chunk(kind, bytes));
        check(&file);
    }
}

/// Reads a file; whatever it holds, its records keep the reader's promises.
pub(crate) fn check(bytes: &[u8]) {
    let Ok(reader) = Reader::new(Cursor::new(bytes), Path::new("fuzz")) else {
        return;
    };
    let Ok(recording) = Recording::new(reader) else {
        return;
    };
    let mut counts = Counts::default();
    for (i, record) in recording.records().iter().enumerate() {
        assert!(i > 0 || matches!(record, Record::Session(_)));
        counts.check(record);
    }
}

#[derive(Default)]
struct Counts {
    processes: u32,
    threads: u32,
    modules: u32,
    codes: u32,
    nodes: u32,
    sites: u32,
}

impl Counts {
    /// Ids name what came before, node 0 being there from the start.
    fn check(&mut self, record: &Record) {
        match record {
            Record::Process(process) => {
                assert!(process.parent.is_none_or(|parent| parent < self.processes));
                self.processes += 1;
            }
            Record::ProcessEnd(end) => assert!(end.process < self.processes),
            Record::Thread(thread) => {
                assert!(thread.process < self.processes);
                self.threads += 1;
            }
            Record::Module(_) => self.modules += 1,
            Record::Code(_) => self.codes += 1,
            Record::Node(node) => {
                assert!(node.parent <= self.nodes);
                match node.frame {
                    Frame::Native {
                        module: Some(module),
                        ..
                    } => assert!(module < self.modules),
                    Frame::Python { code, .. } => assert!(code < self.codes),
                    Frame::Pair { python } => assert!(python <= self.nodes),
                    _ => {}
                }
                self.nodes += 1;
            }
            Record::Site(site) => {
                assert!(site.process < self.processes && site.node <= self.nodes);
                self.sites += 1;
            }
            Record::Symbols(symbols) => assert!(symbols.module < self.modules),
            Record::Bin(bin) => {
                assert!(bin.rss.iter().all(|&(process, _)| process < self.processes));
                assert!(bin.points.iter().all(|point| point.site < self.sites));
                assert!(
                    bin.points
                        .windows(2)
                        .all(|pair| pair[0].site < pair[1].site)
                );
            }
            Record::Peak(peak) => {
                assert!(peak.process.is_none_or(|process| process < self.processes));
                assert!(peak.sites.iter().all(|&(site, ..)| site < self.sites));
            }
            Record::Inherited(inherited) => {
                assert!(inherited.process < self.processes);
                assert!(inherited.sites.iter().all(|&(site, ..)| site < self.sites));
            }
            Record::Totals(totals) => assert!(totals.process < self.processes),
            Record::ThreadTotals(totals) => assert!(totals.thread < self.threads),
            Record::Loss(loss) => assert!(loss.process < self.processes),
            Record::Mark(mark) => assert!(mark.process.is_none_or(|id| id < self.processes)),
            _ => {}
        }
    }
}

fn file_header() -> Vec<u8> {
    let mut header = b"\x8bLKLN\r\n\x1a".to_vec();
    header.extend(1u16.to_le_bytes());
    header.extend(0u16.to_le_bytes());
    header.extend(32u32.to_le_bytes());
    header.extend(0u64.to_le_bytes());
    header.extend(0u32.to_le_bytes());
    header.extend(crc32fast::hash(&header).to_le_bytes());
    header
}

fn chunk(kind: u8, content: &[u8]) -> Vec<u8> {
    let payload = zstd::bulk::compress(content, 1).unwrap_or_default();
    let mut chunk = b"\xb7chunk\r\n".to_vec();
    chunk.extend([kind, 0, 0, 0]);
    chunk.extend((payload.len() as u32).to_le_bytes());
    chunk.extend((content.len() as u32).to_le_bytes());
    chunk.extend(crc32fast::hash(&payload).to_le_bytes());
    chunk.extend(0u64.to_le_bytes());
    chunk.extend((content.len() as u32).to_le_bytes());
    // Some ids to name, as if chunks before this one had been lost.
    for base in [2u32, 2, 2, 2, 2, 2] {
        chunk.extend(base.to_le_bytes());
    }
    chunk.extend(crc32fast::hash(&chunk).to_le_bytes());
    chunk.extend(payload);
    chunk
}
