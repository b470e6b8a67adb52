//! Reading a log of events that anybody may have written: lines are bounded, what is damaged is told apart and skipped, and a
//! file may grow, be rotated or be cut off meanwhile.

use super::Event;
use crate::text::plain;
use std::fs::{File, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

/// Longest line that is read, bytes: far more than this program writes.
pub const MAX_LINE: usize = 1024 * 1024;
/// Bytes read at once.
const CHUNK: usize = 64 * 1024;
/// Bytes before the place of reading that are remembered, to see whether a file is still the same.
const REMEMBERED: usize = 1024;

/// Why a line is no event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Damage {
    /// It is over [`MAX_LINE`].
    TooLong,
    /// It has NUL bytes.
    Nul,
    /// The log ends within it.
    CutOff,
    /// It is something else; why, fit for a terminal.
    NoEvent(String),
}

impl std::fmt::Display for Damage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::TooLong => write!(f, "has more than {} MiB", MAX_LINE >> 20),
            Self::Nul => {
                f.write_str("has NUL bytes, as after a crash or when a writer does not know that its file was cut")
            }
            Self::CutOff => f.write_str("is cut off"),
            Self::NoEvent(why) => write!(f, "is no event: {why}"),
        }
    }
}

/// A line of a log that is not blank.
#[derive(Debug)]
pub struct Line {
    /// Its place in the file, from 1.
    pub number: u64,
    /// The event and the text that it stands in, or why there is none.
    pub event: Result<(Event, String), Damage>,
}

/// Puts lines together from bytes as they come.
#[derive(Debug, Default)]
pub struct Lines {
    pending: Vec<u8>,
    too_long: bool,
    number: u64,
}

impl Lines {
    /// Takes bytes; gives the lines that they complete.
    pub fn push(&mut self, bytes: &[u8]) -> Vec<Line> {
        let mut lines = Vec::new();
        let mut rest = bytes;
        while let Some(length) = rest.iter().position(|byte| *byte == b'\n') {
            self.keep(&rest[..length]);
            lines.extend(self.complete());
            rest = &rest[length + 1..];
        }
        self.keep(rest);
        lines
    }

    /// What is left when nothing more comes. A whole event without its newline is one all the same.
    pub fn end(&mut self) -> Option<Line> {
        let mut line = self.complete()?;
        if matches!(line.event, Err(Damage::NoEvent(_))) {
            line.event = Err(Damage::CutOff);
        }
        Some(line)
    }

    fn keep(&mut self, part: &[u8]) {
        self.too_long |= self.pending.len() + part.len() > MAX_LINE;
        if self.too_long {
            self.pending = Vec::new();
        } else {
            self.pending.extend_from_slice(part);
        }
    }

    fn complete(&mut self) -> Option<Line> {
        self.number += 1;
        let (bytes, too_long) = (std::mem::take(&mut self.pending), std::mem::take(&mut self.too_long));
        if !too_long && bytes.trim_ascii().is_empty() {
            return None;
        }
        let event = if too_long { Err(Damage::TooLong) } else { parse(bytes) };
        Some(Line { number: self.number, event })
    }
}

fn parse(bytes: Vec<u8>) -> Result<(Event, String), Damage> {
    if bytes.contains(&0) {
        return Err(Damage::Nul);
    }
    let text = String::from_utf8(bytes).map_err(|_| Damage::NoEvent("not UTF-8".into()))?;
    match serde_json::from_str(&text) {
        Ok(event) => Ok((event, text)),
        Err(error) => Err(Damage::NoEvent(plain(&error.to_string(), 120))),
    }
}

/// What a reader of a log hears.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "next to all of them are lines")]
pub enum Heard {
    /// A line.
    Line(Line),
    /// The file became shorter or was written anew; what comes is read from its start.
    Cut,
    /// Another file has taken the place of this one; what comes is read from its start.
    Replaced,
}

/// A log to read: a file, which may grow, or a stream.
pub struct LogSource {
    from: From,
    lines: Lines,
}

enum From {
    Stream(Box<dyn Read>),
    File(LogFile),
}

/// A file, and how far it was read.
struct LogFile {
    path: PathBuf,
    file: File,
    position: u64,
    /// The bytes before `position`.
    seen: Vec<u8>,
    /// Another file has its name: it is read to its end once more, and then left.
    leaving: bool,
}

