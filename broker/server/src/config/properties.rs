//! Parses Java's `.properties` format, that of Kafka's `server.properties`.

use std::collections::BTreeMap;
use std::fmt;
use std::str::Chars;

/// Why a file is not valid.
#[derive(Debug, PartialEq, Eq)]
pub struct PropertiesError {
    /// The line, from 1.
    pub line: usize,
    /// The reason.
    pub what: &'static str,
}

impl fmt::Display for PropertiesError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}", self.line, self.what)
    }
}

/// Parses the keys and values of `text`. A later line of the same key replaces an earlier one.
pub fn parse(text: &str) -> Result<BTreeMap<String, String>, PropertiesError> {
    let mut all = BTreeMap::new();
    // Some editors write a byte order mark.
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut lines = text.lines().enumerate();
    while let Some((i, first)) = lines.next() {
        let mut logical = first.trim_start().to_owned();
        if logical.is_empty() || logical.starts_with(['#', '!']) {
            continue;
        }
        while continues(&logical) {
            logical.pop();
            match lines.next() {
                Some((_, more)) => logical.push_str(more.trim_start()),
                None => break,
            }
        }
        let (key, value) = split(&logical);
        let unescape = |s| unescape(s).map_err(|what| PropertiesError { line: i + 1, what });
        all.insert(unescape(key)?, unescape(value)?);
    }
    Ok(all)
}

/// Whether the line ends in an odd number of backslashes.
fn continues(line: &str) -> bool {
    line.bytes().rev().take_while(|b| *b == b'\\').count() % 2 == 1
}

/// Splits a line at the end of its key: the first `=`, `:` or white space that isn't escaped.
fn split(line: &str) -> (&str, &str) {
    let mut escaped = false;
    let end = line.find(|c: char| {
        let stop = !escaped && (c == '=' || c == ':' || c.is_ascii_whitespace());
        escaped = c == '\\' && !escaped;
        stop
    });
    let Some(end) = end else { return (line, "") };
    let rest = line[end..].trim_start();
    let rest = rest.strip_prefix(['=', ':']).unwrap_or(rest);
    (&line[..end], rest.trim_start())
}

fn unescape(s: &str) -> Result<String, &'static str> {
    let mut out = String::with_capacity(s.len());
    let mut chars = s.chars();
    while let Some(c) = chars.next() {
        if c != '\\' {
            out.push(c);
            continue;
        }
        match chars.next() {
            Some('n') => out.push('\n'),
            Some('t') => out.push('\t'),
            Some('r') => out.push('\r'),
            Some('f') => out.push('\u{c}'),
            Some('u') => out.push(utf16(&mut chars)?),
            Some(other) => out.push(other),
            None => {}
        }
    }
    Ok(out)
}

/// The character of one `\u` escape, or of the two of a surrogate pair. `chars` is behind the first `\u`.
fn utf16(chars: &mut Chars<'_>) -> Result<char, &'static str> {
    let first = unit(chars)?;
    let mut ahead = chars.clone();
    if let Some(c) = char::from_u32(u32::from(first)) {
        return Ok(c);
    }
    let second = match (ahead.next(), ahead.next()) {
        (Some('\\'), Some('u')) => unit(&mut ahead)?,
        _ => return Err(HALF),
    };
    *chars = ahead;
    let mut pair = char::decode_utf16([first, second]);
    match (pair.next(), pair.next()) {
        (Some(Ok(c)), None) => Ok(c),
        _ => Err(HALF),
    }
}

/// Half of a character outside the first 65,536.
const HALF: &str = "\\u names half of a surrogate pair";

fn unit(chars: &mut Chars<'_>) -> Result<u16, &'static str> {
    let hex: String = chars.by_ref().take(4).collect();
    let digits = hex.len() == 4 && hex.bytes().all(|b| b.is_ascii_hexdigit());
    let unit = u16::from_str_radix(&hex, 16).ok().filter(|_| digits);
    unit.ok_or("\\u needs four hexadecimal digits")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_java_reads() {
        let text = "# a comment\n! another\n\na=1\n b : two words \nc\nd 4\ne=x\\\n   y\\\\\nf=\\u0041\\tz\na=5\ng\\=h=i=j\n";
        let all = parse(text).expect("it is well formed");
        let want = [
            ("a", "5"),
            ("b", "two words "),
            ("c", ""),
            ("d", "4"),
            ("e", "xy\\"),
            ("f", "A\tz"),
            ("g=h", "i=j"),
        ];
        assert_eq!(all, want.map(|(k, v)| (k.to_owned(), v.to_owned())).into());
        assert_eq!(parse("a=1\nb=\\u00").expect_err("two digits").line, 2);
    }

    #[test]
    fn reads_what_editors_leave() {
        let text = "\u{feff}a=1\r\nb=\\\r\n\t 2\r\n# c\\\r\nd=\\u00e9\\ud83d\\ude00!\r\ne=x\\";
        let all = parse(text).expect("it is well formed");
        let want = [("a", "1"), ("b", "2"), ("d", "é😀!"), ("e", "x")];
        assert_eq!(all, want.map(|(k, v)| (k.to_owned(), v.to_owned())).into());
        for half in ["\\ud83d", "\\ud83dx", "\\ude00\\ud83d", "\\ud83d\\u0041"] {
            assert_eq!(parse(&format!("a={half}")).expect_err(half).what, HALF);
        }
        assert!(parse("a=\\u+041").is_err());
    }
}
