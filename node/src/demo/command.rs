//! Decides what a line means that somebody types at the demo. What comes of it is the farm's to say.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use crate::store::Distance;
use crate::tampering::leap;

/// The most nodes that a demo has: one for each letter.
pub(crate) const NODES_MAX: usize = 26;

/// A node by its number, from 1: people call the first one 1 or A.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Which(pub(crate) usize);

/// Its letter.
impl fmt::Display for Which {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let letter = u8::try_from(self.0.saturating_sub(1) % NODES_MAX).unwrap_or_default() + b'A';
        write!(f, "{}", char::from(letter))
    }
}

impl FromStr for Which {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let letter = match text.as_bytes() {
            [letter] if letter.is_ascii_alphabetic() => {
                Some(usize::from(letter.to_ascii_uppercase() - b'A') + 1)
            }
            _ => None,
        };
        let number = letter.or_else(|| text.parse().ok()).filter(|n| (1..=NODES_MAX).contains(n));
        number.map(Self).ok_or_else(|| {
            format!("{text:?} is no node; nodes have numbers (1, 2, ...) and letters (A, B, ...)")
        })
    }
}

/// What is to be done to a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Deed {
    /// SIGKILL.
    Kill,
    /// SIGSTOP.
    Stall,
    /// SIGCONT, or a new process.
    Revive,
    /// Its clock leaps forward.
    Skew(Duration),
    /// The database is so far away from now on.
    Delay(Distance),
}

/// What a line means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Command {
    /// Do something to a node.
    To(Which, Deed),
    /// Add a node.
    Add,
    /// Say how the nodes are.
    Nodes,
    /// Say what can be typed.
    Help,
    /// End the demo.
    Quit,
}

/// What can be typed.
pub(crate) const HELP: &str = "\
  kill 2         kill node 2 (or B) as a power cut would: SIGKILL
  stall 2        stop it where it is, as a machine that hangs: SIGSTOP
  revive 2       let a stalled node go on, or start a killed one again
  skew 2 +5s     its clock leaps forward by 5 s, as after a suspend
  delay 2 80ms   the database is 80 ms away from it, each way (20ms..60ms: there..back)
  add            a new node comes up
  nodes          how the nodes are
  quit           stop everything and remove it (Ctrl-C does too)";

impl FromStr for Command {
    type Err = String;

    fn from_str(line: &str) -> Result<Self, String> {
        let mut words = line.split_whitespace();
        let word = words.next().unwrap_or_default().to_ascii_lowercase();
        let rest: Vec<_> = words.collect();
        match (word.as_str(), rest.as_slice()) {
            ("add", []) => Ok(Self::Add),
            ("nodes", []) => Ok(Self::Nodes),
            ("help" | "?", []) => Ok(Self::Help),
            ("quit" | "exit", []) => Ok(Self::Quit),
            ("add" | "nodes" | "help" | "?" | "quit" | "exit", [more, ..]) => {
                Err(format!("{word} stands alone; {more:?} means nothing here"))
            }
            ("kill" | "stall" | "revive" | "skew" | "delay", []) => {
                Err(format!("{word} which node? Write {}", example(&word)))
            }
            ("kill" | "stall" | "revive" | "skew" | "delay", [node, how @ ..]) => {
                Ok(Self::To(node.parse()?, deed(&word, how)?))
            }
            _ => Err(format!(
                "there is no command {word:?}; there are kill, stall, revive, skew, delay, add, nodes, help and quit"
            )),
        }
    }
}

/// What `word` does to a node, `how` being what stands behind the node.
fn deed(word: &str, how: &[&str]) -> Result<Deed, String> {
    match (word, how) {
        ("kill", []) => Ok(Deed::Kill),
        ("stall", []) => Ok(Deed::Stall),
        ("revive", []) => Ok(Deed::Revive),
        ("skew", [by]) => leap(by).map(Deed::Skew),
        ("delay", [distance]) => distance.parse().map(Deed::Delay),
        _ => Err(format!("write it as {}", example(word))),
    }
}

fn example(word: &str) -> &'static str {
    match word {
        "kill" => "kill 2",
        "stall" => "stall 2",
        "revive" => "revive 2",
        "skew" => "skew 2 +5s",
        _ => "delay 2 80ms",
    }
}

/// What a button's name means: a deed without its node (`skew +5s`).
pub(crate) fn deed_of(name: &str) -> Result<Deed, String> {
    let mut words = name.split_whitespace();
    let word = words.next().unwrap_or_default();
    let how: Vec<_> = words.collect();
    match word {
        "kill" | "stall" | "revive" | "skew" | "delay" => deed(word, &how),
        _ => Err(format!("there is nothing called {name:?} that could be done to a node")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn command(line: &str) -> Result<Command, String> {
        line.parse()
    }

    #[test]
    fn a_line_is_understood_however_it_is_typed() {
        let seconds = Duration::from_secs(5);
        for (line, meant) in [
            ("kill 2", Command::To(Which(2), Deed::Kill)),
            ("  KILL   b ", Command::To(Which(2), Deed::Kill)),
            ("stall A", Command::To(Which(1), Deed::Stall)),
            ("revive 26", Command::To(Which(26), Deed::Revive)),
            ("skew 2 +5s", Command::To(Which(2), Deed::Skew(seconds))),
            ("skew c 5s", Command::To(Which(3), Deed::Skew(seconds))),
            ("delay 1 80ms", Command::To(Which(1), Deed::Delay("80ms".parse().unwrap()))),
            ("delay 1 1ms..9ms", Command::To(Which(1), Deed::Delay("1ms..9ms".parse().unwrap()))),
            ("add", Command::Add),
            ("nodes", Command::Nodes),
            ("?", Command::Help),
            ("exit", Command::Quit),
        ] {
            assert_eq!(command(line), Ok(meant), "{line}");
        }
    }

    #[test]
    fn what_is_not_understood_is_told_with_what_would_be() {
        for (line, said) in [
            ("", "there is no command \"\""),
            ("burn 2", "there is no command \"burn\"; there are kill"),
            ("kill", "kill which node? Write kill 2"),
            ("skew", "Write skew 2 +5s"),
            ("kill 0", "\"0\" is no node"),
            ("kill 27", "\"27\" is no node"),
            ("kill -1", "\"-1\" is no node"),
            ("kill AB", "\"AB\" is no node"),
            ("kill 2 now", "write it as kill 2"),
            ("skew 2", "write it as skew 2 +5s"),
            ("skew 2 -5s", "never goes back"),
            ("skew 2 soon", "no leap"),
            ("delay 2", "write it as delay 2 80ms"),
            ("delay 2 far", "no distance"),
            ("delay 2 1h", "10s at most"),
            ("add 3", "add stands alone; \"3\" means nothing"),
            ("quit now", "quit stands alone"),
        ] {
            let error = command(line).unwrap_err();
            assert!(error.contains(said), "{line}: {error}");
        }
    }

    #[test]
    fn a_button_is_a_deed_without_its_node() {
        assert_eq!(deed_of("kill"), Ok(Deed::Kill));
        assert_eq!(deed_of("skew +5s"), Ok(Deed::Skew(Duration::from_secs(5))));
        assert!(deed_of("add").unwrap_err().contains("nothing called \"add\""));
        assert!(deed_of("skew").unwrap_err().contains("skew 2 +5s"));
    }

    #[test]
    fn a_node_is_shown_by_its_letter() {
        assert_eq!(Which(1).to_string(), "A");
        assert_eq!(Which(26).to_string(), "Z");
    }
}
