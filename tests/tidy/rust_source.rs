//! Just enough of Rust's grammar to tell code from comments and texts.

/// A source file taken apart.
pub(crate) struct RustSource {
    /// The code, with every character of comments and literals blanked; offsets are those of the file.
    pub(crate) code: String,
    literals: Vec<(usize, String)>,
}

/// A string literal that is an argument of a call.
pub(crate) struct Argument<'a> {
    /// The line it begins on, from 1.
    pub(crate) line: usize,
    /// What stands between the quotes.
    pub(crate) text: &'a str,
}

impl RustSource {
    /// Takes `text` apart. Text that is not Rust gives something, never a panic.
    pub(crate) fn new(text: &str) -> Self {
        let mut scanner = Scanner { rest: text, code: String::with_capacity(text.len()), literals: Vec::new() };
        while scanner.step() {}
        Self { code: scanner.code, literals: scanner.literals }
    }

    /// For every call that begins with `opening`, such as `bail!(`: its first argument that is a string literal itself.
    pub(crate) fn first_texts<'a>(&'a self, opening: &'a str) -> impl Iterator<Item = Argument<'a>> {
        self.code.match_indices(opening).filter_map(move |(at, _)| self.first_text(at + opening.len()))
    }

    fn first_text(&self, start: usize) -> Option<Argument<'_>> {
        let mut depth = 0i32;
        // What stands before a literal tells whether it is an argument itself: `field = "…"` and `target: "…"` are none.
        let mut before = '(';
        for (at, c) in self.code[start..].char_indices().map(|(at, c)| (start + at, c)) {
            match c {
                '(' | '[' | '{' => depth += 1,
                ')' | ']' | '}' if depth == 0 => return None,
                ')' | ']' | '}' => depth -= 1,
                '"' if depth == 0 && matches!(before, '(' | ',') => {
                    let found = self.literals.binary_search_by_key(&at, |(start, _)| *start).ok()?;
                    let line = 1 + self.code[..at].matches('\n').count();
                    return Some(Argument { line, text: &self.literals[found].1 });
                }
                _ => {}
            }
            if !c.is_whitespace() {
                before = c;
            }
        }
        None
    }
}

struct Scanner<'a> {
    rest: &'a str,
    code: String,
    literals: Vec<(usize, String)>,
}

impl Scanner<'_> {
    /// Reads one token's worth; false at the end.
    fn step(&mut self) -> bool {
        let Some(first) = self.rest.chars().next() else { return false };
        let in_word = self.code.ends_with(|c: char| c.is_alphanumeric() || c == '_');
        if self.rest.starts_with("//") {
            self.blank(self.rest.find('\n').unwrap_or(self.rest.len()));
        } else if self.rest.starts_with("/*") {
            self.blank(block_comment(self.rest));
        } else if first == '"' {
            self.literal(0, 1, "\"");
        } else if let Some((opening, closing)) = raw_string(self.rest).filter(|_| !in_word) {
            self.literal(opening - 1, 1, &closing);
        } else if first == '\'' {
            self.blank(character(self.rest));
        } else {
            self.code.push(first);
            self.rest = &self.rest[first.len_utf8()..];
        }
        true
    }

    /// Keeps offsets and lines, and nothing else, of the next `bytes`.
    fn blank(&mut self, bytes: usize) {
        let (gone, rest) = self.rest.split_at(bytes);
        self.code.extend(gone.bytes().map(|byte| if byte == b'\n' { '\n' } else { ' ' }));
        self.rest = rest;
    }

    /// A string literal: `prefix` bytes, then a quote, then the text up to `closing`. The quote stays in the code.
    fn literal(&mut self, prefix: usize, quote: usize, closing: &str) {
        self.blank(prefix);
        let (escapes, body) = (closing == "\"", &self.rest[quote..]);
        let mut end = body.len();
        let mut skip = false;
        for (at, c) in body.char_indices() {
            if skip {
                skip = false;
            } else if escapes && c == '\\' {
                skip = true;
            } else if body[at..].starts_with(closing) {
                end = at;
                break;
            }
        }
        self.literals.push((self.code.len(), body[..end].to_owned()));
        let whole = (quote + end + closing.len()).min(self.rest.len());
        self.code.push('"');
        self.rest = &self.rest[quote..];
        self.blank(whole - quote);
    }
}

/// The length of the block comment that `text` begins with; they nest.
fn block_comment(text: &str) -> usize {
    let (mut depth, mut at) = (0usize, 0usize);
    while at < text.len() {
        if text.as_bytes()[at..].starts_with(b"/*") {
            (depth, at) = (depth + 1, at + 2);
        } else if text.as_bytes()[at..].starts_with(b"*/") {
            (depth, at) = (depth - 1, at + 2);
        } else {
            at += 1;
        }
        if depth == 0 {
            return at;
        }
    }
    text.len()
}

/// The length of the opening of a raw string, `r#"` with its quote, and what closes it.
fn raw_string(text: &str) -> Option<(usize, String)> {
    let after = text.strip_prefix('r').or_else(|| text.strip_prefix("br"))?;
    let hashes = after.len() - after.trim_start_matches('#').len();
    after[hashes..]
        .starts_with('"')
        .then(|| (text.len() - after.len() + hashes + 1, format!("\"{}", "#".repeat(hashes))))
}

/// The length of the character that `text` begins with, or of the quote of a lifetime.
fn character(text: &str) -> usize {
    let mut inner = text[1..].chars();
    match (inner.next(), inner.next()) {
        (Some('\\'), Some(escaped)) => {
            let from = 2 + escaped.len_utf8();
            text[from..].find('\'').map_or(text.len(), |closing| from + closing + 1)
        }
        (Some(c), Some('\'')) => c.len_utf8() + 2,
        (Some(_) | None, _) => 1,
    }
}

#[test]
fn comments_and_texts_are_told_from_code() {
    let check = |text: &str, code: &str| {
        let found = RustSource::new(text).code;
        assert_eq!(found.len(), text.len(), "{text}");
        assert_eq!(found.split_whitespace().collect::<Vec<_>>().join(" "), code, "{text}");
    };
    check("let a = 1; // tokio", "let a = 1;");
    check("/* tokio /* ractor */ */ let a;", "let a;");
    check(r#"f("tokio \" // no comment"); g"#, r#"f(" ); g"#);
    check("f(r#\"a \" tokio\"#); g", "f( \" ); g");
    check("let c = '\"'; let d = '\\''; fn e<'a>() {}", "let c = ; let d = ; fn e< a>() {}");
    check("\"never closed", "\"");
    check("/* never closed", "");
}

#[test]
fn the_text_of_a_call_is_found() {
    let check = |text: &str, expected: &[&str]| {
        let source = RustSource::new(text);
        let found: Vec<&str> = source.first_texts("warn!(").map(|argument| argument.text).collect();
        assert_eq!(found, expected, "{text}");
    };
    check(r#"warn!("a"); warn!(%error, "b {}", f("c"))"#, &["a", "b {}"]);
    check(r#"warn!(target: "audit", kind = "k", name = f("x"), "message")"#, &["message"]);
    check(r#"warn!(%error) + "d""#, &[]);
    check("// warn!(\"a\")", &[]);
}
