//! Colours and shapes of what is printed for people. `anstream` drops the colours where they are not wanted
//! (`NO_COLOR`, `CLICOLOR`, no terminal).

use crate::job::HookOutput;
use crate::sandbox::Failure;
use anstyle::{AnsiColor, Style};
use serde_json::Value;

pub const GOOD: Style = AnsiColor::Green.on_default().bold();
pub const BAD: Style = AnsiColor::Red.on_default().bold();
pub const WARN: Style = AnsiColor::Yellow.on_default();
pub const STRONG: Style = Style::new().bold();
pub const DIM: Style = Style::new().dimmed();

/// `text` in `style`.
pub fn paint(style: Style, text: impl std::fmt::Display) -> String {
    format!("{style}{text}{style:#}")
}

/// The style of a job's state.
pub fn state(state: &str) -> Style {
    match state {
        "succeeded" => GOOD,
        "failed" => BAD,
        "cancelled" | "cancelling" => WARN,
        _ => STRONG,
    }
}

/// Prints rows under dimmed headers, each column as wide as it needs.
pub fn table<const N: usize>(headers: [&str; N], rows: &[[String; N]]) {
    let wide = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or_default();
    let widths: [usize; N] = std::array::from_fn(|column| wide(column).max(headers[column].len()));
    let line = |cells: [&str; N]| {
        let cells = cells.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}"));
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    anstream::println!("{}", paint(DIM, line(headers)));
    for row in rows {
        anstream::println!("{}", line(row.each_ref().map(String::as_str)));
    }
}

/// Prints names and values, those that there are.
pub fn fields(fields: &[(&str, Option<String>)]) {
    let width = fields.iter().map(|(name, _)| name.len()).max().unwrap_or_default();
    for (name, value) in fields {
        if let Some(value) = value {
            anstream::println!("{}  {value}", paint(STRONG, format!("{name:width$}")));
        }
    }
}

/// Prints a failure to stderr: kind, message, and where in the package.
pub fn failure(failure: &Failure) {
    anstream::eprintln!("{} {}", paint(BAD, format!("error[{}]:", failure.kind)), failure.message);
    place(failure);
}

/// Prints where in the package a failure was to stderr.
pub fn place(failure: &Failure) {
    let place = whereabouts(failure);
    if !place.is_empty() {
        anstream::eprintln!("  {} {place}", paint(DIM, "at"));
    }
}

/// Where in the package a failure was; empty when it was nowhere there.
pub fn whereabouts(failure: &Failure) -> String {
    let plain = |text: &String| crate::text::plain(text, 240);
    let place = [
        failure.script.as_ref().map(plain).map(|script| match failure.line {
            Some(line) => format!("{script}:{line}"),
            None => script,
        }),
        failure.function.as_ref().map(plain).map(|function| format!("in {function}")),
        failure.pass.as_ref().map(plain).map(|pass| format!("during {pass}")),
    ];
    place.into_iter().flatten().collect::<Vec<_>>().join(", ")
}

/// Prints something to stderr that is worth a look and changes no result.
pub fn warning(text: &str) {
    anstream::eprintln!("{} {text}", paint(WARN, "warning:"));
}

/// Prints what the scripts of an activation printed to stderr.
pub fn hook_output(output: &HookOutput) {
    for line in &output.lines {
        let (stream, text) = (crate::text::plain(&line.stream, 10), crate::text::plain(&line.text, 1_000));
        anstream::eprintln!("{} {text}", paint(DIM, format!("{stream:>6} |")));
    }
    if output.dropped > 0 {
        anstream::eprintln!("{}", paint(DIM, format!("{} more lines were left out", thousands(output.dropped))));
    }
}

/// Prints the end of an installer's log to stderr.
pub fn install_log(log: &str) {
    const LINES: usize = 30;
    let lines: Vec<&str> = log.lines().collect();
    for line in &lines[lines.len().saturating_sub(LINES)..] {
        anstream::eprintln!("{} {}", paint(DIM, "install |"), crate::text::plain(line, 1_000));
    }
}

/// Prints diagnostics to stderr, one or two lines each.
pub fn diagnostics(diagnostics: &[Value]) {
    for diagnostic in diagnostics {
        let text = |key: &str| crate::text::plain(diagnostic[key].as_str().unwrap_or_default(), 1000);
        let level = text("level");
        let style = match level.as_str() {
            "error" => BAD,
            "warning" => WARN,
            _ => DIM,
        };
        let line = diagnostic["line"].as_u64().map(|line| format!(":{line}")).unwrap_or_default();
        anstream::eprintln!(
            "{} {}{line}: {}",
            paint(style, format!("{level}[{}]", text("code"))),
            text("path"),
            text("message")
        );
        let hint = text("hint");
        if !hint.is_empty() {
            anstream::eprintln!("  {} {hint}", paint(DIM, "hint:"));
        }
    }
}

/// Prints what came of looking at a package.
pub fn verdict(valid: bool, name: &dyn std::fmt::Display, errors: usize, warnings: usize, tried: bool) {
    let verdict = if valid { paint(GOOD, "valid") } else { paint(BAD, "invalid") };
    let scope = if tried { "" } else { " (scripts were not run)" };
    anstream::println!("{verdict}  {name}  {errors} errors, {warnings} warnings{scope}");
}

/// `1234567` as `1,234,567`.
pub fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// Milliseconds as seconds with two digits.
#[allow(clippy::cast_precision_loss, reason = "a duration for people")]
pub fn seconds(ms: u64) -> String {
    format!("{:.2} s", ms as f64 / 1000.0)
}

/// Bytes in the unit that reads best.
#[allow(clippy::cast_precision_loss, reason = "a size for people")]
pub fn bytes(count: u64) -> String {
    match count {
        0..1024 => format!("{count} B"),
        1024..1_048_576 => format!("{:.0} kB", count as f64 / 1024.0),
        1_048_576..1_073_741_824 => format!("{:.1} MB", count as f64 / 1_048_576.0),
        _ => format!("{:.1} GB", count as f64 / 1_073_741_824.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped() {
        let texts = [0, 999, 1000, 1_234_567].map(thousands);
        assert_eq!(texts, ["0", "999", "1,000", "1,234,567"]);
    }
}
