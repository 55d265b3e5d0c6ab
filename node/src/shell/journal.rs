//! The journal of a node: every input of its engine and every output, as text for a replay at a desk. Decides
//! what happens when it cannot keep up: the node goes on, and the journal says that it broke off.
//!
//! The engine's task only puts entries into a channel; a thread of its own turns them into text.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, BufWriter, Read, Seek, SeekFrom, Write};
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{
    Receiver, RecvTimeoutError, SyncSender, TryRecvError, channel, sync_channel,
};
use std::time::Duration;

use turnwise_engine::journal::{Entry, Header};
use turnwise_engine::{Engine, Input, LocalInstant, Output};

/// So many entries may wait for the thread that writes them: seconds of a busy node.
const WAITING_MAX: usize = 8_192;
/// How long the end of the node waits for the last entries to be written.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);
/// No header is longer than this, in bytes.
const HEADER_BYTES_MAX: u64 = 65_536;

/// Where the journal of a node goes: a file, or somebody who is told at once.
#[derive(Debug)]
pub struct Journal {
    pen: Pen,
    /// Heard from when the file is complete.
    written: Option<Receiver<()>>,
}

/// Why there is no journal.
#[derive(Debug, thiserror::Error)]
#[error("the journal {} cannot be written: {reason}. Name another file with --journal", path.display())]
pub struct JournalError {
    path: PathBuf,
    reason: String,
}

/// Writes entries into a journal; never waits for it.
#[derive(Clone)]
pub(crate) enum Pen {
    /// Through a channel, to the thread that writes the file.
    File { entries: SyncSender<Entry>, broke_off: Arc<AtomicBool> },
    /// To somebody who listens.
    Listener(Listener),
}

type Listener = Arc<dyn Fn(&Entry) + Send + Sync>;

impl fmt::Debug for Pen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::File { .. } => "File",
            Self::Listener(_) => "Listener",
        })
    }
}

impl Journal {
    /// Write a journal to the file at `path`. What an earlier run of a node wrote there is kept, but for a
    /// last line that was cut short.
    #[expect(
        clippy::disallowed_methods,
        reason = "the file is written by a thread of its own; a simulator listens instead"
    )]
    pub fn open(path: &Path) -> Result<Self, JournalError> {
        let wrong = |reason: String| JournalError { path: path.to_owned(), reason };
        let (file, is_new) = open(path).map_err(|error| wrong(error.to_string()))?;
        let (entries, receiver) = sync_channel(WAITING_MAX);
        let (done, written) = channel();
        let broke_off = Arc::<AtomicBool>::default();
        let pen = Pen::File { entries, broke_off: Arc::clone(&broke_off) };
        let name = path.display().to_string();
        let write = move || {
            if let Err(error) = write(BufWriter::new(file), is_new, &receiver, &broke_off) {
                broke_off.store(true, Ordering::Relaxed);
                tracing::warn!("the journal {name} breaks off here: {error}");
            }
            let _ = done.send(());
        };
        let thread = std::thread::Builder::new().name("journal".to_owned()).spawn(write);
        thread.map_err(|error| wrong(error.to_string()))?;
        Ok(Self { pen, written: Some(written) })
    }

    /// Tell `listener` each entry as it comes. It runs within the engine's task and must not wait.
    pub fn listened_to(listener: impl Fn(&Entry) + Send + Sync + 'static) -> Self {
        Self { pen: Pen::Listener(Arc::new(listener)), written: None }
    }

    pub(crate) fn pen(&self) -> Pen {
        self.pen.clone()
    }

    /// Wait until everything is written.
    pub fn close(self) {
        drop(self.pen);
        let Some(written) = self.written else { return };
        if written.recv_timeout(CLOSE_TIMEOUT) == Err(RecvTimeoutError::Timeout) {
            tracing::warn!("the last entries of the journal were not written in time");
        }
    }
}

