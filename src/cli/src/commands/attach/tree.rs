//! The processes of a tree: those that are there, and those that come later.
//!
//! A child that is forked comes with its parent's interposer. One that becomes
//! another program, by exec, loses it: it has to be gone to like the first.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::time::{Duration, Instant};

use leakline_inject::inspect::Process;

/// The process and its descendants, parents first.
pub(super) fn tree(root: u32) -> Vec<u32> {
    descendants(vec![root])
}

/// Those processes and their descendants, parents first.
fn descendants(mut found: Vec<u32>) -> Vec<u32> {
    let mut known: HashSet<u32> = found.iter().copied().collect();
    let mut at = 0;
    while let Some(pid) = found.get(at).copied() {
        at += 1;
        let Ok(threads) = std::fs::read_dir(format!("/proc/{pid}/task")) else {
            continue;
        };
        for thread in threads.flatten() {
            let children = std::fs::read_to_string(thread.path().join("children"));
            for child in children.unwrap_or_default().split_ascii_whitespace() {
                if let Ok(child) = child.parse()
                    && known.insert(child)
                {
                    found.push(child);
                }
            }
        }
    }
    found
}

/// What runs in a process: another one after an exec.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Image {
    start_ticks: u64,
    /// Where its stack began; 0 where we may not know.
    stack: u64,
}

impl Image {
    fn of(pid: u32) -> Option<Image> {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The name before may have spaces and brackets. What follows is field 3.
        let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_ascii_whitespace().collect();
        let field = |number: usize| fields.get(number - 3)?.parse().ok();
        Some(Image {
            start_ticks: field(22)?,
            stack: field(28)?,
        })
    }
}

/// Between two looks at the tree, at least. What lives less long is missed.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Looking takes no more than one of so many parts of the time.
const PARTS: u32 = 20;

/// Watches a tree for programs that were started in it, and are not recorded.
pub(super) struct Arrivals {
    /// What is known, and whether there is nothing more to do about it.
    seen: BTreeMap<u32, (Image, bool)>,
    next_look: Instant,
    due: VecDeque<(u32, Image)>,
}

impl Arrivals {
    /// Of a tree that is recorded, as far as that is possible, or left out.
    pub(super) fn after(tree: &[u32]) -> Arrivals {
        let image = |pid: &u32| Some((*pid, (Image::of(*pid)?, true)));
        Arrivals {
            seen: tree.iter().filter_map(image).collect(),
            next_look: Instant::now() + LOOK_EVERY,
            due: VecDeque::new(),
        }
    }

    /// A process to go to, by its pid and when it had started; each once. It was there
    /// at the last look already, so that it is past what the loader does.
    pub(super) fn next(&mut self) -> Option<(u32, u64)> {
        let began = Instant::now();
        if self.due.is_empty() && began >= self.next_look {
            self.look();
            self.next_look = began + LOOK_EVERY.max(began.elapsed() * PARTS);
        }
        let (pid, image) = self.due.pop_front()?;
        // It was queued a while ago: the number may be another's by now.
        (Image::of(pid) == Some(image)).then_some((pid, image.start_ticks))
    }

    fn look(&mut self) {
        // Those that are still who they were: else their children are not ours.
        let roots = self
            .seen
            .iter()
            .filter(|(pid, (image, _))| {
                Image::of(**pid).is_some_and(|now| now.start_ticks == image.start_ticks)
            })
            .map(|(pid, _)| *pid)
            .collect();
        let mut seen = BTreeMap::new();
        for pid in descendants(roots) {
            let Some(image) = Image::of(pid) else {
                continue;
            };
            let is_done = match self.seen.get(&pid) {
                Some((known, is_done)) if *known == image => {
                    if !is_done && !is_recorded(pid) {
                        self.due.push_back((pid, image));
                    }
                    true
                }
                _ => false,
            };
            seen.insert(pid, (image, is_done));
        }
        self.seen = seen;
    }
}

/// Whether a process is of a session, if that can be seen.
fn is_recorded(pid: u32) -> bool {
    Process::look(pid).map_or(true, |process| process.collector.is_some())
}
