//! The strict reader of `requirements.txt`: names, versions, extras, markers and hashes, and nothing that says where packages
//! come from. That is the admin's to say. `docs/users/dependencies.md` has the table of what is allowed.

use super::diagnostic::{Code, Diagnostic, Diagnostics};
use super::package::Package;
use super::text::shown;
use pep508_rs::{Requirement, VerbatimUrl, VersionOrUrl};
use serde::Serialize;
use sha2::{Digest, Sha256};
use std::str::FromStr;

/// The file in a package.
pub const REQUIREMENTS: &str = "requirements.txt";
/// Largest file, bytes.
const MAX_BYTES: usize = 256 * 1024;
/// Most requirements.
const MAX_REQUIREMENTS: usize = 500;
/// Most hashes of one requirement.
const MAX_HASHES: usize = 200;

/// What a package asks for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Requirements {
    /// In the order of the file.
    pub list: Vec<Asked>,
    /// Hash of the file as it is, lower-case hex.
    pub sha256: String,
}

/// One requirement.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Asked {
    /// The 1-based line on which it begins.
    pub line: usize,
    /// Normalized: name, extras, versions, marker.
    pub text: String,
    /// SHA-256 digests of the files that may be installed for it, lower-case hex; empty when it names none.
    pub hashes: Vec<String>,
}

impl Requirements {
    /// The requirements of a package, `None` when it has none. Lines with faults are left out: [`super::validate`] reports those.
    #[must_use]
    pub fn of(package: &Package) -> Option<Self> {
        read(package.file(REQUIREMENTS)?, &mut Diagnostics::default())
            .filter(|requirements| !requirements.list.is_empty())
    }

    /// Reads a file that is in no package.
    ///
    /// # Errors
    /// What is wrong with it; at least one.
    pub fn parse(bytes: &[u8]) -> Result<Self, Vec<Diagnostic>> {
        let mut diagnostics = Diagnostics::default();
        let read = read(bytes, &mut diagnostics);
        let (said, _) = diagnostics.finish();
        match read {
            Some(read) if said.is_empty() => Ok(read),
            _ => Err(said),
        }
    }

    /// The file as an installer gets it: normalized, without comments, options and hashes.
    #[must_use]
    pub fn text(&self) -> String {
        self.list.iter().map(|asked| format!("{}\n", asked.text)).collect()
    }

    /// Whether every package that is installed must be named with its hash, as for pip's hash-checking mode.
    #[must_use]
    pub fn hashed(&self) -> bool {
        self.list.iter().any(|asked| !asked.hashes.is_empty())
    }
}

/// Reads the file and reports everything that is wrong with it.
pub(super) fn read(bytes: &[u8], diagnostics: &mut Diagnostics) -> Option<Requirements> {
    let sha256 = format!("{:x}", Sha256::digest(bytes));
    let mut reader = Reader { diagnostics, list: Vec::new(), must_be_hashed: None };
    if bytes.len() > MAX_BYTES {
        let message = format!("requirements.txt has {} bytes; the limit is {MAX_BYTES}.", bytes.len());
        reader.say(
            None,
            Code::RequirementsTooLarge,
            message,
            "List what the scripts import, not what that needs in turn.",
        );
        return None;
    }
    let text = match std::str::from_utf8(bytes) {
        Ok(text) => text.strip_prefix('\u{feff}').unwrap_or(text),
        Err(error) => {
            let line = bytes[..error.valid_up_to()].iter().filter(|byte| **byte == b'\n').count() + 1;
            let message = format!("requirements.txt is not UTF-8, from line {line} on.");
            reader.say(Some(line), Code::RequirementsNotUtf8, message, "Save it as UTF-8.");
            return None;
        }
    };
    for (line, text) in logical_lines(text) {
        if reader.list.len() >= MAX_REQUIREMENTS {
            let message = format!("requirements.txt has more than {MAX_REQUIREMENTS} requirements.");
            let way_out = "List what the scripts import, not what that needs in turn.";
            reader.say(Some(line), Code::RequirementsTooLarge, message, way_out);
            break;
        }
        reader.line(line, &text);
    }
    reader.all_or_none_hashed();
    Some(Requirements { list: reader.list, sha256 })
}

