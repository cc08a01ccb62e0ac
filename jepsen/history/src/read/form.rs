//! One parser for JSON and EDN: bytes in, forms with their places out.
//!
//! Both consist of brackets, strings, numbers and words; EDN adds keywords, characters, sets, tags, comments and discards,
//! and treats commas as blanks. The syntax of a history is detected at its first map: in JSON it begins with `"`.

use std::fmt;
use std::io::{self, Read};

/// Maximum nesting of forms, since the parser recurses.
const DEPTH_MAX: u32 = 128;
/// Maximum bytes of one operation, which bounds the memory of the reader.
const FORM_BYTES_MAX: u64 = 256 << 20;

/// Bytes to read at a time.
const BUFFER_BYTES: usize = 1 << 16;

/// A place in a text: line and column from 1; columns count characters.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Place {
    /// The line.
    pub line: u64,
    /// The column.
    pub column: u64,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}, column {}", self.line, self.column)
    }
}

/// The syntax of a history.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Syntax {
    /// JSON: an operation a line, or an array of them.
    Json,
    /// Clojure's notation, as in Jepsen's `history.edn`.
    Edn,
}

/// Why a form can't be read.
#[derive(Debug)]
pub(crate) enum Fault {
    Io(io::Error),
    Form { at: Place, what: String },
}

impl Fault {
    pub(crate) fn new(at: Place, what: impl Into<String>) -> Self {
        let what = what.into();
        Self::Form { at, what }
    }
}

impl From<io::Error> for Fault {
    fn from(e: io::Error) -> Self {
        Self::Io(e)
    }
}

/// A form and where it begins.
#[derive(Clone, Debug)]
pub(crate) struct Form {
    pub(crate) at: Place,
    pub(crate) kind: Kind,
}

#[derive(Clone, Debug)]
pub(crate) enum Kind {
    Null,
    Bool(bool),
    Int(i64),
    /// A number that does not fit an `i64`, as it was written.
    Number(String),
    Text(String),
    /// A keyword without its colon, or a symbol.
    Name(String),
    List(Vec<Form>),
    Map(Vec<(Form, Form)>),
}

impl Kind {
    /// Name of the kind, for messages.
    pub(crate) fn what(&self) -> &'static str {
        match self {
            Self::Null => "nothing",
            Self::Bool(_) => "a boolean",
            Self::Int(_) => "an integer",
            Self::Number(_) => "a number that is no 64-bit integer",
            Self::Text(_) => "a text",
            Self::Name(_) => "a keyword",
            Self::List(_) => "a list",
            Self::Map(_) => "a map",
        }
    }
}

/// Reads forms one by one.
pub(crate) struct Parser<R> {
    from: R,
    /// Bytes that were read but not parsed yet: `buffer[next..end]`. It has its own buffer because calls of `R` may be
    /// dynamic.
    buffer: Box<[u8]>,
    next: usize,
    end: usize,
    at: Place,
    /// Bytes of the outermost form so far.
    bytes: u64,
    syntax: Option<Syntax>,
    /// The closing bracket of the list around all operations, if there is one.
    closing: Option<u8>,
    begun: bool,
    /// Where the last outermost form began, if it began as an operation does.
    opened: Option<Place>,
}

impl<R: Read> Parser<R> {
    pub(crate) fn new(from: R, syntax: Option<Syntax>) -> Self {
        Self {
            from,
            buffer: vec![0; BUFFER_BYTES].into(),
            next: 0,
            end: 0,
            at: Place { line: 1, column: 1 },
            bytes: 0,
            syntax,
            closing: None,
            begun: false,
            opened: None,
        }
    }

    /// The next operation's form.
    pub(crate) fn next(&mut self) -> Result<Option<Form>, Fault> {
        self.bytes = 0;
        let first = !std::mem::replace(&mut self.begun, true);
        if first && self.skip()? == Some(0xef) {
            self.byte_order_mark()?;
        }
        if first {
            self.closing = match self.skip()? {
                Some(b'[') => Some(b']'),
                Some(b'(') => Some(b')'),
                _ => None,
            };
            if self.closing.is_some() {
                self.bump()?;
            }
        }
        let comma_due = self.closing.is_some() && !first && self.syntax == Some(Syntax::Json);
        let next = self.skip()?;
        self.opened = matches!(next, Some(b'{' | b'#')).then_some(self.at);
        if next.is_some() && next == self.closing {
            self.bump()?;
            self.closing = None;
            return match self.skip()? {
                None => Ok(None),
                Some(_) => Err(Fault::new(self.at, "something follows the end of the history")),
            };
        }
        match next {
            None if self.closing.is_some() => Err(Fault::new(self.at, "the history ends amid its list")),
            None => Ok(None),
            Some(b',') if comma_due => {
                self.bump()?;
                self.form(0).map(Some)
            }
            Some(_) if comma_due => Err(Fault::new(self.at, "a comma is due between operations")),
            Some(_) => self.form(0).map(Some),
        }
    }

