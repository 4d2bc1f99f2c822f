//! A producer for tests: writes rings and stacks as an interposer does, and a
//! recording that lies in memory.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use leakline_recording::record::{Counters, Point, Record};
use leakline_wire::Kind;
use leakline_wire::blob::{CodeDef, Encoder, ModuleDef};
use leakline_wire::event::{BlobKind, Domain, head};
use leakline_wire::layout::{CHUNK_WORDS, mode, slot_state};
use leakline_wire::sync::Ordering;
use leakline_wire::trie::{NODES_PER_BLOCK, kind, native_frame, python_frame};

use crate::clock::{self, Clock};
use crate::engine::{Engine, Joined};
use crate::image::Shared;
use crate::output::{Output, Sink};
use crate::process::{self, Identity};
use crate::session::{Pool, SessionMap};

/// A recording in memory.
#[derive(Clone, Debug, Default)]
pub(crate) struct Records(Rc<RefCell<Vec<Record>>>);

impl Sink for Records {
    fn push(&mut self, record: Record) {
        self.0.borrow_mut().push(record);
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
    fn bytes(&self) -> u64 {
        0
    }
    fn dropped(&self) -> u64 {
        0
    }
}

impl Records {
    /// Everything so far, in order.
    pub(crate) fn all(&self) -> Vec<Record> {
        self.0.borrow().clone()
    }

    /// What `pick` makes of the records.
    pub(crate) fn pick<T>(&self, pick: impl Fn(&Record) -> Option<T>) -> Vec<T> {
        self.0.borrow().iter().filter_map(pick).collect()
    }

    /// Counters by site, summed up over the points of all bins.
    pub(crate) fn counters(&self) -> BTreeMap<u32, Counters> {
        let mut sites: BTreeMap<u32, Counters> = BTreeMap::new();
        for bin in self.pick(|record| match record {
            Record::Bin(bin) => Some(bin.clone()),
            _ => None,
        }) {
            assert!(
                bin.points
                    .windows(2)
                    .all(|pair| pair[0].site < pair[1].site)
            );
            for point in bin.points {
                add(sites.entry(point.site).or_default(), &point);
            }
        }
        sites
    }
}

fn add(counters: &mut Counters, point: &Point) {
    counters.live_bytes = counters.live_bytes.wrapping_add_signed(point.live_bytes);
    counters.live_blocks = counters.live_blocks.wrapping_add_signed(point.live_blocks);
    counters.total_bytes = counters.total_bytes.wrapping_add_signed(point.total_bytes);
    counters.total_blocks = counters
        .total_blocks
        .wrapping_add_signed(point.total_blocks);
    counters.temporary_blocks = counters
        .temporary_blocks
        .wrapping_add_signed(point.temporary_blocks);
    counters.resizes = counters.resizes.wrapping_add_signed(point.resizes);
}

/// An engine that records into memory.
pub(crate) fn engine(ring_bytes: u64, temporary_window: u32) -> (Engine, Records) {
    let mut clock = Clock::start();
    let session = Arc::new(SessionMap::create().unwrap());
    let pool = Pool::new(&session, ring_bytes).unwrap();
    clock.calibrate();
    session.header().clock.store(clock.kind(), Relaxed);
    session
        .header()
        .mode
        .store(mode::ON | mode::NATIVE | mode::FOLLOW, Relaxed);
    let records = Records::default();
    let shared = Shared::new(session, pool, clock, temporary_window);
    let engine = Engine::new(shared, Output::new(Box::new(records.clone())), u64::MAX);
    (engine, records)
}

/// A process of the session.
pub(crate) struct FakeProcess {
    pub(crate) session: Arc<SessionMap>,
    pub(crate) slot: u32,
    nodes: u32,
    rings: u32,
    forks: u32,
    modules: u32,
    codes: u32,
    last_stamp: Arc<AtomicU64>,
}

impl FakeProcess {
    /// Joins the engine's session, as after a handshake.
    pub(crate) fn join(engine: &mut Engine, pid: u32) -> Self {
        let session = engine.shared.session.clone();
        let slot = claim(&session);
        session
            .slot(slot)
            .unwrap()
            .parent_slot
            .store(u32::MAX, Relaxed);
        engine.join(Joined {
            slot,
            identity: Identity {
                pid,
                start_ticks: 1,
                ..Identity::default()
            },
            // Of a process that lives on.
            pidfd: process::watch(std::process::id()),
            stamp: engine.shared.clock.now(),
        });
        Self::in_slot(session, slot)
    }