/// Lines with their continuations joined and their comments gone, with the number of the first; empty ones left out.
fn logical_lines(text: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    let mut open: Option<(usize, String)> = None;
    for (index, line) in text.split('\n').enumerate() {
        let line = line.strip_suffix('\r').unwrap_or(line);
        // A comment ends at its own line, whatever its last character is.
        let (content, comment) = match comment_start(line) {
            Some(at) => (&line[..at], true),
            None => (line, false),
        };
        let (content, goes_on) = match content.strip_suffix('\\') {
            Some(content) if !comment => (content, true),
            _ => (content, false),
        };
        let (first, joined) = open.get_or_insert_with(|| (index + 1, String::new()));
        // A requirement begins where its text does, not at the empty line that a continuation may begin with.
        if joined.trim().is_empty() {
            *first = index + 1;
        }
        joined.push_str(content);
        joined.push(' ');
        if !goes_on {
            found.extend(open.take());
        }
    }
    found.extend(open);
    found.retain_mut(|(_, text)| {
        *text = text.trim().to_owned();
        !text.is_empty()
    });
    found
}

/// Where a comment begins: a `#` at the beginning or after white space, as for pip.
fn comment_start(line: &str) -> Option<usize> {
    line.match_indices('#').map(|(at, _)| at).find(|at| line[..*at].chars().next_back().is_none_or(char::is_whitespace))
}

struct Reader<'a> {
    diagnostics: &'a mut Diagnostics,
    list: Vec<Asked>,
    /// The line of `--require-hashes`.
    must_be_hashed: Option<usize>,
}