impl LogSource {
    /// Opens a log; `-` is standard input.
    ///
    /// # Errors
    /// The system's.
    pub fn open(path: &Path) -> io::Result<Self> {
        if path.as_os_str() == "-" {
            return Ok(Self::of_stream(io::stdin()));
        }
        let file = File::open(path)?;
        if !file.metadata()?.is_file() {
            return Ok(Self::of_stream(file));
        }
        let file = LogFile { path: path.to_owned(), file, position: 0, seen: Vec::new(), leaving: false };
        Ok(Self { from: From::File(file), lines: Lines::default() })
    }

    fn of_stream(stream: impl Read + 'static) -> Self {
        Self { from: From::Stream(Box::new(stream)), lines: Lines::default() }
    }

    /// Whether there may be more after [`more`](Self::more) gave nothing.
    #[must_use]
    pub const fn may_grow(&self) -> bool {
        matches!(self.from, From::File(_))
    }

    /// What comes next, in a bounded number of lines; `None` when there is nothing now. Waits for a stream, never for a file.
    ///
    /// # Errors
    /// The system's.
    pub fn more(&mut self) -> io::Result<Option<Vec<Heard>>> {
        let mut heard = Vec::new();
        let mut buffer = vec![0; CHUNK];
        let count = match &mut self.from {
            From::Stream(stream) => retried(|| stream.read(&mut buffer))?,
            From::File(log) => {
                if log.was_cut()? {
                    log.restart();
                    heard.extend(self.lines.end().map(Heard::Line));
                    heard.push(Heard::Cut);
                    self.lines = Lines::default();
                }
                let count = log.read(&mut buffer)?;
                if count == 0 && log.moved_on()? {
                    heard.extend(self.lines.end().map(Heard::Line));
                    heard.push(Heard::Replaced);
                    self.lines = Lines::default();
                }
                count
            }
        };
        heard.extend(self.lines.push(&buffer[..count]).into_iter().map(Heard::Line));
        Ok((count > 0 || !heard.is_empty()).then_some(heard))
    }

    /// What is left when nothing more is waited for.
    pub fn end(&mut self) -> Option<Line> {
        self.lines.end()
    }
}

impl LogFile {
    fn restart(&mut self) {
        self.position = 0;
        self.seen.clear();
    }

    /// Whether what was read is no longer what stands there: the file is shorter, or was cut and written anew.
    fn was_cut(&self) -> io::Result<bool> {
        let length = self.file.metadata()?.len();
        if length <= self.position {
            return Ok(length < self.position);
        }
        let mut there = vec![0; self.seen.len()];
        match self.file.read_exact_at(&mut there, self.position - self.seen.len() as u64) {
            Ok(()) => Ok(there != self.seen),
            // It became shorter just now.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(true),
            Err(error) => Err(error),
        }
    }

    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = retried(|| self.file.read_at(buffer, self.position))?;
        self.position += count as u64;
        self.seen.extend_from_slice(&buffer[count.saturating_sub(REMEMBERED)..count]);
        self.seen.drain(..self.seen.len().saturating_sub(REMEMBERED));
        Ok(count)
    }

    /// Goes on with the file that has this one's name now, if it is another one; true when it did.
    fn moved_on(&mut self) -> io::Result<bool> {
        let named = match std::fs::metadata(&self.path) {
            Ok(named) => named,
            // Renamed away, and its successor is not there yet.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(error),
        };
        let same = |a: &Metadata, b: &Metadata| (a.dev(), a.ino()) == (b.dev(), b.ino());
        if same(&named, &self.file.metadata()?) {
            self.leaving = false;
            return Ok(false);
        }
        // Its writer may have had a last word between our look at its end and the renaming.
        if !std::mem::replace(&mut self.leaving, true) {
            return Ok(false);
        }
        self.leaving = false;
        self.file = match File::open(&self.path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(error),
        };
        self.restart();
        Ok(true)
    }
}