impl Pen {
    fn put(&self, entry: Entry) {
        match self {
            Self::Listener(listener) => listener(&entry),
            Self::File { broke_off, .. } if broke_off.load(Ordering::Relaxed) => {}
            Self::File { entries, broke_off } => {
                if entries.try_send(entry).is_err() && !broke_off.swap(true, Ordering::Relaxed) {
                    tracing::warn!("the journal cannot keep up with the node and breaks off here");
                }
            }
        }
    }
}

/// An engine and the journal of its life, if one is kept: the engine is told and polled here alone.
pub(crate) struct Recorded {
    engine: Engine,
    pen: Option<Pen>,
}

impl Recorded {
    /// A new engine, and the beginning of its life in the journal.
    pub(crate) fn new(header: Header, pen: Option<Pen>) -> Self {
        let engine = header.engine();
        if let Some(pen) = &pen {
            pen.put(Entry::Life(header));
        }
        Self { engine, pen }
    }

    pub(crate) fn handle_input(&mut self, at: LocalInstant, input: Input) {
        if let Some(pen) = &self.pen {
            pen.put(Entry::Input { at, input: input.clone() });
        }
        self.engine.handle_input(at, input);
    }

    pub(crate) fn poll_output(&mut self) -> Option<Output> {
        let output = self.engine.poll_output();
        if let (Some(pen), Some(output)) = (&self.pen, &output) {
            pen.put(Entry::Output(output.clone()));
        }
        output
    }

    /// The life ended in good order.
    pub(crate) fn end(&self) {
        if let Some(pen) = &self.pen {
            pen.put(Entry::End);
        }
    }
}

/// For looking at it.
impl Deref for Recorded {
    type Target = Engine;
    fn deref(&self) -> &Engine {
        &self.engine
    }
}

/// The file at its end, and whether nothing stands in it.
fn open(path: &Path) -> io::Result<(File, bool)> {
    let mut file =
        OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
    file.try_lock().map_err(|_| io::Error::other("another process writes it"))?;
    let mut first = String::new();
    // Not lossy: what is no text is no journal.
    BufReader::new((&file).take(HEADER_BYTES_MAX)).read_line(&mut first)?;
    let is_journal = match first.ends_with('\n') {
        true => serde_json::from_str::<Header>(&first).is_ok(),
        // Nothing, or a header that was cut short.
        false => first.is_empty() || first.starts_with("{\"version\":"),
    };
    if !is_journal {
        return Err(io::Error::other("it holds something that is no journal"));
    }
    let end = after_last_line(&mut file)?;
    file.set_len(end)?;
    file.seek(SeekFrom::Start(end))?;
    Ok((file, end == 0))
}

/// Where the last whole line of the file ends.
fn after_last_line(file: &mut File) -> io::Result<u64> {
    let mut end = file.seek(SeekFrom::End(0))?;
    let mut block = [0; 4096];
    while end > 0 {
        let begin = end.saturating_sub(block.len() as u64);
        let part = &mut block[..(end - begin) as usize];
        file.seek(SeekFrom::Start(begin))?;
        file.read_exact(part)?;
        if let Some(place) = part.iter().rposition(|byte| *byte == b'\n') {
            return Ok(begin + place as u64 + 1);
        }
        end = begin;
    }
    Ok(0)
}

/// Write entries as they come, until nobody can send any more or the sender broke off.
fn write(
    mut file: impl Write,
    is_new: bool,
    entries: &Receiver<Entry>,
    broke_off: &AtomicBool,
) -> io::Result<()> {
    let mut is_first = is_new;
    loop {
        let entry = match entries.try_recv() {
            Ok(entry) => Some(entry),
            Err(TryRecvError::Disconnected) => None,
            Err(TryRecvError::Empty) => {
                file.flush()?;
                if broke_off.load(Ordering::Relaxed) { None } else { entries.recv().ok() }
            }
        };
        match entry {
            Some(Entry::Life(header)) if is_first => serde_json::to_writer(&mut file, &header)?,
            Some(entry) => serde_json::to_writer(&mut file, &entry)?,
            None => break,
        }
        file.write_all(b"\n")?;
        is_first = false;
    }
    if broke_off.load(Ordering::Relaxed) {
        serde_json::to_writer(&mut file, &Entry::BrokenOff)?;
        file.write_all(b"\n")?;
    }
    file.flush()
}

