//! What can happen.

use std::sync::Arc;

use crate::state::data::{Answer, Facts, Verdicts};
use crate::state::{PromptKind, Screen};

/// Something that happened.
#[derive(Clone, Debug)]
pub enum Message {
    /// The terminal has another size.
    Resize(u16, u16),
    /// So many of so many bytes of the file were read.
    Progress(u64, u64),
    /// What the recording is, as far as a glance through it tells; sites are still
    /// being read.
    Skimmed(Arc<Facts>),
    /// What the recording is.
    Facts(Arc<Facts>),
    /// What is said about leaks.
    Verdicts(Arc<Verdicts>),
    /// An answer of the engine.
    Answer(Box<Answer>),
    /// A screen was written to a file, or not, and why.
    Exported(Result<String, String>),
    /// This instant was kept under a name, or not, and why.
    Marked(Result<String, String>),
    /// The user pressed something.
    Key(Action),
    /// The user clicked, at a column and row.
    Click(u16, u16),
    /// The user turned the wheel, at a column and row: down or up.
    Wheel(u16, u16, bool),
}

/// What a key means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Show a screen.
    Show(Screen),
    /// Show the next screen, or the one before.
    Cycle(bool),
    /// Move in a list.
    Move(Move),
    /// Sideways: open and close, or to the next call.
    Side(bool),
    /// Move in time.
    Time(Time),
    /// Into what is selected.
    Enter,
    /// Out again.
    Back,
    /// To the source of what is selected.
    Source,
    /// Who holds what is selected.
    Why,
    /// To the growth until now.
    Diff,
    /// Diff: the cursor's instant is A.
    SetA,
    /// Diff: it is B.
    SetB,
    /// Diff: A and B change places.
    Swap,
    /// Own figures, or with all that was called; the tree the other way round.
    Inclusive,
    /// A key that waits for a second.
    Group,
    /// The same.
    Order,
    /// The second.
    Second(char),
    /// Smallest first, or largest.
    Reverse,
    /// A line of input.
    Prompt(PromptKind),
    /// A letter of it.
    Type(char),
    /// Several.
    Paste(String),
    /// The last one goes.
    Erase,
    /// The last word goes.
    EraseWord,
    /// All goes.
    EraseAll,
    /// The word is completed.
    Complete,
    /// The next match, or the one before.
    Next(bool),
    /// Copy what is selected.
    Copy,
    /// Write the screen to a file.
    Export,
    /// Help.
    Help,
    /// Draw everything anew.
    Redraw,
    /// Stop, until the shell says to go on.
    Suspend,
    /// Leave.
    Quit,
}

/// A move in a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Move {
    /// So many rows.
    Rows(i32),
    /// So many screens.
    Pages(i32),
    /// Half a screen.
    Half(i32),
    /// To the first row.
    First,
    /// To the last.
    Last,
}

/// A move in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Time {
    /// A hundredth of the recording, or a recorded instant where they lie
    /// further apart.
    Step(i32),
    /// To the next recorded instant, or the one before.
    Instant(i32),
    /// To the next mark, or the one before.
    Mark(i32),
    /// To the start.
    Start,
    /// To the end.
    End,
    /// To when the program was done; along with a recording that goes on.
    Usual,
}

/// What the world outside has to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Put what is selected into the clipboard.
    Copy,
    /// Write the screen to a file; `None`: of a name that is free.
    Export(Option<String>),
    /// Keep this instant of a recording that is being made, under a name.
    Mark(String),
    /// Stop.
    Suspend,
    /// Draw everything anew.
    Redraw,
}
