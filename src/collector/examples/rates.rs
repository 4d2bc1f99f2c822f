//! How many events a second the collector takes, and what a live block costs.
//!
//! `cargo run --release -p leakline-collector --example rates [EVENTS] [LIVE]`
//!
//! One thread writes events as a traced thread would, as fast as it can; the
//! collector reads them in another. The figure that counts is events over the
//! CPU time of the collector's thread.
#![expect(unsafe_code, reason = "the producer's side of shared memory")]
#![expect(clippy::print_stdout, reason = "it prints figures")]
#![expect(
    clippy::unwrap_used,
    reason = "a benchmark stops at the first surprise"
)]

use std::fs::File;
use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant};

use leakline_collector::protocol::{FromCollector, Options, ToCollector};
use leakline_recording::record::Session;
use leakline_wire::Kind;
use leakline_wire::event::head;
use leakline_wire::layout::{
    self, CHUNK_COUNT, CHUNK_HEADER_BYTES, CHUNK_WORDS, ChunkHeader, Header, Slot, clock, mode,
    slot_state,
};
use leakline_wire::pool::FreeList;
use leakline_wire::sync::{AtomicU32, Ordering};
use memmap2::{MmapOptions, MmapRaw};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendFlags, SocketAddrUnix,
    SocketFlags, SocketType, bind, connect, listen, recv, recvmsg, send, socket_with, socketpair,
};
use rustix::time::{ClockId, clock_gettime};

const TOKEN: [u8; 16] = [7; 16];

/// A traced thread.
struct Producer {
    map: MmapRaw,
    slot: u32,
    chunk: Option<u32>,
    position: usize,
    sequence: u32,
    waited: Duration,
}

impl Producer {
    fn header(&self) -> &Header {
        // SAFETY: the map of a session begins with its header.
        unsafe { &*self.map.as_ptr().cast() }
    }

    fn slot(&self) -> &Slot {
        // SAFETY: the collector gave us this slot.
        unsafe { &*self.map.as_ptr().add(layout::slot_offset(self.slot)).cast() }
    }

    fn chunk(&self, index: u32) -> (&ChunkHeader, &[AtomicU64; CHUNK_WORDS]) {
        // SAFETY: `index` came from the free list.
        unsafe {
            let chunk = self.map.as_ptr().add(layout::chunk_offset(index));
            (&*chunk.cast(), &*chunk.add(CHUNK_HEADER_BYTES).cast())
        }
    }

    fn emit<const N: usize>(&mut self, words: [u64; N]) {
        let current = match self.chunk {
            Some(chunk) if self.position + N <= CHUNK_WORDS => chunk,
            _ => self.go_on(),
        };
        let (header, place) = self.chunk(current);
        for (to, from) in place[self.position..].iter().zip(words) {
            to.store(from, Ordering::Relaxed);
        }
        header
            .committed
            .store((self.position + N) as u32, Ordering::Release);
        self.position += N;
    }

    #[cold]
    fn go_on(&mut self) -> u32 {
        // SAFETY: the table of links.
        let next: &[AtomicU32; CHUNK_COUNT] =
            unsafe { &*self.map.as_ptr().add(layout::NEXT_TABLE_OFFSET).cast() };
        let began = Instant::now();
        let chunk = loop {
            let header = self.header();
            let list = FreeList {
                head: &header.free_head,
                next,
                count: &header.free_count,
            };
            if let Some(chunk) = list.pop() {
                break chunk;
            }
            header.waiters.fetch_add(1, Ordering::SeqCst);
            let wake = header.wake.load(Ordering::SeqCst);
            if header.free_count.load(Ordering::SeqCst) == 0 {
                let _ = rustix::thread::futex::wait(
                    &header.wake,
                    rustix::thread::futex::Flags::empty(),
                    wake,
                    Some(&rustix::time::Timespec {
                        tv_sec: 0,
                        tv_nsec: 5_000_000,
                    }),
                );
            }
            header.waiters.fetch_sub(1, Ordering::SeqCst);
        };
        self.waited += began.elapsed();
        let (header, _) = self.chunk(chunk);
        header.committed.store(0, Ordering::Relaxed);
        header.next.store(0, Ordering::Relaxed);
        header.slot.store(self.slot, Ordering::Relaxed);
        header.sequence.store(self.sequence, Ordering::Relaxed);
        match self.chunk {
            Some(old) => self.chunk(old).0.next.store(chunk + 1, Ordering::Release),
            None => self.slot().new_rings.store(chunk + 1, Ordering::Release),
        }
        self.sequence += 1;
        self.position = 0;
        self.chunk = Some(chunk);
        chunk
    }