    /// After a fault: where the last line begins, if the fault is that the text ends within the operation on it. In a list of
    /// operations no line is torn: the list itself has no end.
    pub(crate) fn torn(&mut self) -> Result<Option<Place>, Fault> {
        let is_last = self.closing.is_none() && self.peek()?.is_none();
        Ok(self.opened.filter(|at| is_last && at.line == self.at.line))
    }

    fn byte_order_mark(&mut self) -> Result<(), Fault> {
        let at = self.at;
        for expected in [0xef, 0xbb, 0xbf] {
            if self.peek()? != Some(expected) {
                return Err(Fault::new(at, "this is no text"));
            }
            self.bump()?;
        }
        self.at = Place { line: 1, column: 1 };
        Ok(())
    }

    #[inline]
    fn peek(&mut self) -> Result<Option<u8>, Fault> {
        if self.next == self.end {
            self.fill()?;
        }
        Ok(self.buffer[..self.end].get(self.next).copied())
    }

    #[cold]
    fn fill(&mut self) -> Result<(), Fault> {
        self.next = 0;
        self.end = 0;
        loop {
            match self.from.read(&mut self.buffer) {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                read => {
                    self.end = read?;
                    return Ok(());
                }
            }
        }
    }

    #[inline]
    fn bump(&mut self) -> Result<(), Fault> {
        let Some(byte) = self.peek()? else { return Ok(()) };
        self.next += 1;
        if byte == b'\n' {
            self.at.line += 1;
            self.at.column = 1;
        } else if byte & 0xc0 != 0x80 {
            self.at.column += 1;
        }
        self.count(1)
    }

    fn count(&mut self, bytes: usize) -> Result<(), Fault> {
        self.bytes += bytes as u64;
        if self.bytes > FORM_BYTES_MAX {
            let what = format!("an operation of more than {FORM_BYTES_MAX} bytes");
            return Err(Fault::new(self.at, what));
        }
        Ok(())
    }

    /// Consumes plain bytes as far as they are buffered.
    fn run(&mut self, bytes: &mut Vec<u8>, is_plain: impl Fn(u8) -> bool) -> Result<(), Fault> {
        let rest = &self.buffer[self.next..self.end];
        let len = rest
            .iter()
            .position(|b| *b == b'\n' || !is_plain(*b))
            .unwrap_or(rest.len());
        let run = &rest[..len];
        bytes.extend_from_slice(run);
        self.at.column += run.iter().filter(|b| **b & 0xc0 != 0x80).count() as u64;
        self.next += len;
        self.count(len)
    }

    /// Skips blanks and comments; returns the byte that follows.
    fn skip(&mut self) -> Result<Option<u8>, Fault> {
        loop {
            let next = self.peek()?;
            match next {
                Some(b' ' | b'\t' | b'\r' | b'\n') => self.bump()?,
                Some(b',') if self.syntax == Some(Syntax::Edn) => self.bump()?,
                Some(b';') if self.syntax != Some(Syntax::Json) => {
                    self.syntax = Some(Syntax::Edn);
                    while !matches!(self.peek()?, None | Some(b'\n')) {
                        self.bump()?;
                    }
                }
                _ => return Ok(next),
            }
        }
    }

    fn form(&mut self, depth: u32) -> Result<Form, Fault> {
        let next = self.skip()?;
        let at = self.at;
        if depth > DEPTH_MAX {
            return Err(Fault::new(at, format!("nested more than {DEPTH_MAX} deep")));
        }
        let edn = self.syntax != Some(Syntax::Json);
        let kind = match next {
            None => return Err(Fault::new(at, "the history ends amid an operation")),
            Some(b'{') => self.map(depth)?,
            Some(b'[') => self.list(b']', depth)?,
            Some(b'(') if edn => self.list(b')', depth)?,
            Some(b'"') => Kind::Text(self.text()?),
            Some(b'#') if edn => return self.dispatch(depth),
            Some(b'\\') if edn => self.character()?,
            Some(b':') if edn => {
                self.bump()?;
                Kind::Name(self.word()?)
            }
            Some(b) if b.is_ascii_digit() || b == b'-' || b == b'+' => self.number(at)?,
            Some(_) => self.named(at)?,
        };
        Ok(Form { at, kind })
    }