    /// A process in a slot that it was given.
    pub(crate) fn in_slot(session: Arc<SessionMap>, slot: u32) -> Self {
        session
            .slot(slot)
            .unwrap()
            .state
            .store(slot_state::LIVE, Ordering::Release);
        FakeProcess {
            session,
            slot,
            nodes: 1,
            rings: 0,
            forks: 0,
            modules: 1,
            codes: 0,
            last_stamp: Arc::default(),
        }
    }

    /// A stamp later than all before it.
    pub(crate) fn now(&self) -> u64 {
        let kind = self.session.header().clock.load(Relaxed);
        let now = clock::stamp(kind).max(self.last_stamp.load(Relaxed) + 1);
        self.last_stamp.store(now, Relaxed);
        now
    }

    /// A ring for thread `tid`.
    pub(crate) fn thread(&mut self, tid: u32) -> FakeRing {
        let number = self.rings;
        self.rings += 1;
        let mut ring = FakeRing {
            session: self.session.clone(),
            slot: self.slot,
            number,
            chunk: None,
            position: 0,
            sequence: 0,
        };
        let mut name = [0; 8];
        name.copy_from_slice(b"thread-x");
        let words = [
            head(Kind::Thread, 0, tid.into()),
            self.now(),
            u64::from_le_bytes(name),
            0,
        ];
        assert!(ring.emit(&words));
        ring
    }

    /// A trie node.
    pub(crate) fn node(&mut self, parent: u32, kind: u32, frame: u64) -> u32 {
        let id = self.nodes;
        self.nodes += 1;
        let slot = self.session.slot(self.slot).unwrap();
        let block = &slot.trie[id as usize / NODES_PER_BLOCK];
        if block.load(Relaxed) == 0 {
            let chunk = self.session.free_list().pop().unwrap();
            block.store(chunk + 1, Ordering::Release);
        }
        slot.trie_nodes.store(id + 1, Relaxed);
        let node = self.session.node(slot, id).unwrap();
        node.parent.store(parent, Relaxed);
        node.kind.store(kind, Relaxed);
        node.frame.store(frame, Relaxed);
        id
    }

    /// A native stack of one frame.
    pub(crate) fn native(&mut self, module: u16, offset: u64) -> u32 {
        self.node(0, kind::NATIVE, native_frame(module, offset))
    }

    /// A Python stack of one frame.
    pub(crate) fn python(&mut self, code: u32, offset: u32) -> u32 {
        self.node(0, kind::PYTHON_ENTRY, python_frame(code, offset))
    }

    /// Defines a module: its id.
    pub(crate) fn define_module(&mut self, ring: &mut FakeRing, path: &str) -> u16 {
        let id = self.modules;
        self.modules += 1;
        let module = ModuleDef {
            bias: 0x1000,
            start: 0x1000,
            end: 0x2000,
            build_id: path.as_bytes(),
            path: path.as_bytes(),
        };
        let mut buffer = vec![0; 4096];
        let mut out = Encoder::new(&mut buffer);
        module.encode(&mut out);
        let length = out.needed();
        self.blob(ring, BlobKind::Module, id, &buffer[..length]);
        id as u16
    }

    /// Defines a code object: its id.
    pub(crate) fn define_code(&mut self, ring: &mut FakeRing, name: &str, lines: &[u8]) -> u32 {
        let id = self.codes;
        self.codes += 1;
        let code = CodeDef {
            line_format: 11,
            first_line: 10,
            file: b"/app/x.py",
            name: name.as_bytes(),
            lines,
        };
        let mut buffer = vec![0; 64 * 1024];
        let mut out = Encoder::new(&mut buffer);
        code.encode(&mut out);
        let length = out.needed();
        self.blob(ring, BlobKind::Code, id, &buffer[..length]);
        id
    }

    fn blob(&mut self, ring: &mut FakeRing, kind: BlobKind, id: u32, bytes: &[u8]) {
        let mut offset = 0;
        while offset < bytes.len() {
            // Small pieces, to have several.
            let piece = &bytes[offset..bytes.len().min(offset + 100)];
            let mut words = vec![
                head(Kind::Blob, kind as u8, id.into()),
                self.now(),
                (bytes.len() as u64) << 32 | offset as u64,
                piece.len() as u64,
            ];
            for part in piece.chunks(8) {
                let mut word = [0; 8];
                word[..part.len()].copy_from_slice(part);
                words.push(u64::from_le_bytes(word));
            }
            assert!(ring.emit(&words));
            offset += piece.len();
        }
    }

