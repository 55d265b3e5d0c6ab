//! Decides how the demo speaks and listens in a terminal: a last line that shows who beat in the last slots and what
//! is being typed, and above it what happened. Where the output is no terminal, everything is lines.

use std::collections::VecDeque;
use std::io::{self, IsTerminal, Write};
use std::os::fd::AsFd;
use std::time::Duration;

use nix::sys::termios::{LocalFlags, SetArg, Termios, tcgetattr, tcsetattr};
use nix::unistd::{getpgrp, tcgetpgrp};
use tokio::io::{AsyncReadExt, Stdin};

/// How many slots the last line shows.
const SLOTS_SHOWN: usize = 24;
/// How many slots stand in a line where the output is no terminal.
const SLOTS_A_LINE: usize = 20;
/// The longest line that can be typed, in bytes.
const TYPED_MAX: usize = 120;

/// The output.
#[derive(Debug)]
pub(crate) struct Screen {
    is_terminal: bool,
    has_colours: bool,
    slots: VecDeque<Mark>,
    typed: String,
    has_begun: bool,
    is_gone: bool,
}

/// What stands for a slot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Mark {
    /// Its owner's beat, by its letter.
    Beat(String),
    /// The beat of somebody who stood in for its owner.
    StandIn(String),
    /// No beat.
    Missed,
}

impl Screen {
    /// The standard output.
    pub(crate) fn new(is_terminal: bool) -> Self {
        let has_colours =
            is_terminal && std::env::var_os("NO_COLOR").is_none_or(|it| it.is_empty());
        let (slots, typed) = (VecDeque::new(), String::new());
        Self { is_terminal, has_colours, slots, typed, has_begun: false, is_gone: false }
    }

    /// Whoever read the output has gone away.
    pub(crate) fn is_gone(&self) -> bool {
        self.is_gone
    }

    /// Whether a slot has been shown.
    pub(crate) fn has_begun(&self) -> bool {
        self.has_begun
    }

    /// A slot is over.
    pub(crate) fn mark(&mut self, mark: Mark) {
        self.has_begun = true;
        self.slots.push_back(mark);
        if self.is_terminal {
            while self.slots.len() > SLOTS_SHOWN {
                self.slots.pop_front();
            }
            self.write(&self.last_line());
        } else if self.slots.len() >= SLOTS_A_LINE {
            self.end_line_of_slots();
        }
    }

    /// Something happened, so long after the beginning.
    pub(crate) fn tell(&mut self, at: Duration, text: &str) {
        let at = format!("{:>4}.{} s", at.as_secs(), at.subsec_millis() / 100);
        self.say(&format!("{at}  {text}"));
    }

    /// Write lines.
    pub(crate) fn say(&mut self, text: &str) {
        let text = printable(text);
        if self.is_terminal {
            self.write(&format!("\r\x1b[2K{text}\n{}", self.last_line()));
        } else {
            self.end_line_of_slots();
            self.write(&format!("{text}\n"));
        }
    }

    /// This is what stands on the line that is being typed.
    pub(crate) fn show_typed(&mut self, typed: &str) {
        typed.clone_into(&mut self.typed);
        if self.is_terminal {
            self.write(&self.last_line());
        }
    }

    /// Nothing more is typed: the last line is cleared.
    pub(crate) fn close(&mut self) {
        if self.is_terminal {
            self.write("\r\x1b[2K");
        } else {
            self.end_line_of_slots();
        }
    }

    /// Above what comes next, the slots so far are their own line.
    fn end_line_of_slots(&mut self) {
        if !self.slots.is_empty() {
            let line = self.marks();
            self.slots.clear();
            self.write(&format!("          {line}\n"));
        }
    }

    fn last_line(&self) -> String {
        format!("\r\x1b[2K{} > {}", self.marks(), self.typed)
    }

    fn marks(&self) -> String {
        let shown = |mark: &Mark| match mark {
            Mark::Beat(name) => name.clone(),
            Mark::StandIn(name) => self.coloured(33, name),
            Mark::Missed => self.coloured(31, "·"),
        };
        self.slots.iter().map(shown).collect::<Vec<_>>().join(" ")
    }

    fn coloured(&self, colour: u8, text: &str) -> String {
        if self.has_colours { format!("\x1b[{colour}m{text}\x1b[0m") } else { text.to_owned() }
    }

    fn write(&mut self, text: &str) {
        let mut out = io::stdout().lock();
        if out.write_all(text.as_bytes()).and_then(|()| out.flush()).is_err() {
            self.is_gone = true;
        }
    }
}

/// What comes from a database or a log does nothing to a terminal.
fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() && c != '\n' { '\u{fffd}' } else { c }).collect()
}

/// The standard input.
#[derive(Debug)]
pub(crate) struct Keyboard {
    /// None: nothing more comes.
    input: Option<Stdin>,
    editor: Editor,
    /// How the terminal was before its lines became ours to edit.
    before: Option<Termios>,
}

/// What came from the keyboard.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Typed {
    /// The lines that were ended.
    pub(crate) lines: Vec<String>,
    /// Nothing more is to come, by the wish of who types.
    pub(crate) is_end: bool,
}

