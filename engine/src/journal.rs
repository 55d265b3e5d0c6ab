//! Decides what a journal of an engine's life is, and whether another engine, told the same, asks for the
//! same: an incident in production is replayed at a desk. How a journal is written and read is decided
//! elsewhere; as text it is one JSON object a line, a [`Header`] first and then one [`Entry`] a line.

use alloc::boxed::Box;
use alloc::string::String;
use core::fmt;

use serde::{Deserialize, Serialize};

use crate::engine::{Config, Engine};
use crate::io::{Input, Output};
use crate::sabotage::{Sabotage, Sound};
use crate::units::{LocalInstant, NodeId};

/// The version of the journals that this engine writes and replays.
pub const VERSION: u32 = 1;

/// What an engine was made from, and so what another one is made from to replay its life.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// The version of the journal, [`VERSION`].
    pub version: u32,
    /// The node's id in this life.
    pub id: NodeId,
    /// How many jobs it runs at once, at least 1.
    pub capacity: u32,
    /// The seed of the engine's chance.
    pub seed: u64,
    /// When the engine was made.
    pub now: LocalInstant,
    /// The node's name, for people.
    pub node: String,
}

impl Header {
    /// An engine as it was when this header was written.
    pub fn engine(&self) -> Engine {
        self.engine_as()
    }

    fn engine_as<S: Sabotage>(&self) -> Engine<S> {
        Engine::new(self.id, Config { capacity: self.capacity }, self.seed, self.now)
    }
}

/// One line of a journal after its header, in the order in which things happened. An input may come before
/// the last output of the one before it was polled.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(
    clippy::large_enum_variant,
    reason = "an entry is written or read at once, never kept in numbers"
)]
pub enum Entry {
    /// The engine was told something.
    Input {
        /// When.
        at: LocalInstant,
        /// What.
        input: Input,
    },
    /// The engine was polled and asked for this.
    Output(Output),
    /// The life ended in good order: nothing is missing from it.
    End,
    /// The node, declared lost, began anew under another id, with a new engine.
    Life(Header),
    /// The writer could not keep up or could not write: what came after this is not in the journal.
    BrokenOff,
}

/// What a replay came to that found no difference.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Lives replayed, at least 1.
    pub lives: u64,
    /// Inputs told.
    pub inputs: u64,
    /// Outputs compared.
    pub outputs: u64,
    /// The instant of the last input; none without one.
    pub until: Option<LocalInstant>,
    /// The last life's end is in the journal: it holds all that happened. False after a crash, or when the
    /// journal broke off.
    pub ended: bool,
}

/// Where a replay was not what the journal says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Divergence {
    /// The journal is of another version: it is replayed by the binary that wrote it.
    Version {
        /// The journal's.
        found: u32,
    },
    /// The first output that differs.
    Output {
        /// The number of the entry, from 1 for the first after the header.
        entry: u64,
        /// What the journal says; none: that there is no further output.
        expected: Option<Box<Output>>,
        /// What this engine asked for; none: nothing.
        got: Option<Box<Output>>,
    },
}

impl fmt::Display for Divergence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Version { found } => write!(
                f,
                "the journal is of version {found} and this replays version {VERSION}: replay it with the binary that wrote it"
            ),
            Self::Output { entry, expected, got } => {
                write!(f, "entry {entry} differs: the journal has ")?;
                show(f, expected.as_deref())?;
                f.write_str(", this engine has ")?;
                show(f, got.as_deref())
            }
        }
    }
}

impl core::error::Error for Divergence {}

fn show(f: &mut fmt::Formatter<'_>, output: Option<&Output>) -> fmt::Result {
    match output {
        Some(output) => write!(f, "{output:?}"),
        None => f.write_str("no output"),
    }
}

/// Tell a new engine what the journal's was told, and compare what it asks for, entry by entry, up to the
/// first difference.
pub fn replay(
    header: &Header,
    entries: impl IntoIterator<Item = Entry>,
) -> Result<Summary, Divergence> {
    replay_as::<Sound>(header, entries)
}

