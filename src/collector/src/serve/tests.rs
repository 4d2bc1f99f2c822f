use std::io::{IoSliceMut, Seek};
use std::mem::MaybeUninit;
use std::sync::{Mutex, MutexGuard};

use leakline_recording::record::Session;
use leakline_wire::Kind;
use leakline_wire::event::head;
use leakline_wire::layout::{
    CHUNK_HEADER_BYTES, CHUNK_WORDS, ChunkHeader, Header, Hello, MAGIC, MAP_BYTES, Slot, VERSION,
    Welcome, chunk_offset, mode, slot_offset, slot_state,
};
use leakline_wire::sync::AtomicU64;
use memmap2::{MmapOptions, MmapRaw};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, SocketAddrUnix, SocketFlags,
    SocketType, bind, connect, listen, recv, recvmsg, socket_with, socketpair,
};

use super::*;

const TOKEN: [u8; 16] = *b"sixteen secrets!";

fn options(mode: u32) -> Options {
    Options {
        session: Session {
            started_unix_ns: 0,
            leakline: "test".to_owned(),
            command: vec![b"x".to_vec()],
            mode: "exact".to_owned(),
            sample_bytes: 0,
            python: false,
            native: true,
            host: String::new(),
            temporary_window: 1,
        },
        token: TOKEN,
        mode,
        steering: None,
        most_share: None,
        wait_strikes: 200,
        ring_bytes: 16 << 20,
        sources: true,
        symbols: true,
        attached: false,
        forking_filters: 0,
        most_pause: crate::protocol::MOST_PAUSE,
        graphs: crate::protocol::GraphPlan::default(),
    }
}

/// A collector in a thread, and the other ends of its sockets.
struct Running {
    control: OwnedFd,
    address: SocketAddrUnix,
    file: File,
    thread: std::thread::JoinHandle<()>,
    _alone: MutexGuard<'static, ()>,
}

/// Commands find a collector by its process, which has one.
static ALONE: Mutex<()> = Mutex::new(());

fn start_collector(name: &str, mode: u32) -> Running {
    let alone = ALONE
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner);
    let name = format!("leakline-test-{name}-{}", std::process::id());
    let address = SocketAddrUnix::new_abstract_name(name.as_bytes()).unwrap();
    let cloexec = SocketFlags::CLOEXEC;
    let listener = socket_with(AddressFamily::UNIX, SocketType::STREAM, cloexec, None).unwrap();
    bind(&listener, &address).unwrap();
    listen(&listener, 64).unwrap();
    let (control, theirs) =
        socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, cloexec, None).unwrap();
    let file = tempfile::tempfile().unwrap();
    let output = file.try_clone().unwrap();
    let thread = std::thread::spawn(move || {
        serve(output, listener, theirs, None);
    });
    tell(&control, &ToCollector::Start(Box::new(options(mode))));
    let running = Running {
        control,
        address,
        file,
        thread,
        _alone: alone,
    };
    assert_eq!(hear(&running.control), FromCollector::Ready);
    running
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
    let mut bytes = vec![0; MAX_MESSAGE];
    let (length, _) = recv(control, bytes.as_mut_slice(), RecvFlags::empty()).unwrap();
    postcard::from_bytes(&bytes[..length]).unwrap()
}

fn hello(token: [u8; 16], version: u32) -> Vec<u8> {
    let mut bytes = Vec::new();
    bytes.extend_from_slice(&MAGIC.to_ne_bytes());
    bytes.extend_from_slice(&version.to_ne_bytes());
    bytes.extend_from_slice(&std::process::id().to_ne_bytes());
    bytes.extend_from_slice(&token);
    assert_eq!(bytes.len(), size_of::<Hello>());
    bytes
}

