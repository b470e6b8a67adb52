//! Text that is not ours, made fit for terminals, logs and JSON.

/// One bounded line without control characters and without what reorders or breaks lines, safe for a terminal, a log
/// and JSON.
#[must_use]
pub fn plain(text: &str, limit: usize) -> String {
    // Line and paragraph separators, and the overrides and isolates of writing direction: text that reads as something else.
    let moves = |c: char| matches!(c, '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    let mut out: String = text.chars().take(limit).map(|c| if c.is_control() || moves(c) { ' ' } else { c }).collect();
    if text.chars().nth(limit).is_some() {
        out.push('…');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_go_and_length_is_bounded() {
        assert_eq!(plain("a\u{1b}[31m\nb", 10), "a [31m b");
        assert_eq!(plain("abcdef", 3), "abc…");
    }
}
