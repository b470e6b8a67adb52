//! Showing untrusted text to people: bounded, on one line, and without terminal control characters.

use std::fmt::Write as _;

/// Longest text from a package that a message repeats, in characters.
const SHOWN_CHARS: usize = 80;

/// `text` as a message may show it: control and other invisible characters are escaped, and what is longer than
/// 80 characters ends in `…`.
pub(super) fn shown(text: &str) -> String {
    let mut out = String::with_capacity(text.len().min(SHOWN_CHARS * 4));
    for (index, c) in text.chars().enumerate() {
        if index == SHOWN_CHARS {
            out.push('…');
            break;
        }
        match c {
            '\'' | '"' | '\\' => out.push(c),
            _ => {
                // Writing to a String cannot fail.
                let _ = write!(out, "{}", c.escape_debug());
            }
        }
    }
    out
}

/// [`shown`] between quotes.
pub(super) fn quoted(text: &str) -> String {
    format!("\"{}\"", shown(text))
}

/// The candidate that `word` most likely meant, if one is near enough to be worth naming.
pub(super) fn nearest<'a>(
    word: &str,
    candidates: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    /// Longest word that is compared, in bytes: the comparison takes the product of both lengths.
    const LONGEST: usize = 64;
    if word.is_empty() || word.len() > LONGEST {
        return None;
    }
    let folded: Vec<char> = fold(word);
    candidates
        .into_iter()
        .filter(|candidate| candidate.len() <= LONGEST)
        .map(|candidate| (distance(&folded, &fold(candidate)), candidate))
        .filter(|(edits, candidate)| {
            *edits <= (candidate.chars().count().max(folded.len()) / 3).max(1)
        })
        .min_by_key(|(edits, _)| *edits)
        .map(|(_, candidate)| candidate)
}

/// Case and the choice between `-`, `_` and a space are what people mistype most: they count as no edit.
fn fold(word: &str) -> Vec<char> {
    word.chars()
        .flat_map(char::to_lowercase)
        .map(|c| if c == '-' || c == ' ' { '_' } else { c })
        .collect()
}

/// Edits (insert, delete, replace, swap of neighbours) between two words: the optimal string alignment distance.
fn distance(a: &[char], b: &[char]) -> usize {
    let width = b.len() + 1;
    let mut before: Vec<usize> = vec![0; width];
    let mut previous: Vec<usize> = (0..width).collect();
    for (i, &left) in a.iter().enumerate() {
        let mut current = Vec::with_capacity(width);
        current.push(i + 1);
        for (j, &right) in b.iter().enumerate() {
            let mut best = (previous[j] + usize::from(left != right))
                .min(previous[j + 1] + 1)
                .min(current[j] + 1);
            if i > 0 && j > 0 && left == b[j - 1] && a[i - 1] == right {
                best = best.min(before[j - 1] + 1);
            }
            current.push(best);
        }
        before = std::mem::replace(&mut previous, current);
    }
    previous[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shown_text_is_one_bounded_line_without_terminal_codes() {
        assert_eq!(shown("plain é \"quoted\""), "plain é \"quoted\"");
        assert_eq!(shown("a\nb\u{1b}[31m\u{202e}"), "a\\nb\\u{1b}[31m\\u{202e}");
        assert_eq!(shown(&"x".repeat(500)).chars().count(), SHOWN_CHARS + 1);
    }

    #[test]
    fn nearest_finds_typos_swaps_and_other_separators_but_not_strangers() {
        let keys = ["synonyms", "script", "label", "timeout_ms"];
        assert_eq!(nearest("synonims", keys), Some("synonyms"));
        assert_eq!(nearest("scirpt", keys), Some("script"));
        assert_eq!(nearest("Timeout-MS", keys), Some("timeout_ms"));
        assert_eq!(nearest("colour", keys), None);
        assert_eq!(nearest("", keys), None);
        assert_eq!(nearest(&"l".repeat(1_000_000), keys), None);
    }

    #[test]
    fn the_distance_counts_edits() {
        let count = |a: &str, b: &str| distance(&fold(a), &fold(b));
        assert_eq!(count("abc", "abc"), 0);
        assert_eq!(count("abc", "acb"), 1);
        assert_eq!(count("", "abc"), 3);
        assert_eq!(count("kitten", "sitting"), 3);
    }
}
