//! The usual spelling of XML, byte by byte. `None` always means: unusual, so the XML parser decides.

use std::borrow::Cow;

/// Attributes of one element that are compared with each other; more are unusual.
const MOST_ATTRIBUTES: usize = 16;

/// A place in a block of bytes.
pub struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    /// At a place of a block; past its end, there is nothing to read.
    pub fn new(bytes: &'a [u8], at: usize) -> Self {
        Self { bytes, at: at.min(bytes.len()) }
    }

    /// How far it got, in bytes from the block's beginning.
    pub fn at(&self) -> usize {
        self.at
    }

    fn rest(&self) -> &'a [u8] {
        self.bytes.get(self.at..).unwrap_or_default()
    }

    /// Steps over `wanted` if that is what comes next.
    pub fn eat(&mut self, wanted: &[u8]) -> bool {
        let found = self.rest().starts_with(wanted);
        if found {
            self.at += wanted.len();
        }
        found
    }

    /// Steps over white space. A carriage return is none: XML changes it.
    pub fn skip_space(&mut self) {
        self.at += self.rest().iter().take_while(|byte| matches!(byte, b' ' | b'\t' | b'\n')).count();
    }

    /// Steps over the bytes that `wanted` says yes to, at most `most`, and returns them.
    pub fn run(&mut self, most: usize, wanted: impl Fn(u8) -> bool) -> &'a [u8] {
        let rest = self.rest();
        let length = rest.iter().take(most).take_while(|byte| wanted(**byte)).count();
        self.at += length;
        rest.get(..length).unwrap_or_default()
    }

    /// The bytes up to the next tag, which comes next then.
    pub fn until_tag(&mut self) -> Option<&'a [u8]> {
        let rest = self.rest();
        let length = rest.iter().position(|byte| *byte == b'<')?;
        self.at += length;
        rest.get(..length)
    }

    /// Steps over attributes, each with one space before it, in plain ASCII and without a reference; `before` names those that
    /// the element has already. The parser refuses a name that occurs twice.
    pub fn skip_attributes(&mut self, before: &[&[u8]]) -> Option<()> {
        let mut names: Vec<&[u8]> = before.to_vec();
        while self.rest().first() == Some(&b' ') && self.rest().get(1).is_some_and(u8::is_ascii_alphabetic) {
            self.at += 1;
            let name = self.run(256, |byte| byte.is_ascii_alphanumeric() || byte == b':');
            if names.len() >= MOST_ATTRIBUTES || names.contains(&name) || !self.eat(b"=\"") {
                return None;
            }
            names.push(name);
            self.run(usize::MAX, |byte| matches!(byte, b' '..=b'~') && !matches!(byte, b'"' | b'<' | b'&'));
            if !self.eat(b"\"") {
                return None;
            }
        }
        Some(())
    }
}

/// Character data as the text that it stands for: references replaced, everything XML 1.0 forbids or changes declined.
pub fn content(raw: &[u8]) -> Option<Cow<'_, str>> {
    let mut references = false;
    let mut ascii = true;
    let mut brackets = 0;
    for byte in raw {
        match byte {
            b'\t' | b'\n' | b' '..=b'%' | b'\''..=b'\\' | b'^'..=b'\x7f' => brackets = 0,
            b'&' => (references, brackets) = (true, 0),
            // "]]>" must not occur; what comes near it is left to the parser.
            b']' => {
                brackets += 1;
                if brackets > 1 {
                    return None;
                }
            }
            0x80.. => (ascii, brackets) = (false, 0),
            _ => return None,
        }
    }
    let text = std::str::from_utf8(raw).ok()?;
    if !ascii && text.contains(['\u{fffe}', '\u{ffff}']) {
        return None;
    }
    if references { dereference(text).map(Cow::Owned) } else { Some(Cow::Borrowed(text)) }
}

/// The five references that XML knows by name, and those by number to a character that it allows (XML 1.0, 2.2 and 4.6).
fn dereference(text: &str) -> Option<String> {
    let mut decoded = String::with_capacity(text.len());
    let mut pieces = text.split('&');
    decoded.push_str(pieces.next()?);
    for piece in pieces {
        let (name, after) = piece.split_once(';')?;
        let character = match name {
            "amp" => '&',
            "lt" => '<',
            "gt" => '>',
            "quot" => '"',
            "apos" => '\'',
            _ => {
                let number = name.strip_prefix('#')?;
                let (digits, radix) = number.strip_prefix('x').map_or((number, 10), |digits| (digits, 16));
                // Of a plus sign, which from_str_radix takes, XML knows nothing.
                if digits.len() > 7 || !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
                    return None;
                }
                let character = char::from_u32(u32::from_str_radix(digits, radix).ok()?)?;
                if (character < ' ' && !matches!(character, '\t' | '\n' | '\r'))
                    || matches!(character, '\u{fffe}' | '\u{ffff}')
                {
                    return None;
                }
                character
            }
        };
        decoded.push(character);
        decoded.push_str(after);
    }
    Some(decoded)
}

/// Whether `_xHHHH_` begins with the underscore at the beginning of these bytes (ST_Xstring, ECMA-376 part 1, 22.9.2.19).
pub fn is_escape(bytes: &[u8]) -> bool {
    matches!(bytes, [b'_', b'x', a, b, c, d, b'_', ..] if [a, b, c, d].iter().all(|digit| digit.is_ascii_hexdigit()))
}

/// Whether a text holds such an escape anywhere.
pub fn has_escape(text: &str) -> bool {
    let bytes = text.as_bytes();
    bytes.iter().enumerate().any(|(at, byte)| *byte == b'_' && is_escape(bytes.get(at..).unwrap_or_default()))
}