    fn list(&mut self, close: u8, depth: u32) -> Result<Kind, Fault> {
        self.bump()?;
        let json = self.syntax == Some(Syntax::Json);
        let mut forms = Vec::new();
        loop {
            // JSON allows no comma before the end.
            let may_end = !json || forms.is_empty();
            if self.skip()? == Some(close) && may_end {
                break;
            }
            forms.push(self.form(depth + 1)?);
            if json && !self.comma(close)? {
                break;
            }
        }
        self.bump()?;
        Ok(Kind::List(forms))
    }

    /// After an element in JSON: whether another one must follow.
    fn comma(&mut self, close: u8) -> Result<bool, Fault> {
        match self.skip()? {
            Some(b',') => {
                self.bump()?;
                Ok(true)
            }
            Some(b) if b == close => Ok(false),
            None => Err(Fault::new(self.at, "the history ends amid an operation")),
            Some(_) => {
                let what = format!("`,` or `{}` is due", char::from(close));
                Err(Fault::new(self.at, what))
            }
        }
    }

    fn map(&mut self, depth: u32) -> Result<Kind, Fault> {
        self.bump()?;
        let next = self.skip()?;
        let syntax = *self.syntax.get_or_insert(match next {
            Some(b'"' | b'}') => Syntax::Json,
            _ => Syntax::Edn,
        });
        let mut entries = Vec::new();
        loop {
            let may_end = syntax != Syntax::Json || entries.is_empty();
            if self.skip()? == Some(b'}') && may_end {
                break;
            }
            let key = self.form(depth + 1)?;
            if syntax == Syntax::Json {
                if !matches!(key.kind, Kind::Text(_)) {
                    return Err(Fault::new(key.at, "a name in quotes is due"));
                }
                if self.skip()? != Some(b':') {
                    return Err(Fault::new(self.at, "`:` is due"));
                }
                self.bump()?;
            }
            entries.push((key, self.form(depth + 1)?));
            if syntax == Syntax::Json && !self.comma(b'}')? {
                break;
            }
        }
        self.bump()?;
        Ok(Kind::Map(entries))
    }

    /// Parses after `#`: a set, a discard, a tag (which is dropped), a symbolic value.
    fn dispatch(&mut self, depth: u32) -> Result<Form, Fault> {
        self.syntax = Some(Syntax::Edn);
        let at = self.at;
        self.bump()?;
        match self.peek()? {
            Some(b'{') => {
                let kind = self.list(b'}', depth)?;
                Ok(Form { at, kind })
            }
            Some(b'_') => {
                self.bump()?;
                self.form(depth + 1)?;
                self.form(depth + 1)
            }
            Some(b'#') => {
                self.bump()?;
                let kind = Kind::Name(self.word()?);
                Ok(Form { at, kind })
            }
            _ => {
                self.word()?;
                self.form(depth + 1)
            }
        }
    }

    fn character(&mut self) -> Result<Kind, Fault> {
        self.bump()?;
        let mut bytes = Vec::new();
        // The character itself may be a delimiter.
        if let Some(b) = self.peek()? {
            bytes.push(b);
            self.bump()?;
        }
        self.word_into(&mut bytes)?;
        let text = self.utf8(bytes)?;
        let named = match text.as_str() {
            "newline" => "\n",
            "space" => " ",
            "tab" => "\t",
            "return" => "\r",
            other => other,
        };
        Ok(Kind::Text(named.to_owned()))
    }

    fn word_into(&mut self, bytes: &mut Vec<u8>) -> Result<(), Fault> {
        let json = self.json();
        let is_part = |b: u8| !(b.is_ascii_whitespace() || b",()[]{}\";".contains(&b) || (b == b':' && json));
        while self.peek()?.is_some_and(is_part) {
            self.run(bytes, is_part)?;
        }
        Ok(())
    }

    fn json(&self) -> bool {
        self.syntax == Some(Syntax::Json)
    }

    fn word(&mut self) -> Result<String, Fault> {
        let mut bytes = Vec::new();
        self.word_into(&mut bytes)?;
        if bytes.is_empty() {
            return Err(Fault::new(self.at, "a value is due here"));
        }
        self.utf8(bytes)
    }