impl Reader<'_> {
    fn say(&mut self, line: Option<usize>, code: Code, message: String, way_out: &str) {
        self.diagnostics.file(REQUIREMENTS, line, code, message, Some(way_out.to_owned()));
    }

    fn line(&mut self, line: usize, text: &str) {
        if let Some(control) = text.chars().find(|c| c.is_control() && *c != '\t') {
            let message = format!("Line {line} has the control character U+{:04X}.", u32::from(control));
            self.say(Some(line), Code::RequirementSyntax, message, "Take it out.");
            return;
        }
        if text == "--require-hashes" {
            self.must_be_hashed = Some(line);
            return;
        }
        if text.starts_with('-') {
            return self.option(line, text);
        }
        if text.contains("${") {
            let message = "A requirement takes nothing from the environment.".to_owned();
            self.say(Some(line), Code::RequirementSyntax, message, "Write the value itself.");
            return;
        }
        let Some((requirement, hashes)) = self.split_hashes(line, text) else { return };
        if let Some(what) = elsewhere(requirement) {
            let message =
                format!("{} is {what}: where packages come from is not a package's to say.", shown(requirement));
            let way_out = "Name the package and its versions, such as pandas>=2; an admin sets the index, and a wheelhouse can hold what no index has.";
            self.say(Some(line), Code::RequirementSource, message, way_out);
            return;
        }
        if !names_are_sound(requirement) {
            let message = format!(
                "{} is no requirement: a name has letters, digits, and -, _ or . between them.",
                shown(requirement)
            );
            self.say(
                Some(line),
                Code::RequirementSyntax,
                message,
                "Write a name as the index has it, such as pandas[excel]>=2.1.",
            );
            return;
        }
        match Requirement::<VerbatimUrl>::from_str(requirement) {
            Ok(parsed) if matches!(parsed.version_or_url, Some(VersionOrUrl::Url(_))) => {
                let message =
                    format!("{} is a URL: where packages come from is not a package's to say.", shown(requirement));
                self.say(
                    Some(line),
                    Code::RequirementSource,
                    message,
                    "Name the package and its versions, such as pandas>=2.",
                );
            }
            Ok(parsed) => self.list.push(Asked { line, text: parsed.to_string(), hashes }),
            Err(error) => {
                let reason = error.message.to_string();
                let reason = reason.lines().next().unwrap_or_default().trim_end_matches('.');
                let message = format!("{} is no requirement: {}.", shown(requirement), shown(reason));
                let way_out = "Write a name, versions and a marker as in PEP 508: pandas[excel]>=2.1,<3; python_version >= \"3.11\"";
                self.say(Some(line), Code::RequirementSyntax, message, way_out);
            }
        }
    }

    /// Options are refused one by one, each with the way out.
    fn option(&mut self, line: usize, text: &str) {
        let name = text.split([' ', '\t', '=']).next().unwrap_or_default();
        let (what, way_out) = match name {
            "-i" | "--index-url" | "--pypi-url" | "--extra-index-url" | "--no-index" => (
                "an index is the admin's to set",
                "Take the line out; an admin sets ADE_INDEX_URL and ADE_EXTRA_INDEX_URLS.",
            ),
            "-f" | "--find-links" => {
                ("a place of packages is the admin's to set", "Take the line out; an admin sets ADE_WHEELHOUSE.")
            }
            "--trusted-host" => {
                ("whom to trust is the admin's to set", "Take the line out; an admin sets ADE_CA_BUNDLE.")
            }
            "-r" | "--requirement" | "-c" | "--constraint" => {
                ("other files are not read", "Write their requirements into this file.")
            }
            "-e" | "--editable" => (
                "a package is not installed from a folder or a repository",
                "Put pure Python into vendor/, or build a wheel for the wheelhouse.",
            ),
            "--no-binary" | "--only-binary" | "--prefer-binary" => (
                "whether packages are built from source is the admin's to set",
                "Take the line out; an admin sets it with `ade network set --package … --source-builds on`.",
            ),
            "--pre" => (
                "pre-releases are taken only where they are asked for",
                "Name one in the requirement, such as pandas>=3.0rc1.",
            ),
            "--hash" => ("a hash belongs to a requirement", "End the line before it with a backslash."),
            _ => ("options are not allowed", "Take it out."),
        };
        let message = format!("The option {} is refused: {what}.", shown(name));
        self.say(Some(line), Code::RequirementOption, message, way_out);
    }

    /// The requirement and its hashes.
    fn split_hashes<'t>(&mut self, line: usize, text: &'t str) -> Option<(&'t str, Vec<String>)> {
        let Some(at) = text.find(" --").or_else(|| text.find("\t--")) else { return Some((text, Vec::new())) };
        let (requirement, options) = text.split_at(at);
        let mut words = options.split_whitespace();
        let mut hashes = Vec::new();
        while let Some(word) = words.next() {
            let value = match word.strip_prefix("--hash") {
                Some("") => words.next().unwrap_or_default(),
                Some(value) if value.starts_with('=') => &value[1..],
                _ => {
                    self.option(line, word);
                    return None;
                }
            };
            let digest = value.strip_prefix("sha256:").map(str::to_ascii_lowercase);
            match digest.filter(|digest| digest.len() == 64 && digest.bytes().all(|byte| byte.is_ascii_hexdigit())) {
                Some(digest) => hashes.push(digest),
                None => {
                    let message = format!("{} is no hash that can be checked.", shown(value));
                    self.say(
                        Some(line),
                        Code::RequirementHash,
                        message,
                        "Write --hash=sha256: and 64 hexadecimal digits.",
                    );
                    return None;
                }
            }
        }
        if hashes.len() > MAX_HASHES {
            let message = format!("A requirement has {} hashes; the limit is {MAX_HASHES}.", hashes.len());
            self.say(Some(line), Code::RequirementHash, message, "Keep those of the wheels for this platform.");
            return None;
        }
        Some((requirement.trim_end(), hashes))
    }

    /// With one hash, or with `--require-hashes`, everything needs one: half a check is none.
    fn all_or_none_hashed(&mut self) {
        let hashed = self.list.iter().any(|asked| !asked.hashes.is_empty());
        if !hashed && self.must_be_hashed.is_none() {
            return;
        }
        let bare: Vec<(usize, String)> = self
            .list
            .iter()
            .filter(|asked| asked.hashes.is_empty())
            .map(|asked| (asked.line, asked.text.clone()))
            .collect();
        for (line, text) in bare {
            let message = format!("{} has no hash, and other lines or --require-hashes ask for them.", shown(&text));
            self.say(Some(line), Code::RequirementHash, message, "Give every requirement its hashes, or none of them.");
        }
    }
}

