//! What keys and clicks mean.

use crossterm::event::{
    Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers, MouseButton, MouseEvent, MouseEventKind,
};

use crate::message::{Action, Message, Move, Time};
use crate::state::{PromptKind, Screen, State};

/// The message that an event is, if it means anything.
pub fn message(state: &State, event: Event) -> Option<Message> {
    match event {
        Event::Key(key) if key.kind != KeyEventKind::Release => {
            action(state, key).map(Message::Key)
        }
        Event::Mouse(mouse) => of_mouse(mouse),
        Event::Paste(text) if state.prompt.is_some() => Some(Message::Key(Action::Paste(text))),
        Event::Resize(width, height) => Some(Message::Resize(width, height)),
        _ => None,
    }
}

fn of_mouse(mouse: MouseEvent) -> Option<Message> {
    let (x, y) = (mouse.column, mouse.row);
    match mouse.kind {
        MouseEventKind::Down(MouseButton::Left) | MouseEventKind::Drag(MouseButton::Left) => {
            Some(Message::Click(x, y))
        }
        MouseEventKind::Down(MouseButton::Right) => Some(Message::Key(Action::Back)),
        MouseEventKind::ScrollDown => Some(Message::Wheel(x, y, true)),
        MouseEventKind::ScrollUp => Some(Message::Wheel(x, y, false)),
        _ => None,
    }
}

fn action(state: &State, key: KeyEvent) -> Option<Action> {
    let control = key.modifiers.contains(KeyModifiers::CONTROL);
    let shift = key.modifiers.contains(KeyModifiers::SHIFT);
    if control {
        match key.code {
            KeyCode::Char('c') => return Some(Action::Quit),
            KeyCode::Char('z') => return Some(Action::Suspend),
            KeyCode::Char('l') => return Some(Action::Redraw),
            _ => {}
        }
    }
    if state.prompt.is_some() {
        return in_prompt(key, control);
    }
    if state.chord.is_some() {
        return Some(match key.code {
            KeyCode::Char(letter) if !control => Action::Second(letter),
            _ => Action::Back,
        });
    }
    Some(match key.code {
        KeyCode::Char('d') if control => Action::Move(Move::Half(1)),
        KeyCode::Char('u') if control => Action::Move(Move::Half(-1)),
        KeyCode::Char('f') if control => Action::Move(Move::Pages(1)),
        KeyCode::Char('b') if control => Action::Move(Move::Pages(-1)),
        KeyCode::Char(_) if control => return None,
        KeyCode::Char('j') | KeyCode::Down => Action::Move(Move::Rows(1)),
        KeyCode::Char('k') | KeyCode::Up => Action::Move(Move::Rows(-1)),
        KeyCode::PageDown => Action::Move(Move::Pages(1)),
        KeyCode::PageUp => Action::Move(Move::Pages(-1)),
        KeyCode::Home => Action::Move(Move::First),
        KeyCode::Char('G') | KeyCode::End => Action::Move(Move::Last),
        KeyCode::Char('h') => Action::Side(false),
        KeyCode::Char('l') => Action::Side(true),
        KeyCode::Left if shift => Action::Time(Time::Instant(-1)),
        KeyCode::Right if shift => Action::Time(Time::Instant(1)),
        KeyCode::Left => Action::Time(Time::Step(-1)),
        KeyCode::Right => Action::Time(Time::Step(1)),
        KeyCode::Char('<') => Action::Time(Time::Instant(-1)),
        KeyCode::Char('>') => Action::Time(Time::Instant(1)),
        KeyCode::Char('[') => Action::Time(Time::Mark(-1)),
        KeyCode::Char(']') => Action::Time(Time::Mark(1)),
        KeyCode::Char('^' | '0') => Action::Time(Time::Start),
        KeyCode::Char('$') => Action::Time(Time::End),
        KeyCode::Char('.') => Action::Time(Time::Usual),
        KeyCode::Enter | KeyCode::Char(' ') => Action::Enter,
        KeyCode::Esc | KeyCode::Backspace => Action::Back,
        KeyCode::Tab => Action::Cycle(true),
        KeyCode::BackTab => Action::Cycle(false),
        KeyCode::Char('s') => Action::Source,
        KeyCode::Char('w') => Action::Why,
        KeyCode::Char('d') => Action::Diff,
        KeyCode::Char('a') => Action::SetA,
        KeyCode::Char('b') => Action::SetB,
        KeyCode::Char('x') => Action::Swap,
        KeyCode::Char('i') => Action::Inclusive,
        KeyCode::Char('g') => Action::Group,
        KeyCode::Char('o') => Action::Order,
        KeyCode::Char('r') => Action::Reverse,
        KeyCode::Char('/') => Action::Prompt(PromptKind::Search),
        KeyCode::Char(':') => Action::Prompt(PromptKind::Command),
        KeyCode::Char('m') => Action::Prompt(PromptKind::Mark),
        KeyCode::Char('n') => Action::Next(true),
        KeyCode::Char('N') => Action::Next(false),
        KeyCode::Char('y') => Action::Copy,
        KeyCode::Char('e') => Action::Export,
        KeyCode::Char('?') | KeyCode::F(1) => Action::Help,
        KeyCode::Char('q') => Action::Quit,
        KeyCode::Char(digit) => {
            let screen = Screen::ALL
                .into_iter()
                .find(|screen| screen.digit() == digit)?;
            Action::Show(screen)
        }
        _ => return None,
    })
}

fn in_prompt(key: KeyEvent, control: bool) -> Option<Action> {
    Some(match key.code {
        KeyCode::Char('u') if control => Action::EraseAll,
        KeyCode::Char('w') if control => Action::EraseWord,
        KeyCode::Char('h') if control => Action::Erase,
        KeyCode::Char(_) if control => return None,
        KeyCode::Char(letter) => Action::Type(letter),
        KeyCode::Backspace => Action::Erase,
        KeyCode::Tab => Action::Complete,
        KeyCode::Enter => Action::Enter,
        KeyCode::Esc => Action::Back,
        KeyCode::Down => Action::Move(Move::Rows(1)),
        KeyCode::Up => Action::Move(Move::Rows(-1)),
        _ => return None,
    })
}