    fn utf8(&self, bytes: Vec<u8>) -> Result<String, Fault> {
        String::from_utf8(bytes).map_err(|_| Fault::new(self.at, "what ends here is no UTF-8"))
    }

    fn named(&mut self, at: Place) -> Result<Kind, Fault> {
        if self.syntax.is_none() {
            return Err(Fault::new(at, "a history begins with a map, or a list of maps"));
        }
        let json = self.json();
        let word = self.word()?;
        match (word.as_str(), json) {
            ("true", _) => Ok(Kind::Bool(true)),
            ("false", _) => Ok(Kind::Bool(false)),
            ("null", true) | ("nil", false) => Ok(Kind::Null),
            (_, false) => Ok(Kind::Name(word)),
            (_, true) => Err(Fault::new(at, format!("{word:?} means nothing here"))),
        }
    }

    fn number(&mut self, at: Place) -> Result<Kind, Fault> {
        let json = self.json();
        let word = self.word()?;
        let digits = word.trim_start_matches(['-', '+']);
        if !json && !digits.starts_with(|c: char| c.is_ascii_digit()) {
            // `-` and `+` begin symbols as well.
            return Ok(Kind::Name(word));
        }
        let plain = if json {
            word.as_str()
        } else {
            word.trim_end_matches('N')
        };
        let zeroed = digits.len() > 1 && digits.starts_with('0') && digits.as_bytes()[1].is_ascii_digit();
        if !(json && (zeroed || word.starts_with('+')))
            && let Ok(n) = plain.parse()
        {
            return Ok(Kind::Int(n));
        }
        let decimal = if json { plain } else { plain.trim_end_matches('M') };
        let ratio = !json && digits.contains('/');
        // What is no number may still stand in a field that is not read, as in an `#object[… 0x7f …]` that Jepsen prints.
        if ratio || !json || serde_json::from_str::<serde_json::Number>(decimal).is_ok() {
            return Ok(Kind::Number(decimal.to_owned()));
        }
        Err(Fault::new(at, format!("{word:?} is no number")))
    }

    fn text(&mut self) -> Result<String, Fault> {
        self.bump()?;
        let mut bytes = Vec::new();
        loop {
            match self.peek()? {
                None => return Err(Fault::new(self.at, "the history ends amid a text")),
                Some(b'"') => break,
                Some(b'\\') => {
                    let c = self.escape()?;
                    let mut utf8 = [0; 4];
                    bytes.extend_from_slice(c.encode_utf8(&mut utf8).as_bytes());
                }
                Some(b) if b < 0x20 && self.json() => {
                    return Err(Fault::new(self.at, "a control character in a text"));
                }
                // Strings of EDN may contain control characters.
                Some(b) if b < 0x20 => {
                    bytes.push(b);
                    self.bump()?;
                }
                Some(_) => self.run(&mut bytes, |b| b >= 0x20 && b != b'"' && b != b'\\')?,
            }
        }
        self.bump()?;
        self.utf8(bytes)
    }

    fn escape(&mut self) -> Result<char, Fault> {
        let at = self.at;
        self.bump()?;
        let b = self
            .peek()?
            .ok_or_else(|| Fault::new(at, "the history ends amid a text"))?;
        self.bump()?;
        Ok(match b {
            b'"' | b'\\' | b'/' => char::from(b),
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            b'n' => '\n',
            b'r' => '\r',
            b't' => '\t',
            b'u' => {
                let mut unit = self.hex4(at)?;
                if (0xd800..0xdc00).contains(&unit) {
                    for expected in [b'\\', b'u'] {
                        if self.peek()? != Some(expected) {
                            return Err(Fault::new(at, "half a character"));
                        }
                        self.bump()?;
                    }
                    let low = self.hex4(at)?;
                    if !(0xdc00..0xe000).contains(&low) {
                        return Err(Fault::new(at, "half a character"));
                    }
                    unit = 0x10000 + ((unit - 0xd800) << 10) + (low - 0xdc00);
                }
                char::from_u32(unit).ok_or_else(|| Fault::new(at, "half a character"))?
            }
            _ => return Err(Fault::new(at, "no such escape")),
        })
    }

    fn hex4(&mut self, at: Place) -> Result<u32, Fault> {
        let mut unit = 0;
        for _ in 0..4 {
            let digit = self.peek()?.and_then(|b| char::from(b).to_digit(16));
            unit = unit * 16 + digit.ok_or_else(|| Fault::new(at, "four hexadecimal digits are due"))?;
            self.bump()?;
        }
        Ok(unit)
    }
}