/// The same for an engine in which a simulator has planted a bug: the new one has it too.
pub fn replay_as<S: Sabotage>(
    header: &Header,
    entries: impl IntoIterator<Item = Entry>,
) -> Result<Summary, Divergence> {
    let mut engine = engine_of::<S>(header)?;
    let mut summary = Summary { lives: 1, ..Summary::default() };
    let mut retired = false;
    for (number, entry) in (1..).zip(entries) {
        match entry {
            Entry::Input { at, input } => {
                engine.handle_input(at, input);
                summary.inputs += 1;
                summary.until = Some(at);
            }
            Entry::Output(expected) => {
                retired |= matches!(expected, Output::Retire(_));
                let got = engine.poll_output();
                if got.as_ref() != Some(&expected) {
                    let (expected, got) = (Some(Box::new(expected)), got.map(Box::new));
                    return Err(Divergence::Output { entry: number, expected, got });
                }
                summary.outputs += 1;
            }
            Entry::End => {
                // Nobody polls an engine that is finished.
                if !retired && let Some(got) = engine.poll_output() {
                    let got = Some(Box::new(got));
                    return Err(Divergence::Output { entry: number, expected: None, got });
                }
                summary.ended = true;
            }
            Entry::Life(header) => {
                engine = engine_of(&header)?;
                retired = false;
                summary.lives += 1;
                summary.ended = false;
            }
            Entry::BrokenOff => {
                summary.ended = false;
                break;
            }
        }
    }
    Ok(summary)
}

fn engine_of<S: Sabotage>(header: &Header) -> Result<Engine<S>, Divergence> {
    match header.version {
        VERSION => Ok(header.engine_as()),
        found => Err(Divergence::Version { found }),
    }
}

#[cfg(test)]
mod tests {
    use alloc::string::ToString;
    use alloc::vec::Vec;

    use super::*;
    use crate::clock::Exchange;
    use crate::io::{Fate, Kept, Note, ServerIdentity, TurnAnswer, TurnKind, WorkAnswer};
    use crate::turn::TurnRow;
    use crate::units::{Period, ServerInstant};

    /// A node alone with its database, which answers a millisecond after each statement; and its journal.
    struct Desk {
        engine: Engine,
        row: TurnRow,
        now: LocalInstant,
        entries: Vec<Entry>,
    }

    fn header() -> Header {
        Header {
            version: VERSION,
            id: NodeId::from_u128(7),
            capacity: 4,
            seed: u64::MAX,
            now: LocalInstant::from_nanos(5_000_000_000),
            node: String::from("desk"),
        }
    }

    impl Desk {
        fn new() -> Self {
            let header = header();
            let row = TurnRow::new(Period::DEFAULT);
            Self { engine: header.engine(), row, now: header.now, entries: Vec::new() }
        }

        fn tell(&mut self, input: Input) {
            self.entries.push(Entry::Input { at: self.now, input: input.clone() });
            self.engine.handle_input(self.now, input);
            while let Some(output) = self.engine.poll_output() {
                self.entries.push(Entry::Output(output.clone()));
                if let Some(answer) = self.answer(&output) {
                    self.now = self.now.offset(1_000_000);
                    self.tell(answer);
                }
            }
        }

        /// Every fifth statement is not answered.
        fn answer(&mut self, output: &Output) -> Option<Input> {
            match output {
                Output::Turn { request, .. } if request.0 % 5 == 0 => {
                    Some(Input::Failed { request: *request, fate: Fate::Unknown })
                }
                Output::Turn { request, statement, .. } => {
                    let at = ServerInstant::from_nanos(self.now.as_nanos() as i64 + 3_000_000_000);
                    let now = self.row.stamp(at, Some(statement.node), statement.believed);
                    let done = match &statement.kind {
                        TurnKind::Read => true,
                        TurnKind::Beat { .. } => self.row.beat(now),
                        TurnKind::Change { change, .. } => {
                            self.row.change(now, Some(statement.node), change)
                        }
                    };
                    let is_beat = matches!(statement.kind, TurnKind::Beat { claim: Some(_) });
                    Some(Input::TurnAnswer(Box::new(TurnAnswer {
                        request: *request,
                        exchange: Some(Exchange {
                            sent: self.now,
                            arrived: at,
                            answered: at,
                            received: self.now.offset(1_000_000),
                            resolution: 1_000,
                        }),
                        identity: ServerIdentity::default(),
                        now,
                        done,
                        row: self.row.clone(),
                        claimed: u32::from(is_beat && done),
                        more: false,
                        kept: Kept::default(),
                        lost: false,
                    })))
                }
                Output::Work { request, .. } => Some(Input::WorkAnswer(WorkAnswer {
                    request: *request,
                    sent: self.now,
                    claimed: 0,
                    more: false,
                    kept: Kept::default(),
                    lost: false,
                })),
                _ => None,
            }
        }

