//! Pages of the docs, and the blocks of code in them.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// A page in Markdown.
#[derive(Debug)]
pub struct Page {
    /// From the root of the repository.
    pub path: String,
    pub text: String,
    pub blocks: Vec<Block>,
}

/// A fenced block of code.
#[derive(Debug)]
pub struct Block {
    /// Of its fence, from 1.
    pub line: usize,
    pub language: String,
    pub note: Option<Note>,
    pub text: String,
}

/// A comment right before a block.
#[derive(Debug, PartialEq, Eq)]
pub enum Note {
    /// `file: PATH`: the block is this file.
    File(String),
    /// `not run: WHY`: tests do not run it.
    NotRun(String),
    /// `fails: CODE`: its last command ends with this exit code.
    Fails(i32),
}

/// A command of a block, as typed after `$ `, with what it prints.
#[derive(Debug, PartialEq, Eq)]
pub struct Typed {
    /// From 1.
    pub line: usize,
    pub command: String,
    /// Nothing where the page shows nothing.
    pub output: Vec<String>,
    /// How it ends.
    pub code: i32,
}

/// The repository.
pub fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Every page: the README and what is below docs/.
pub fn all() -> Vec<Page> {
    let mut pages = vec![Page::read("README.md")];
    let mut folders = vec![PathBuf::from("docs")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(root().join(&folder)).unwrap().flatten() {
            let path = folder.join(entry.file_name());
            if entry.path().is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "md") {
                pages.push(Page::read(path.to_str().unwrap()));
            }
        }
    }
    pages.sort_by(|one, other| one.path.cmp(&other.path));
    pages
}

impl Page {
    pub fn read(path: &str) -> Self {
        let text = std::fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"));
        Self { path: path.to_owned(), blocks: blocks(path, &text), text }
    }

    /// The blocks of commands that are run.
    pub fn commands(&self) -> impl Iterator<Item = &Block> {
        self.blocks.iter().filter(|block| super::is_run(block))
    }

    /// Where its reader stands: in the folder of examples of its name where there is one, else in the repository.
    pub fn home(&self, repository: &Path) -> PathBuf {
        let name = Path::new(&self.path).file_stem().unwrap().to_str().unwrap().replace('-', "_");
        let examples = repository.join("docs/examples").join(name);
        if examples.is_dir() { examples } else { repository.to_owned() }
    }

    /// Links to files of the repository, with their lines.
    pub fn links(&self) -> Vec<(usize, String)> {
        let mut found = Vec::new();
        let mut fenced = false;
        for (number, line) in self.text.lines().enumerate() {
            fenced ^= line.starts_with("```");
            for part in line.split("](").skip(1).filter(|_| !fenced) {
                let target = part.split(')').next().unwrap_or_default();
                if !target.contains("://") && !target.starts_with("mailto:") {
                    found.push((number + 1, target.to_owned()));
                }
            }
        }
        found
    }

    /// What links can name behind `#`: headings as forges spell them there.
    pub fn anchors(&self) -> BTreeSet<String> {
        let mut fenced = false;
        let mut found = BTreeSet::new();
        for line in self.text.lines() {
            fenced ^= line.starts_with("```");
            if let Some(heading) = line.strip_prefix('#').filter(|_| !fenced) {
                let heading = heading.trim_start_matches('#').trim().to_lowercase().replace(' ', "-");
                found.insert(
                    heading.chars().filter(|letter| letter.is_alphanumeric() || "-_".contains(*letter)).collect(),
                );
            }
        }
        found
    }
}

fn blocks(path: &str, text: &str) -> Vec<Block> {
    let mut blocks = Vec::new();
    let mut open: Option<Block> = None;
    let mut note = None;
    for (number, line) in text.lines().enumerate() {
        let place = format!("{path}:{}", number + 1);
        match &mut open {
            Some(_) if line.trim_end() == "```" => blocks.extend(open.take()),
            Some(block) => {
                block.text.push_str(line);
                block.text.push('\n');
            }
            None => match line.strip_prefix("```") {
                Some(language) => {
                    let language = language.trim().to_owned();
                    open = Some(Block { line: number + 1, language, note: note.take(), text: String::new() });
                }
                None if line.starts_with("<!-- ") => note = read_note(&place, line),
                None if !line.trim().is_empty() => note = None,
                None => {}
            },
        }
    }
    assert!(open.is_none(), "{path}: the last block does not end");
    blocks
}