    pub(crate) fn alloc(&self, ring: &mut FakeRing, address: u64, size: u64, stack: u32) {
        let words = [
            head(Kind::Alloc, Domain::Native as u8, address),
            self.now(),
            size << 32 | u64::from(stack),
        ];
        assert!(ring.emit(&words));
    }

    pub(crate) fn free(&self, ring: &mut FakeRing, address: u64) {
        assert!(ring.emit(&[head(Kind::Free, 0, address), self.now()]));
    }

    /// Begins a fork, as the handler in the parent does: its number.
    pub(crate) fn prepare_fork(&mut self, ring: &mut FakeRing) -> u32 {
        self.forks += 1;
        assert!(ring.emit(&[head(Kind::Fork, 0, self.forks.into()), self.now()]));
        self.forks
    }

    /// The child of a fork that was prepared.
    pub(crate) fn fork(&self, sequence: u32, pid: u32) -> FakeProcess {
        let session = self.session.clone();
        let index = claim(&session);
        let (slot, own) = (
            session.slot(index).unwrap(),
            session.slot(self.slot).unwrap(),
        );
        slot.pid.store(pid, Relaxed);
        slot.parent_slot.store(self.slot, Relaxed);
        slot.fork_seq.store(sequence, Relaxed);
        slot.start_stamp.store(self.now(), Relaxed);
        slot.inherited_codes.store(self.codes, Relaxed);
        slot.inherited_modules.store(self.modules, Relaxed);
        for (to, from) in slot.trie.iter().zip(&own.trie) {
            to.store(from.load(Relaxed), Relaxed);
        }
        let mut child = FakeProcess::in_slot(session.clone(), index);
        child.nodes = self.nodes.next_multiple_of(NODES_PER_BLOCK as u32);
        child.codes = self.codes;
        child.modules = self.modules;
        child.last_stamp = self.last_stamp.clone();
        session.header().claims.fetch_add(1, Ordering::Release);
        child
    }
}

fn claim(session: &SessionMap) -> u32 {
    (0..512)
        .find(|index| {
            let state = &session.slot(*index).unwrap().state;
            state
                .compare_exchange(
                    slot_state::FREE,
                    slot_state::CLAIMED,
                    Ordering::Acquire,
                    Ordering::Relaxed,
                )
                .is_ok()
        })
        .unwrap()
}

/// The writing end of a ring.
pub(crate) struct FakeRing {
    session: Arc<SessionMap>,
    slot: u32,
    number: u32,
    chunk: Option<u32>,
    position: usize,
    sequence: u32,
}

impl FakeRing {
    /// Appends an event. False when the pool is empty.
    pub(crate) fn emit(&mut self, words: &[u64]) -> bool {
        if (self.chunk.is_none() || self.position + words.len() > CHUNK_WORDS) && !self.go_on() {
            return false;
        }
        let chunk = self.chunk.unwrap();
        for word in words {
            self.session.words(chunk).unwrap()[self.position].store(*word, Relaxed);
            self.position += 1;
        }
        let header = self.session.chunk_header(chunk).unwrap();
        header
            .committed
            .store(self.position as u32, Ordering::Release);
        true
    }

    fn go_on(&mut self) -> bool {
        let Some(chunk) = self.session.free_list().pop() else {
            return false;
        };
        let header = self.session.chunk_header(chunk).unwrap();
        header.committed.store(0, Relaxed);
        header.next.store(0, Relaxed);
        header.slot.store(self.slot, Relaxed);
        header.ring.store(self.number, Relaxed);
        header.sequence.store(self.sequence, Relaxed);
        self.sequence += 1;
        self.position = 0;
        if let Some(old) = self.chunk.replace(chunk) {
            let old = self.session.chunk_header(old).unwrap();
            old.next.store(chunk + 1, Ordering::Release);
        } else {
            let list = &self.session.slot(self.slot).unwrap().new_rings;
            header.link.store(list.load(Relaxed), Relaxed);
            // Tests announce from one thread at a time.
            list.store(chunk + 1, Ordering::Release);
        }
        true
    }

    /// The chunk being written.
    pub(crate) fn chunk(&self) -> u32 {
        self.chunk.unwrap()
    }
}
