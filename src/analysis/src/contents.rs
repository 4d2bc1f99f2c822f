//! What a recording holds, as a [`Model`](crate::Model) wants it: small.
//!
//! Records take 150 bytes each, and nearly all of a recording's are nodes, sites
//! and points. Nodes and sites are kept as lists of their own, points packed.

use std::path::Path;

use leakline_recording::record::{Record, Site};
use leakline_recording::{OpenError, Reader};

use crate::nodes::Nodes;
use crate::timeline::Timeline;

/// See the module.
#[derive(Debug)]
pub struct Contents {
    records: Vec<Record>,
    nodes: Nodes,
    sites: Vec<Site>,
    timeline: Timeline,
    /// Processes whose end was told since the last complete bin.
    ended: Vec<u32>,
}

impl Default for Contents {
    fn default() -> Self {
        Contents::new()
    }
}

impl Contents {
    /// Of nothing.
    pub fn new() -> Self {
        Contents {
            records: Vec::new(),
            nodes: Nodes::new(),
            sites: Vec::new(),
            timeline: Timeline::new(),
            ended: Vec::new(),
        }
    }

    /// Reads a recording; gives what read it, too, for what it says of damage.
    ///
    /// # Errors
    ///
    /// See [`OpenError`]. Damage is no error.
    pub fn open(path: &Path) -> Result<(Self, Reader), OpenError> {
        let mut contents = Contents::new();
        let mut reader = Reader::open(path)?;
        reader.read(&mut |record| contents.push(record))?;
        Ok((contents, reader))
    }

    /// Takes the next record.
    pub fn push(&mut self, mut record: Record) {
        match &mut record {
            Record::Node(node) => return self.nodes.push(*node),
            Record::Site(site) => {
                self.timeline.add_site(site);
                self.sites.push(*site);
                return;
            }
            Record::Bin(bin) => {
                self.timeline.push(&std::mem::take(&mut bin.points));
                if bin.complete {
                    for process in self.ended.drain(..) {
                        self.timeline.close(process);
                    }
                }
            }
            Record::ProcessEnd(end) => self.ended.push(end.process),
            Record::End(_) => self.timeline.finish(),
            // What each site of a process held at that one's own high-water
            // mark is not asked for.
            Record::Peak(peak) if peak.process.is_some() => peak.sites = Vec::new(),
            // By far the largest of all: who asks for a graph reads it anew.
            Record::HeapPart(_) => return,
            _ => {}
        }
        self.records.push(record);
    }

    /// All other records: no nodes, no sites, no parts of heap graphs, and bins without their
    /// points.
    pub fn records(&self) -> &[Record] {
        &self.records
    }

    /// The nodes, by id, each behind those that it names.
    pub fn nodes(&self) -> &Nodes {
        &self.nodes
    }

    /// The sites, by id.
    pub fn sites(&self) -> &[Site] {
        &self.sites
    }

    /// The bins' points.
    pub fn timeline(&self) -> &Timeline {
        &self.timeline
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use leakline_recording::record::HeapPart;

    #[test]
    fn parts_of_heap_graphs_are_not_kept() {
        let mut contents = Contents::new();
        contents.push(Record::HeapPart(HeapPart {
            graph: 1,
            entries: vec![0; 100],
            sites: Vec::new(),
        }));
        assert!(contents.records().is_empty());
    }
}