/// Whether the name and the extras that a requirement begins with are names (PEP 508). The parser panics on some that are not.
fn names_are_sound(text: &str) -> bool {
    let sound = |name: &str| {
        name.starts_with(|c: char| c.is_ascii_alphanumeric()) && name.ends_with(|c: char| c.is_ascii_alphanumeric())
    };
    let part = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let (name, rest) = text.split_at(text.find(|c| !part(c)).unwrap_or(text.len()));
    let extras = match rest.trim_start().strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => "",
    };
    sound(name) && (extras.trim().is_empty() || extras.split(',').all(|extra| sound(extra.trim())))
}

/// What a line is that names a place rather than a package.
fn elsewhere(text: &str) -> Option<&'static str> {
    let name = text.split([';', ' ', '\t']).next().unwrap_or_default();
    let lower = name.to_ascii_lowercase();
    if let Some((scheme, _)) = lower.split_once("://") {
        return Some(if scheme.contains('+') { "a repository" } else { "a URL" });
    }
    let archive =
        [".whl", ".tar.gz", ".zip", ".tar.bz2", ".tgz", ".tar.xz"].iter().any(|suffix| lower.ends_with(suffix));
    let path = name.starts_with(['.', '/', '~']) || name.contains(['/', '\\']);
    // `name @ git+https://…` and `name@./folder` are told from versions by the sign alone.
    if let Some((_, place)) = text.split(';').next().and_then(|text| text.split_once('@')) {
        return Some(if place.contains('+') && place.contains("://") { "a repository" } else { "a URL or a path" });
    }
    (archive || path).then_some("a path")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packages::Diagnostic;
    use proptest::prelude::*;

    fn parse(bytes: &[u8]) -> (Option<Requirements>, Vec<Diagnostic>) {
        let mut diagnostics = Diagnostics::default();
        let read = read(bytes, &mut diagnostics);
        (read, diagnostics.finish().0)
    }

    fn texts(text: &str) -> Vec<(usize, String)> {
        let (read, said) = parse(text.as_bytes());
        assert!(said.is_empty(), "{text:?}: {said:?}");
        read.unwrap().list.into_iter().map(|asked| (asked.line, asked.text)).collect()
    }

    #[test]
    fn a59_what_is_allowed() {
        for (text, expected) in [
            ("pandas", vec![(1, "pandas")]),
            ("pandas==2.1.0\r\nrequests>=2,<3\r\n", vec![(1, "pandas==2.1.0"), (2, "requests>=2,<3")]),
            ("\u{feff}pandas ~= 2.1\n", vec![(1, "pandas~=2.1")]),
            ("# all\n\n  six  # comment\n", vec![(3, "six")]),
            ("requests[socks,security]>=2", vec![(1, "requests[socks,security]>=2")]),
            ("tomli; python_version < '3.11'", vec![(1, "tomli ; python_full_version < '3.11'")]),
            ("pandas \\\n  >=2, \\\n  <3\nsix", vec![(1, "pandas>=2,<3"), (4, "six")]),
            ("# a comment \\\nsix", vec![(2, "six")]),
            ("\\\n\\\nsix", vec![(3, "six")]),
            ("Zope.Interface==6.*", vec![(1, "zope-interface==6.*")]),
            ("", vec![]),
        ] {
            let expected: Vec<(usize, String)> =
                expected.into_iter().map(|(line, text)| (line, text.to_owned())).collect();
            assert_eq!(texts(text), expected, "{text:?}");
        }
    }

    #[test]
    fn a59_what_is_refused_with_its_line() {
        for (text, code) in [
            ("-i https://evil.example/simple", Code::RequirementOption),
            ("--index-url=https://evil.example/simple", Code::RequirementOption),
            ("--extra-index-url https://evil.example/simple", Code::RequirementOption),
            ("-f ./wheels", Code::RequirementOption),
            ("-r other.txt", Code::RequirementOption),
            ("-c constraints.txt", Code::RequirementOption),
            ("-e .", Code::RequirementOption),
            ("--trusted-host evil.example", Code::RequirementOption),
            ("--no-binary :all:", Code::RequirementOption),
            ("--pre", Code::RequirementOption),
            ("--whatever", Code::RequirementOption),
            ("pandas --no-binary=pandas", Code::RequirementOption),
            ("pandas --config-settings=x", Code::RequirementOption),
            ("./local", Code::RequirementSource),
            ("../local", Code::RequirementSource),
            ("/abs/local", Code::RequirementSource),
            ("local\\dir", Code::RequirementSource),
            ("x-1.0-py3-none-any.whl", Code::RequirementSource),
            ("x-1.0.tar.gz", Code::RequirementSource),
            ("https://evil.example/x.whl", Code::RequirementSource),
            ("git+https://evil.example/x.git", Code::RequirementSource),
            ("x @ https://evil.example/x.whl", Code::RequirementSource),
            ("x@git+ssh://evil.example/x", Code::RequirementSource),
            ("x @ file:///etc", Code::RequirementSource),
            ("x @ ./y", Code::RequirementSource),
            ("pandas=2", Code::RequirementSyntax),
            ("pandas==", Code::RequirementSyntax),
            ("two words", Code::RequirementSyntax),
            ("pandas; nonsense == 'x'", Code::RequirementSyntax),
            ("${SECRET}", Code::RequirementSyntax),
            ("pan\u{1b}das", Code::RequirementSyntax),
            ("six --hash=md5:d41d8cd98f00b204e9800998ecf8427e", Code::RequirementHash),
            ("six --hash=sha256:12", Code::RequirementHash),
        ] {
            let (_, said) = parse(format!("six==1\n\n{text}\n").as_bytes());
            let first = said.first().unwrap_or_else(|| panic!("{text:?} was taken"));
            assert_eq!((first.code, first.line), (code, Some(3)), "{text:?}: {first:?}");
            assert!(first.hint.is_some() && first.path == REQUIREMENTS, "{first:?}");
        }
    }

    #[test]
    fn a59_hashes_are_for_all_or_for_none() {
        let hash = "a".repeat(64);
        let both = format!("six==1 --hash=sha256:{hash}\\\n --hash sha256:{}\n", "B".repeat(64));
        let (read, said) = parse(both.as_bytes());
        assert!(said.is_empty(), "{said:?}");
        assert_eq!(read.unwrap().list[0].hashes, [hash.clone(), "b".repeat(64)]);
        for text in [format!("six==1 --hash=sha256:{hash}\npandas\n"), "--require-hashes\nsix\n\n".to_owned()] {
            let (_, said) = parse(text.as_bytes());
            assert_eq!((said.len(), said[0].code), (1, Code::RequirementHash), "{text:?}");
        }
    }

    #[test]
    fn other_encodings_and_sizes_are_refused() {
        assert_eq!(parse(b"six\npan\xffdas").1[0].code, Code::RequirementsNotUtf8);
        assert_eq!(parse(&vec![b'#'; MAX_BYTES + 1]).1[0].code, Code::RequirementsTooLarge);
        assert_eq!(parse("six\n".repeat(MAX_REQUIREMENTS + 1).as_bytes()).1[0].code, Code::RequirementsTooLarge);
    }

    #[test]
    fn all_faults_are_told_at_once() {
        assert_eq!(parse(b"-e .\nsix\n./x\npandas=1\n").1.len(), 3);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            let _ = parse(&bytes);
        }

        /// What an installer gets holds nothing but names, versions and markers, whatever a package wrote.
        #[test]
        fn no_text_smuggles_an_option_or_a_place(text in "[-a-z0-9 =<>@:/.\\\\;#\n\r\"'\\[\\]+$\\{\\}]{0,80}") {
            let (read, said) = parse(text.as_bytes());
            if let Some(read) = read && said.is_empty() {
                for line in read.text().lines() {
                    prop_assert!(!line.starts_with('-') && !line.contains(" --") && !line.contains("://"), "{line:?}");
                    prop_assert!(!line.contains('@') || line.contains(';'), "{line:?}");
                }
            }
        }
    }
}