        fn live(mut self, wakes: u32) -> Vec<Entry> {
            for wake in 0..wakes {
                if let Some((at, _)) = self.engine.poll_timeout() {
                    self.now = self.now.max(at);
                }
                self.tell(Input::Wake);
                if wake % 3 == 2 {
                    self.tell(Input::JobsEnded { jobs: 1, sent: self.now });
                }
            }
            self.tell(Input::Leave);
            self.entries.push(Entry::End);
            self.entries
        }
    }

    /// Through text and back, as a file would have it.
    fn reread(entries: &[Entry]) -> Vec<Entry> {
        let lines: Vec<String> =
            entries.iter().map(|entry| serde_json::to_string(entry).unwrap()).collect();
        assert!(lines.iter().all(|line| !line.contains('\n')));
        lines.iter().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    #[test]
    fn a_life_is_replayed_from_its_journal_without_a_difference() {
        let entries = Desk::new().live(40);
        let beats = entries
            .iter()
            .filter(|entry| {
                matches!(entry, Entry::Output(Output::Note(Note::Beat { accepted: true, .. })))
            })
            .count();
        assert!(beats > 10, "the life was too dull to tell anything: {beats} beats");
        let text = serde_json::to_string(&header()).unwrap();
        assert_eq!(serde_json::from_str::<Header>(&text).unwrap(), header());
        let again = reread(&entries);
        assert_eq!(again, entries);
        let summary = replay(&header(), again).unwrap();
        let outputs = entries.iter().filter(|entry| matches!(entry, Entry::Output(_))).count();
        assert_eq!(summary.outputs, outputs as u64);
        assert_eq!((summary.lives, summary.ended), (1, true));
    }

    #[test]
    fn the_first_difference_is_named() {
        let mut entries = Desk::new().live(10);
        let place = entries.iter().rposition(|entry| matches!(entry, Entry::Output(_))).unwrap();
        let said = Output::Note(Note::Left);
        let true_one = core::mem::replace(&mut entries[place], Entry::Output(said.clone()));
        let Entry::Output(true_one) = true_one else { unreachable!() };
        let entry = place as u64 + 1;
        let found = replay(&header(), entries).unwrap_err();
        let (expected, got) = (Some(Box::new(said)), Some(Box::new(true_one)));
        assert_eq!(found, Divergence::Output { entry, expected, got });
        assert!(found.to_string().contains("differs"), "{found}");
    }

    #[test]
    fn an_output_too_few_or_too_many_is_a_difference() {
        let entries = Desk::new().live(10);
        let place = entries.iter().rposition(|entry| matches!(entry, Entry::Output(_))).unwrap();
        let mut fewer = entries.clone();
        fewer.remove(place);
        let missing = replay(&header(), fewer).unwrap_err();
        assert!(matches!(missing, Divergence::Output { expected: None, got: Some(_), .. }));
        let mut more = entries.clone();
        more.insert(place + 1, entries[place].clone());
        let surplus = replay(&header(), more).unwrap_err();
        assert!(matches!(surplus, Divergence::Output { expected: Some(_), got: None, .. }));
    }

    #[test]
    fn a_journal_of_two_lives_or_one_that_broke_off_is_replayed_as_far_as_it_goes() {
        let life = Desk::new().live(10);
        let two: Vec<Entry> =
            life.iter().cloned().chain([Entry::Life(header())]).chain(life.clone()).collect();
        assert_eq!(replay(&header(), two).unwrap().lives, 2);
        let cut = life.len() / 2;
        let broken: Vec<Entry> = life[..cut]
            .iter()
            .cloned()
            .chain([Entry::BrokenOff])
            .chain(life[cut + 3..].to_vec())
            .collect();
        let summary = replay(&header(), broken).unwrap();
        assert!(!summary.ended && summary.outputs > 0);
    }

    #[test]
    fn another_version_is_refused_by_name() {
        let other = Header { version: VERSION + 1, ..header() };
        let refused = replay(&other, []).unwrap_err();
        assert_eq!(refused, Divergence::Version { found: VERSION + 1 });
    }
}