    fn alloc(&mut self, address: u64, size: u64) {
        let stamp = self.now();
        self.emit([head(Kind::Alloc, 0, address), stamp, size << 32]);
    }

    fn free(&mut self, address: u64) {
        let stamp = self.now();
        self.emit([head(Kind::Free, 0, address), stamp]);
    }

    fn now(&self) -> u64 {
        if self.header().clock.load(Ordering::Relaxed) == clock::TSC {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: every x86-64 CPU has it.
            return unsafe { core::arch::x86_64::_rdtsc() };
        }
        let now = clock_gettime(ClockId::Monotonic);
        (now.tv_sec * 1_000_000_000 + now.tv_nsec).cast_unsigned()
    }
}

fn cpu_time(clock: ClockId) -> Duration {
    let time = clock_gettime(clock);
    Duration::new(time.tv_sec.cast_unsigned(), time.tv_nsec as u32)
}

fn measure(name: &str, story: impl FnOnce(&mut Producer) -> u64) {
    let socket_name = format!("leakline-rates-{}-{name}", std::process::id());
    let address = SocketAddrUnix::new_abstract_name(socket_name.as_bytes()).unwrap();
    let cloexec = SocketFlags::CLOEXEC;
    let listener = socket_with(AddressFamily::UNIX, SocketType::STREAM, cloexec, None).unwrap();
    bind(&listener, &address).unwrap();
    listen(&listener, 8).unwrap();
    let (control, theirs) =
        socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, cloexec, None).unwrap();
    let output = tempfile::tempfile().unwrap();
    let collector = std::thread::spawn(move || {
        leakline_collector::serve(output, listener, theirs, None);
        cpu_time(ClockId::ThreadCPUTime)
    });
    let session = Session {
        started_unix_ns: 0,
        leakline: String::new(),
        command: Vec::new(),
        mode: "exact".to_owned(),
        sample_bytes: 0,
        python: false,
        native: true,
        host: String::new(),
        temporary_window: 1,
    };
    tell(
        &control,
        &ToCollector::Start(Box::new(Options {
            session,
            token: TOKEN,
            mode: mode::ON | mode::NATIVE | mode::FOLLOW,
            steering: None,
            most_share: None,
            wait_strikes: 200,
            ring_bytes: 16 << 20,
            sources: false,
            symbols: false,
            attached: false,
            forking_filters: 0,
            most_pause: leakline_collector::protocol::MOST_PAUSE,
            graphs: leakline_collector::protocol::GraphPlan::default(),
        })),
    );
    assert_eq!(hear(&control), FromCollector::Ready);
    let pid = std::process::id();
    tell(&control, &ToCollector::Spawned { pid });
    let (slot, map) = join(&address);
    let mut producer = Producer {
        map,
        slot,
        chunk: None,
        position: 0,
        sequence: 0,
        waited: Duration::ZERO,
    };
    producer
        .slot()
        .state
        .store(slot_state::LIVE, Ordering::Release);
    let began = Instant::now();
    let events = story(&mut producer);
    let written = began.elapsed();
    tell(
        &control,
        &ToCollector::Exited {
            pid,
            status: Some(0),
            signal: None,
        },
    );
    let FromCollector::Finished(summary) = hear(&control) else {
        panic!("the collector failed");
    };
    let wall = began.elapsed();
    let busy = collector.join().unwrap();
    println!(
        "{name:<24} {events:>11} events  {:>6.1} M/s of collector CPU  {:>6.1} M/s wall  \
         waited {:>4.0} %  live {}  file {} bytes",
        events as f64 / busy.as_secs_f64() / 1e6,
        events as f64 / wall.as_secs_f64() / 1e6,
        producer.waited.as_secs_f64() / written.as_secs_f64() * 100.0,
        summary.live_blocks,
        summary.file_bytes,
    );
}