fn read_note(place: &str, line: &str) -> Option<Note> {
    let comment = line.strip_prefix("<!-- ")?.trim_end().strip_suffix(" -->")?;
    let (what, value) = comment.split_once(": ")?;
    match what {
        "file" => Some(Note::File(value.to_owned())),
        "not run" => Some(Note::NotRun(value.to_owned())),
        "fails" => Some(Note::Fails(value.parse().unwrap_or_else(|_| panic!("{place}: {value} is no exit code")))),
        _ => None,
    }
}

impl Block {
    /// Its commands. One goes on in the next line after a `\` or behind `> `.
    pub fn typed(&self) -> Vec<Typed> {
        let mut typed: Vec<Typed> = Vec::new();
        let mut goes_on = false;
        for (number, line) in self.text.lines().enumerate() {
            if let Some(command) = line.strip_prefix("$ ").filter(|_| !goes_on) {
                typed.push(Typed {
                    line: self.line + number + 1,
                    command: command.to_owned(),
                    output: Vec::new(),
                    code: 0,
                });
            } else {
                let last = typed.last_mut().expect("a block begins with a command");
                if goes_on || (last.output.is_empty() && line.starts_with("> ")) {
                    last.command.push('\n');
                    last.command.push_str(line.strip_prefix("> ").unwrap_or(line));
                } else if !(line.is_empty() && last.output.is_empty()) {
                    last.output.push(line.trim_end().to_owned());
                }
            }
            goes_on = line.ends_with('\\');
        }
        for command in &mut typed {
            while command.output.last().is_some_and(String::is_empty) {
                command.output.pop();
            }
        }
        if let (Some(Note::Fails(code)), Some(last)) = (&self.note, typed.last_mut()) {
            last.code = *code;
        }
        typed
    }
}

/// Whether what was printed is what a page shows: `…` stands for any text within a line, and for any lines where it is alone.
pub fn shows(shown: &[String], printed: &[&str]) -> bool {
    match shown.split_first() {
        None => printed.iter().all(|line| line.trim().is_empty()),
        Some((first, rest)) if first.trim() == "…" => {
            (0..=printed.len()).any(|skipped| shows(rest, &printed[skipped..]))
        }
        Some((first, rest)) => {
            printed.split_first().is_some_and(|(line, later)| matches(first, line.trim_end()) && shows(rest, later))
        }
    }
}

fn matches(shown: &str, printed: &str) -> bool {
    let mut parts = shown.split('…');
    let Some(mut left) = parts.next().and_then(|first| printed.strip_prefix(first)) else { return false };
    let mut parts = parts.peekable();
    let open_ended = parts.peek().is_some();
    while let Some(part) = parts.next() {
        if parts.peek().is_none() {
            return left.ends_with(part);
        }
        let Some((_, behind)) = left.split_once(part) else { return false };
        left = behind;
    }
    open_ended || left.is_empty()
}

#[test]
fn a_page_is_read_as_people_read_it() {
    let text = "# A page\n\n<!-- file: a.txt -->\n```\n$ no command\n```\n<!-- fails: 2 -->\n\n```console\n$ one \\\n    more\n$ two <<END\n> text\n> END\nsaid…\n\n$ three\n```\n<!-- not run: it would take all day -->\ntext\n```console\n$ four\n```\n";
    let blocks = blocks("here", text);
    assert_eq!(blocks.iter().map(|block| block.line).collect::<Vec<_>>(), [4, 9, 21]);
    assert_eq!(blocks[0].note, Some(Note::File("a.txt".to_owned())));
    assert_eq!(blocks[2].note, None, "a comment counts right before a block only");
    let typed = |line, command: &str, output: &[&str], code| Typed {
        line,
        command: command.to_owned(),
        output: output.iter().map(|line| (*line).to_owned()).collect(),
        code,
    };
    let wanted = [
        typed(10, "one \\\n    more", &[], 0),
        typed(12, "two <<END\ntext\nEND", &["said…"], 0),
        typed(17, "three", &[], 2),
    ];
    assert_eq!(blocks[1].typed(), wanted);
}

#[test]
fn what_is_shown_may_leave_out_and_no_more() {
    let shown = |lines: &[&str]| lines.iter().map(|line| (*line).to_owned()).collect::<Vec<_>>();
    assert!(shows(&shown(&["a … c", "…", "z"]), &["a b c", "x", "y", "z", ""]));
    assert!(shows(&shown(&["…"]), &[]));
    assert!(!shows(&shown(&["a"]), &["ab"]));
    assert!(!shows(&shown(&["a…c"]), &["abd"]));
    assert!(!shows(&shown(&["a"]), &["a", "b"]));
    assert!(!shows(&shown(&["a", "b"]), &["a"]));
    assert!(shows(&shown(&["…b…"]), &["abc"]));
    assert!(Path::new(&root()).join("Cargo.toml").exists());
}
