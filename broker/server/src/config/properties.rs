//! Java's `.properties` format, in which Kafka's configuration files are.
//!
//! A key ends at the first `=`, `:` or blank that isn't escaped; `#` and `!` begin a comment line; a backslash at the end of a
//! line continues it; `\t \n \r \f \uXXXX` are what they are in Java, any other escaped character is itself.

use std::iter::Peekable;
use std::str::Chars;

/// The keys and values of a file, in its order.
///
/// # Errors
/// A `\u` without four hexadecimal digits, with the number of the line it is on.
pub fn parse(text: &str) -> Result<Vec<(String, String)>, PropertiesError> {
    let mut out = Vec::new();
    for (number, line) in logical_lines(text) {
        let malformed = || PropertiesError { line: number };
        let mut chars = line.chars().peekable();
        let key = until(&mut chars, |c| matches!(c, '=' | ':') || is_blank(c)).ok_or_else(malformed)?;
        skip_blanks(&mut chars);
        if chars.next_if(|c| matches!(c, '=' | ':')).is_some() {
            skip_blanks(&mut chars);
        }
        let value = until(&mut chars, |_| false).ok_or_else(malformed)?;
        out.push((key, value));
    }
    Ok(out)
}

/// A line that isn't one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PropertiesError {
    /// Its number, from 1.
    pub line: usize,
}

impl std::fmt::Display for PropertiesError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "line {}: \\u needs four hexadecimal digits", self.line)
    }
}

impl std::error::Error for PropertiesError {}

fn is_blank(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\u{c}')
}

fn skip_blanks(chars: &mut Peekable<Chars<'_>>) {
    while chars.next_if(|c| is_blank(*c)).is_some() {}
}

/// Lines with their continuations, without comments and blank ones, with the number of their first line.
fn logical_lines(text: &str) -> Vec<(usize, String)> {
    let mut out: Vec<(usize, String)> = Vec::new();
    let mut continued = false;
    for (i, line) in text.split(['\n', '\r']).enumerate() {
        let line = line.trim_start_matches(is_blank);
        let escapes = line.len() - line.trim_end_matches('\\').len();
        let continues = escapes % 2 == 1;
        let content = if continues { &line[..line.len() - 1] } else { line };
        match out.last_mut() {
            Some((_, last)) if continued => last.push_str(content),
            _ if line.is_empty() || line.starts_with(['#', '!']) => continue,
            _ => out.push((i + 1, content.to_owned())),
        }
        continued = continues;
    }
    out
}

/// Takes characters, escapes resolved, up to one that isn't escaped and ends them. `None`: a bad `\u`.
fn until(chars: &mut Peekable<Chars<'_>>, ends: impl Fn(char) -> bool) -> Option<String> {
    let mut out = String::new();
    while let Some(c) = chars.next_if(|c| !ends(*c)) {
        if c != '\\' {
            out.push(c);
            continue;
        }
        match chars.next() {
            Some('t') => out.push('\t'),
            Some('n') => out.push('\n'),
            Some('r') => out.push('\r'),
            Some('f') => out.push('\u{c}'),
            Some('u') => out.push(unicode(chars)?),
            Some(other) => out.push(other),
            None => {}
        }
    }
    Some(out)
}

fn unicode(chars: &mut Peekable<Chars<'_>>) -> Option<char> {
    let mut unit = 0;
    for _ in 0..4 {
        unit = unit * 16 + chars.next()?.to_digit(16)?;
    }
    // Half of a pair stands for nothing by itself.
    Some(char::from_u32(unit).unwrap_or(char::REPLACEMENT_CHARACTER))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read_as_java_reads_them() {
        let text = "# comment\n  ! another\n\na=1\nb : 2\nc 3\nd=\\\n   4\\\n  ,5\ne\\=f=g\\:h\n  i\nj=a\\u00e9\\tb\\\\\nk = v = w \r\nl=#no comment";
        let expected = [
            ("a", "1"),
            ("b", "2"),
            ("c", "3"),
            ("d", "4,5"),
            ("e=f", "g:h"),
            ("i", ""),
            ("j", "aé\tb\\"),
            ("k", "v = w "),
            ("l", "#no comment"),
        ];
        let parsed = parse(text).expect("well formed");
        let parsed: Vec<_> = parsed.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
        assert_eq!(parsed, expected);
        assert_eq!(parse("a=1\nb=\\u12x4"), Err(PropertiesError { line: 2 }));
    }
}