impl Keyboard {
    /// The standard input, key by key where this terminal can show what is typed, else line by line. A process in the
    /// background of a shell leaves the keyboard to others.
    pub(crate) fn new() -> Self {
        let input = io::stdin();
        let is_terminal = input.is_terminal();
        if is_terminal && tcgetpgrp(input.as_fd()).is_ok_and(|group| group != getpgrp()) {
            return Self { input: None, editor: Editor::default(), before: None };
        }
        let by_keys = is_terminal && io::stdout().is_terminal();
        let before = by_keys.then(|| tcgetattr(input.as_fd()).ok()).flatten();
        let keyboard = Self { input: Some(tokio::io::stdin()), editor: Editor::default(), before };
        keyboard.take_keys();
        keyboard
    }

    /// Whether what is typed must be shown by us.
    pub(crate) fn is_by_keys(&self) -> bool {
        self.before.is_some()
    }

    /// Have keys, in place of lines; also after a shell had this process in the background.
    pub(crate) fn take_keys(&self) {
        if let Some(mut keys) = self.before.clone() {
            keys.local_flags.remove(LocalFlags::ICANON | LocalFlags::ECHO);
            let _ = tcsetattr(io::stdin().as_fd(), SetArg::TCSADRAIN, &keys);
        }
    }

    /// Give the terminal back as it was.
    pub(crate) fn give_back(&mut self) {
        if let Some(before) = self.before.take() {
            let _ = tcsetattr(io::stdin().as_fd(), SetArg::TCSADRAIN, &before);
        }
    }

    /// What is typed next. Never comes back when there is nothing to come.
    pub(crate) async fn next(&mut self) -> Typed {
        let mut bytes = [0; 256];
        loop {
            let Some(input) = &mut self.input else { std::future::pending().await };
            match input.read(&mut bytes).await {
                Ok(0) | Err(_) => self.input = None,
                Ok(n) => return self.editor.take(&bytes[..n], self.before.is_some()),
            }
        }
    }

    /// The line that is not ended yet.
    pub(crate) fn typed(&self) -> String {
        String::from_utf8_lossy(&self.editor.line).into_owned()
    }
}

impl Drop for Keyboard {
    fn drop(&mut self) {
        self.give_back();
    }
}

/// What is being typed.
#[derive(Debug, Default)]
struct Editor {
    line: Vec<u8>,
    escape: Escape,
}

/// Where in the bytes of a special key (`ESC [ A` and the like) the input is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Escape {
    #[default]
    No,
    Begun,
    Inside,
}

impl Editor {
    fn take(&mut self, bytes: &[u8], by_keys: bool) -> Typed {
        let mut typed = Typed::default();
        for byte in bytes {
            match (self.escape, byte) {
                (Escape::Begun, b'[' | b'O') => self.escape = Escape::Inside,
                (Escape::Inside, 0x20..=0x3f) => {}
                (Escape::Begun | Escape::Inside, _) => self.escape = Escape::No,
                (Escape::No, 0x1b) => self.escape = Escape::Begun,
                (Escape::No, b'\n' | b'\r') => {
                    let line = std::mem::take(&mut self.line);
                    typed.lines.push(String::from_utf8_lossy(&line).trim().to_owned());
                }
                // Ctrl-D on an empty line.
                (Escape::No, 0x04) if by_keys && self.line.is_empty() => typed.is_end = true,
                // Backspace, and Ctrl-U.
                (Escape::No, 0x7f | 0x08) => _ = self.line.pop(),
                (Escape::No, 0x15) => self.line.clear(),
                (Escape::No, byte) if !byte.is_ascii_control() && self.line.len() < TYPED_MAX => {
                    self.line.push(*byte);
                }
                (Escape::No, _) => {}
            }
        }
        typed.lines.retain(|line| !line.is_empty());
        typed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(editor: &mut Editor, text: &str) -> Vec<String> {
        editor.take(text.as_bytes(), true).lines
    }

    #[test]
    fn a_line_can_be_corrected_before_it_is_ended() {
        let mut editor = Editor::default();
        assert!(lines(&mut editor, "kilx\x7fl ").is_empty());
        assert_eq!(lines(&mut editor, "2\r"), ["kill 2"]);
        assert_eq!(lines(&mut editor, "stall\x15add\nnodes\n\n"), ["add", "nodes"]);
        assert_eq!(lines(&mut editor, "a\x1b[Ad\x1b[1;5Cd\x1bOP\n"), ["add"]);
    }

    #[test]
    fn ctrl_d_ends_on_an_empty_line_alone() {
        let mut editor = Editor::default();
        assert!(!editor.take(b"a\x04", true).is_end);
        assert!(editor.take(b"\x7f\x04", true).is_end);
        assert!(!editor.take(b"\x04", false).is_end);
    }

    #[test]
    fn a_line_that_is_too_long_is_cut() {
        let mut editor = Editor::default();
        let long = "x".repeat(10_000);
        assert_eq!(lines(&mut editor, &format!("{long}\n"))[0].len(), TYPED_MAX);
    }

    #[test]
    fn nothing_that_is_said_commands_a_terminal() {
        assert_eq!(printable("a\x1b[2Jb\nc"), "a\u{fffd}[2Jb\nc");
    }
}