/// Says something; gives status, slot and map of the answer, if there is one.
fn shake(address: &SocketAddrUnix, words: &[&[u8]]) -> Option<(u32, u32, Option<MmapRaw>)> {
    let socket = socket_with(
        AddressFamily::UNIX,
        SocketType::STREAM,
        SocketFlags::CLOEXEC,
        None,
    )
    .unwrap();
    connect(&socket, address).unwrap();
    for part in words {
        send(&socket, part, SendFlags::NOSIGNAL).unwrap();
        std::thread::sleep(Duration::from_millis(5));
    }
    let mut answer = [0; size_of::<Welcome>()];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut parts = [IoSliceMut::new(&mut answer)];
    let got = recvmsg(&socket, &mut parts, &mut control, RecvFlags::empty()).ok()?;
    if got.bytes == 0 {
        return None;
    }
    let fd = control.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
        _ => None,
    });
    let word = |at: usize| u32::from_ne_bytes(answer[at..at + 4].try_into().unwrap());
    let map = fd.map(|fd| {
        MmapOptions::new()
            .len(MAP_BYTES)
            .map_raw(&File::from(fd))
            .unwrap()
    });
    Some((word(8), word(12), map))
}

#[test]
fn a_session_from_handshake_to_recording() {
    let mut running = start_collector("whole", mode::ON | mode::NATIVE | mode::FOLLOW);
    let own = std::process::id();
    tell(&running.control, &ToCollector::Spawned { pid: own });
    let whole = hello(TOKEN, VERSION);
    let (status, slot, map) = shake(&running.address, &[&whole[..7], &whole[7..]]).unwrap();
    assert_eq!(status, Welcome::OK);
    let map = map.unwrap();
    let base = map.as_ptr();
    // SAFETY: the map of a session, with these words at these places.
    let (slot_words, header): (&Slot, &Header) =
        unsafe { (&*base.add(slot_offset(slot)).cast(), &*base.cast()) };
    assert_eq!(
        slot_words.state.load(Ordering::Relaxed),
        slot_state::CLAIMED
    );
    assert_eq!(header.magic.load(Ordering::Relaxed), MAGIC);
    slot_words.state.store(slot_state::LIVE, Ordering::Release);
    // SAFETY: the table of links.
    let next = unsafe {
        let table = base.add(leakline_wire::layout::NEXT_TABLE_OFFSET);
        std::slice::from_raw_parts(table.cast(), leakline_wire::layout::CHUNK_COUNT)
    };
    let list = leakline_wire::pool::FreeList {
        head: &header.free_head,
        next,
        count: &header.free_count,
    };
    let chunk = list.pop().unwrap();
    // SAFETY: a chunk of the map that is ours since it left the list.
    let (chunk_header, words): (&ChunkHeader, &[AtomicU64; CHUNK_WORDS]) = unsafe {
        let chunk = base.add(chunk_offset(chunk));
        (&*chunk.cast(), &*chunk.add(CHUNK_HEADER_BYTES).cast())
    };
    let clock = header.clock.load(Ordering::Relaxed);
    chunk_header.slot.store(slot, Ordering::Relaxed);
    chunk_header.sequence.store(0, Ordering::Relaxed);
    chunk_header.next.store(0, Ordering::Relaxed);
    for (event, words) in (0..100u64).zip(words.chunks(3)) {
        words[0].store(head(Kind::Alloc, 0, 0x1000 + event * 64), Ordering::Relaxed);
        words[1].store(crate::clock::stamp(clock), Ordering::Relaxed);
        words[2].store(64 << 32, Ordering::Relaxed);
    }
    chunk_header.committed.store(300, Ordering::Release);
    slot_words.new_rings.store(chunk + 1, Ordering::Release);
    tell(
        &running.control,
        &ToCollector::Exited {
            pid: own,
            status: Some(0),
            signal: None,
        },
    );
    let FromCollector::Finished(summary) = hear(&running.control) else {
        panic!("no summary");
    };
    assert_eq!((summary.processes, summary.still_running), (1, 0));
    assert_eq!((summary.allocations, summary.live_bytes), (100, 6400));
    assert_eq!((summary.never_joined, summary.write_error), (false, None));
    running.thread.join().unwrap();
    assert_eq!(header.mode.load(Ordering::Relaxed) & mode::ON, 0);
    let length = running.file.seek(std::io::SeekFrom::End(0)).unwrap();
    assert_eq!(length, summary.file_bytes);
}