#[cfg(test)]
mod tests {
    use turnwise_engine::NodeId;
    use turnwise_engine::journal::{VERSION, replay};

    use super::*;

    fn header(number: u128) -> Header {
        Header {
            version: VERSION,
            id: NodeId::from_u128(number),
            capacity: 4,
            seed: 1,
            now: LocalInstant::from_nanos(1),
            node: "n".to_owned(),
        }
    }

    fn live(path: &Path, number: u128) {
        let journal = Journal::open(path).unwrap();
        let mut engine = Recorded::new(header(number), Some(journal.pen()));
        engine.handle_input(LocalInstant::from_nanos(2), Input::Wake);
        while engine.poll_output().is_some() {}
        engine.end();
        drop(engine);
        journal.close();
    }

    fn read(path: &Path) -> (Header, Vec<Entry>) {
        let text = std::fs::read_to_string(path).unwrap();
        let mut lines = text.lines();
        let header = serde_json::from_str(lines.next().unwrap()).unwrap();
        (header, lines.map(|line| serde_json::from_str(line).unwrap()).collect())
    }

    #[test]
    fn a_second_run_goes_on_in_the_file_of_the_first_and_drops_a_line_cut_short() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("j");
        live(&path, 1);
        let mut file = OpenOptions::new().append(true).open(&path).unwrap();
        file.write_all(b"{\"Input\":{\"at").unwrap();
        live(&path, 2);
        let (first, entries) = read(&path);
        assert_eq!(first, header(1));
        assert!(entries.contains(&Entry::Life(header(2))), "{entries:?}");
        let summary = replay(&first, entries).unwrap();
        assert_eq!((summary.lives, summary.inputs, summary.ended), (2, 2, true));
    }

    #[test]
    fn a_file_that_is_no_journal_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("turnwise.toml");
        for text in ["capacity = 3\nname = 'x'\n", "capacity = 3"] {
            std::fs::write(&path, text).unwrap();
            let error = Journal::open(&path).unwrap_err().to_string();
            assert!(error.contains("no journal") && error.contains("--journal"), "{error}");
            assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
        }
        let error = Journal::open(&folder.path().join("none/j")).unwrap_err().to_string();
        assert!(error.contains("none/j"), "{error}");
    }

    #[test]
    fn two_writers_do_not_share_a_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("j");
        let first = Journal::open(&path).unwrap();
        let error = Journal::open(&path).unwrap_err().to_string();
        assert!(error.contains("another process"), "{error}");
        first.close();
    }

    #[test]
    fn a_journal_that_cannot_keep_up_says_so_and_holds_up_nobody() {
        // Nobody writes yet: the channel fills.
        let (entries, receiver) = sync_channel(4);
        let broke_off = Arc::<AtomicBool>::default();
        let pen = Pen::File { entries, broke_off: Arc::clone(&broke_off) };
        let mut engine = Recorded::new(header(1), Some(pen));
        for nanos in 2..50 {
            engine.handle_input(LocalInstant::from_nanos(nanos), Input::Wake);
            while engine.poll_output().is_some() {}
        }
        let mut text = Vec::new();
        write(&mut text, true, &receiver, &broke_off).unwrap();
        let text = String::from_utf8(text).unwrap();
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines.len(), 5, "{text}");
        let last: Entry = serde_json::from_str(lines[4]).unwrap();
        assert_eq!(last, Entry::BrokenOff);
        let entries = lines[1..].iter().map(|line| serde_json::from_str(line).unwrap());
        assert!(!replay(&header(1), entries).unwrap().ended);
    }
}