fn tell(control: &OwnedFd, message: &ToCollector) {
    send(
        control,
        &postcard::to_stdvec(message).unwrap(),
        SendFlags::empty(),
    )
    .unwrap();
}

fn hear(control: &OwnedFd) -> FromCollector {
    let mut bytes = vec![0; 65536];
    let (length, _) = recv(control, bytes.as_mut_slice(), RecvFlags::empty()).unwrap();
    postcard::from_bytes(&bytes[..length]).unwrap()
}

fn join(address: &SocketAddrUnix) -> (u32, MmapRaw) {
    let socket = socket_with(
        AddressFamily::UNIX,
        SocketType::STREAM,
        SocketFlags::CLOEXEC,
        None,
    )
    .unwrap();
    connect(&socket, address).unwrap();
    let mut hello = Vec::new();
    hello.extend_from_slice(&layout::MAGIC.to_ne_bytes());
    hello.extend_from_slice(&layout::VERSION.to_ne_bytes());
    hello.extend_from_slice(&std::process::id().to_ne_bytes());
    hello.extend_from_slice(&TOKEN);
    send(&socket, &hello, SendFlags::empty()).unwrap();
    let mut answer = [0; 16];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut parts = [IoSliceMut::new(&mut answer)];
    recvmsg(&socket, &mut parts, &mut control, RecvFlags::empty()).unwrap();
    let fd = control
        .drain()
        .find_map(|message| match message {
            RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
            _ => None,
        })
        .unwrap();
    let slot = u32::from_ne_bytes([answer[12], answer[13], answer[14], answer[15]]);
    (
        slot,
        MmapOptions::new()
            .len(layout::MAP_BYTES)
            .map_raw(&File::from(fd))
            .unwrap(),
    )
}

/// Numbers without pattern (splitmix64).
fn mix(seed: &mut u64) -> u64 {
    *seed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *seed;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Resident bytes of this process.
fn rss() -> u64 {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap();
    let pages: u64 = text.split(' ').nth(1).unwrap().parse().unwrap();
    pages * 4096
}

fn main() {
    let mut arguments = std::env::args()
        .skip(1)
        .map(|argument| argument.parse::<u64>().unwrap());
    let events = arguments.next().unwrap_or(40_000_000);
    let most_live = arguments.next().unwrap_or(10_000_000);
    measure("pairs", |producer| {
        for pair in 0..events / 2 {
            let address = 0x7f00_0000_0000 + pair % 4 * 64;
            producer.alloc(address, 64);
            producer.free(address);
        }
        events
    });
    measure("hot churn, 1,000 live", |producer| {
        churn(producer, 1_000, events)
    });
    measure("churn, 1 M live", |producer| {
        churn(producer, 1_000_000.min(most_live), events)
    });
    measure("churn, many live", |producer| {
        churn(producer, most_live, events)
    });
    let before = rss();
    measure("only births", |producer| {
        for block in 0..most_live {
            producer.alloc(0x7f00_0000_0000 + block * 64, 64);
        }
        println!("  {:.1} bytes a live block (queued ones missing)", {
            std::thread::sleep(Duration::from_secs(3));
            (rss() - before) as f64 / most_live as f64
        });
        most_live
    });
}

/// Keeps `live` blocks, and replaces random ones.
fn churn(producer: &mut Producer, live: u64, events: u64) -> u64 {
    let mut seed = 1;
    // Places of the blocks: like an allocator's, dense but in no order.
    let address = |place: u64| 0x7f00_0000_0000 + place * 48;
    for place in 0..live {
        producer.alloc(address(place), 48);
    }
    for _ in 0..events / 2 {
        let place = mix(&mut seed) % live;
        producer.free(address(place));
        producer.alloc(address(place), 40);
    }
    live + events
}