#[test]
fn who_does_not_belong_is_turned_away() {
    let running = start_collector("away", mode::ON);
    assert_eq!(
        shake(&running.address, &[&hello([0; 16], VERSION)]).map(|a| a.0),
        None
    );
    let other = shake(&running.address, &[&hello(TOKEN, VERSION + 1)]).unwrap();
    assert_eq!((other.0, other.2.is_some()), (Welcome::VERSION, false));
    tell(&running.control, &ToCollector::Spawned { pid: 1 });
    std::thread::sleep(Duration::from_millis(100));
    let other = shake(&running.address, &[&hello(TOKEN, VERSION)]).unwrap();
    assert_eq!((other.0, other.2.is_some()), (Welcome::NOT_FOLLOWED, false));
    tell(
        &running.control,
        &ToCollector::Exited {
            pid: 1,
            status: Some(0),
            signal: None,
        },
    );
    let FromCollector::Finished(summary) = hear(&running.control) else {
        panic!("no summary");
    };
    assert!(summary.never_joined);
    running.thread.join().unwrap();
}

#[test]
fn a_silent_client_keeps_nobody_waiting() {
    let running = start_collector("silent", mode::ON | mode::FOLLOW);
    let silent: Vec<OwnedFd> = (0..20)
        .map(|_| {
            let socket = socket_with(
                AddressFamily::UNIX,
                SocketType::STREAM,
                SocketFlags::CLOEXEC,
                None,
            )
            .unwrap();
            connect(&socket, &running.address).unwrap();
            socket
        })
        .collect();
    let before = Instant::now();
    assert_eq!(
        shake(&running.address, &[&hello(TOKEN, VERSION)])
            .unwrap()
            .0,
        Welcome::OK
    );
    assert!(before.elapsed() < Duration::from_secs(1));
    drop(silent);
    tell(&running.control, &ToCollector::Stop);
    assert!(matches!(hear(&running.control), FromCollector::Finished(_)));
    running.thread.join().unwrap();
}

/// What the collector of this process answers.
fn asked(request: &Request) -> Option<Reply> {
    let own = crate::process::Identity::read(std::process::id());
    let name = crate::protocol::commands_name(own.pid, own.start_ticks);
    let socket = socket_with(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        SocketFlags::CLOEXEC,
        None,
    )
    .unwrap();
    let address = SocketAddrUnix::new_abstract_name(name.as_bytes()).unwrap();
    connect(&socket, &address).ok()?;
    let packet = crate::protocol::packet(request).unwrap();
    send(&socket, &packet, SendFlags::NOSIGNAL).ok()?;
    let mut bytes = vec![0; crate::protocol::COMMAND_BYTES];
    let (length, _) = recv(&socket, bytes.as_mut_slice(), RecvFlags::empty()).ok()?;
    crate::protocol::unpacked(&bytes[..length])
}

#[test]
fn commands_are_answered_as_long_as_it_records() {
    let running = start_collector("commands", mode::ON | mode::FOLLOW);
    let Some(Reply::Status(status)) = asked(&Request::Status) else {
        panic!("no status");
    };
    assert_eq!((status.mode.as_str(), status.is_on), ("exact", true));
    assert_eq!(status.recording, None, "the file was made without a name");
    let before = running.file.metadata().unwrap().len();
    let snapshot = Request::Snapshot {
        name: "before".to_owned(),
    };
    let Some(Reply::Snapshot(taken)) = asked(&snapshot) else {
        panic!("no snapshot");
    };
    assert_eq!((taken.live_bytes, taken.is_sampled), (0, false));
    assert!(
        running.file.metadata().unwrap().len() > before,
        "it is written"
    );
    assert!(matches!(asked(&snapshot), Some(Reply::Refused { .. })));
    let Some(Reply::Status(status)) = asked(&Request::Flush) else {
        panic!("not flushed");
    };
    assert_eq!(status.snapshots, ["before"]);
    tell(&running.control, &ToCollector::Stop);
    assert!(matches!(hear(&running.control), FromCollector::Finished(_)));
    running.thread.join().unwrap();
    assert_eq!(asked(&Request::Status), None);
}