fn retried(mut read: impl FnMut() -> io::Result<usize>) -> io::Result<usize> {
    loop {
        match read() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            other => return other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn event(seq: u64) -> String {
        format!(
            "{{\"ts\":\"2026-01-01T12:00:00.000Z\",\"seq\":{seq},\"event\":\"log\",\"level\":\"info\",\"job_id\":\"job_1\",\"attempt\":1,\"execution\":1}}\n"
        )
    }

    /// The numbers of events, and what was said beside them.
    fn told(heard: Vec<Heard>) -> Vec<String> {
        let line = |line: Line| match line.event {
            Ok((event, _)) => event.seq.to_string(),
            Err(damage) => format!("{}: {damage}", line.number),
        };
        heard
            .into_iter()
            .map(|heard| match heard {
                Heard::Line(one) => line(one),
                Heard::Cut => "cut".into(),
                Heard::Replaced => "replaced".into(),
            })
            .collect()
    }

    fn all(source: &mut LogSource) -> Vec<String> {
        let mut heard = Vec::new();
        while let Some(more) = source.more().unwrap() {
            heard.extend(told(more));
        }
        heard
    }

    fn end(source: &mut LogSource) -> Vec<String> {
        told(source.end().map(Heard::Line).into_iter().collect())
    }

    #[test]
    fn damaged_lines_are_told_apart_and_the_next_one_is_read() {
        let long = "x".repeat(MAX_LINE + 1);
        let text = format!("{}\n  \n{long}\n\0\0\0{}[]\n\u{1b}[2J\n{}{{\"ts\":\"20", event(1), event(2), event(3));
        for size in [1, 7, CHUNK, text.len()] {
            let mut lines = Lines::default();
            let mut heard: Vec<Heard> =
                text.as_bytes().chunks(size).flat_map(|part| lines.push(part)).map(Heard::Line).collect();
            heard.extend(lines.end().map(Heard::Line));
            let heard = told(heard);
            assert_eq!((heard[0].as_str(), heard[5].as_str()), ("1", "3"), "{heard:?}");
            for (place, words) in
                [(1, "4: has more than 1 MiB"), (2, "5: has NUL"), (3, "6: is no event"), (6, "9: is cut off")]
            {
                assert!(heard[place].starts_with(words), "{place}: {heard:?}");
            }
            assert!(heard[4].starts_with("7: is no event") && !heard[4].contains('\u{1b}'), "{heard:?}");
            assert_eq!(heard.len(), 7);
        }
    }

    #[test]
    fn a_last_line_that_is_whole_needs_no_newline() {
        let mut lines = Lines::default();
        assert!(lines.push(event(7).trim_end().as_bytes()).is_empty());
        assert_eq!(lines.end().unwrap().event.unwrap().0.seq, 7);
        assert!(lines.end().is_none());
    }

    #[test]
    fn a_file_that_grows_is_followed_through_renames_replacements_and_cuts() {
        let folder = tempfile::tempdir().unwrap();
        let (path, old) = (folder.path().join("events.ndjson"), folder.path().join("old"));
        let append = |path: &Path, text: &str| {
            let mut file = File::options().append(true).create(true).open(path).unwrap();
            file.write_all(text.as_bytes()).unwrap();
        };
        append(&path, &event(1));
        let mut source = LogSource::open(&path).unwrap();
        assert_eq!(all(&mut source), ["1"]);
        let whole = event(2);
        append(&path, &whole[..20]);
        assert!(all(&mut source).is_empty(), "half a line is none");
        append(&path, &whole[20..]);
        assert_eq!(all(&mut source), ["2"]);

        std::fs::rename(&path, &old).unwrap();
        append(&old, &event(3));
        assert_eq!(all(&mut source), ["3"], "its writer still has it open");
        assert!(source.more().unwrap().is_none(), "nothing has its name");
        append(&path, &event(4));
        append(&old, &event(5)[..30]);
        let heard = [all(&mut source), all(&mut source), all(&mut source)].concat();
        assert_eq!(heard, ["2: is cut off".replace('2', "4"), "replaced".into(), "4".into()]);

        std::fs::write(&path, "").unwrap();
        assert_eq!(all(&mut source), ["cut"]);
        append(&path, &event(6));
        assert_eq!(all(&mut source), ["6"]);
        // Cut and longer than before, between two looks.
        std::fs::write(&path, [event(7), event(8), event(9)].concat()).unwrap();
        assert_eq!(all(&mut source), ["cut", "7", "8", "9"]);
        assert!(end(&mut source).is_empty());
        std::fs::remove_file(&path).unwrap();
        assert!(source.more().unwrap().is_none());
    }
}
