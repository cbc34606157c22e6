//! The grammar of the text form. It knows no attributes.

use std::borrow::Cow;

use winnow::combinator::{alt, delimited, opt, peek, preceded, separated};
use winnow::error::{ErrMode, ParserError};
use winnow::prelude::*;
use winnow::stream::{LocatingSlice, Location, Stateful};
use winnow::token::{any, one_of, take_till, take_while};

use super::super::FilterRule;
use super::super::checker::{Operand, Operator, check_depth};

/// A filter as it is written.
pub(super) enum Draft<'t> {
    All(usize, Vec<Draft<'t>>),
    Any(usize, Vec<Draft<'t>>),
    Not(usize, Box<Draft<'t>>),
    Compare {
        name: Placed<Cow<'t, str>>,
        operator: Operator,
        value: Placed<Operand<'t>>,
    },
    In {
        name: Placed<Cow<'t, str>>,
        /// Where the list begins.
        list: usize,
        values: Vec<Placed<Operand<'t>>>,
    },
}

impl Draft<'_> {
    /// Where it begins, in bytes from the start of the text.
    pub(super) fn offset(&self) -> usize {
        match self {
            Self::All(offset, _) | Self::Any(offset, _) | Self::Not(offset, _) => *offset,
            Self::Compare { name, .. } | Self::In { name, .. } => name.offset,
        }
    }
}

/// Something with where it begins, in bytes from the start of the text.
pub(super) struct Placed<T> {
    pub(super) offset: usize,
    pub(super) what: T,
}

/// A rule that is broken, and where, in bytes from the start of the text.
pub(super) struct Fault {
    pub(super) offset: usize,
    pub(super) rule: FilterRule,
}

/// The text that is left, and how many parentheses and `not` are open.
type Input<'t> = Stateful<LocatingSlice<&'t str>, usize>;
type Parsed<T> = Result<T, ErrMode<Fault>>;

/// The most characters of the text that an error repeats.
const FOUND_MAX: usize = 40;

impl Fault {
    fn expected(input: &Input<'_>, expected: &'static str) -> Self {
        let rest: &str = &input.input;
        let found = match rest.find(|character| !is_bare(character)) {
            _ if rest.is_empty() => "the end".to_owned(),
            Some(0) => format!("`{}`", rest.chars().next().unwrap_or_default()),
            length => {
                let token = &rest[..length.unwrap_or(rest.len())];
                let shown: String = token.chars().take(FOUND_MAX).collect();
                format!("`{shown}{}`", if shown.len() < token.len() { "…" } else { "" })
            }
        };
        Self { offset: input.current_token_start(), rule: FilterRule::Expected { expected, found } }
    }
}

impl<'t> ParserError<Input<'t>> for Fault {
    type Inner = Self;

    fn from_input(input: &Input<'t>) -> Self {
        Self::expected(input, "something else")
    }

    fn into_inner(self) -> Result<Self, Self> {
        Ok(self)
    }
}

fn refuse<T>(input: &Input<'_>, expected: &'static str) -> Parsed<T> {
    Err(ErrMode::Cut(Fault::expected(input, expected)))
}

/// Reads the whole of `text`.
///
/// Nothing here goes deeper than parentheses and `not` are nested, and that is bounded.
pub(super) fn draft(text: &str) -> Result<Draft<'_>, Fault> {
    let mut input = Stateful { input: LocatingSlice::new(text), state: 0 };
    whole(&mut input).map_err(|error| match error {
        ErrMode::Backtrack(fault) | ErrMode::Cut(fault) => fault,
        ErrMode::Incomplete(_) => Fault::expected(&input, "a whole text"),
    })
}

fn whole<'t>(input: &mut Input<'t>) -> Parsed<Draft<'t>> {
    space(input)?;
    let draft = disjunction(input)?;
    if input.input.is_empty() { Ok(draft) } else { refuse(input, "`and`, `or` or the end") }
}

fn space(input: &mut Input<'_>) -> Parsed<()> {
    take_while(0.., char::is_whitespace).void().parse_next(input)
}

/// Attributes with such a name must stand in backticks.
pub(super) const RESERVED: [&str; 7] = ["and", "or", "not", "has", "in", "true", "false"];

/// What needs no quotes.
pub(super) fn is_bare(character: char) -> bool {
    character.is_alphanumeric() || matches!(character, '_' | '-' | '.' | '+' | ':' | '/')
}

fn bare<'t>(input: &mut Input<'t>) -> Parsed<&'t str> {
    take_while(1.., is_bare).parse_next(input)
}

/// A word of the language, in whatever case, and the space behind it.
fn keyword<'t>(word: &'static str) -> impl Parser<Input<'t>, (), ErrMode<Fault>> {
    (bare.verify(move |found: &str| found.eq_ignore_ascii_case(word)), space).void()
}

fn symbol<'t>(symbol: &'static str) -> impl Parser<Input<'t>, (), ErrMode<Fault>> {
    (symbol, space).void()
}

fn disjunction<'t>(input: &mut Input<'t>) -> Parsed<Draft<'t>> {
    let offset = input.current_token_start();
    let parts: Vec<_> = separated(1.., conjunction, keyword("or")).parse_next(input)?;
    Ok(one(parts).unwrap_or_else(|parts| Draft::Any(offset, parts)))
}

fn conjunction<'t>(input: &mut Input<'t>) -> Parsed<Draft<'t>> {
    let offset = input.current_token_start();
    let parts: Vec<_> = separated(1.., condition, keyword("and")).parse_next(input)?;
    Ok(one(parts).unwrap_or_else(|parts| Draft::All(offset, parts)))
}

fn one<T>(parts: Vec<T>) -> Result<T, Vec<T>> {
    <[T; 1]>::try_from(parts).map(|[part]| part)
}

fn condition<'t>(input: &mut Input<'t>) -> Parsed<Draft<'t>> {
    let offset = input.current_token_start();
    if opt(symbol("(")).parse_next(input)?.is_some() {
        let inner = deeper(input, offset, disjunction)?;
        if opt(symbol(")")).parse_next(input)?.is_none() {
            return refuse(input, "`and`, `or` or `)`");
        }
        return Ok(inner);
    }
    if let Some(name) = opt(quoted_name).parse_next(input)? {
        return comparison(input, Placed { offset, what: Cow::Borrowed(name) });
    }
    let Some(word) = opt(peek(bare)).parse_next(input)? else { return refuse(input, "a condition") };
    let is = |keyword: &str| word.eq_ignore_ascii_case(keyword);
    if ["and", "or", "has", "in"].into_iter().any(is) {
        return refuse(input, "a condition");
    }
    (bare, space).parse_next(input)?;
    if is("not") {
        deeper(input, offset, condition).map(|inner| Draft::Not(offset, Box::new(inner)))
    } else if is("true") {
        Ok(Draft::All(offset, Vec::new()))
    } else if is("false") {
        Ok(Draft::Any(offset, Vec::new()))
    } else {
        comparison(input, Placed { offset, what: Cow::Borrowed(word) })
    }
}

/// Reads what stands one level deeper, behind the parenthesis or `not` at `offset`.
fn deeper<'t>(
    input: &mut Input<'t>,
    offset: usize,
    inner: fn(&mut Input<'t>) -> Parsed<Draft<'t>>,
) -> Parsed<Draft<'t>> {
    input.state += 1;
    check_depth(input.state).map_err(|rule| ErrMode::Cut(Fault { offset, rule }))?;
    let inner = inner(input)?;
    input.state -= 1;
    Ok(inner)
}

/// The name of an attribute in backticks.
fn quoted_name<'t>(input: &mut Input<'t>) -> Parsed<&'t str> {
    let offset = input.current_token_start();
    '`'.parse_next(input)?;
    let name = take_till(0.., '`').parse_next(input)?;
    match opt(('`', space)).parse_next(input)? {
        Some(_) => Ok(name),
        None => Err(ErrMode::Cut(Fault { offset, rule: FilterRule::Unclosed('`') })),
    }
}

fn comparison<'t>(input: &mut Input<'t>, name: Placed<Cow<'t, str>>) -> Parsed<Draft<'t>> {
    if opt(keyword("in")).parse_next(input)?.is_some() {
        let list = input.current_token_start();
        if opt(symbol("[")).parse_next(input)?.is_none() {
            return refuse(input, "`[`");
        }
        let values = match opt(symbol("]")).parse_next(input)? {
            Some(()) => Vec::new(),
            None => separated(1.., value, symbol(",")).parse_next(input)?,
        };
        if !values.is_empty() && opt(symbol("]")).parse_next(input)?.is_none() {
            return refuse(input, "`,` or `]`");
        }
        return Ok(Draft::In { name, list, values });
    }
    let offset = name.offset;
    if opt(symbol("!=")).parse_next(input)?.is_some() {
        let compared = Draft::Compare { name, operator: Operator::Equal, value: value(input)? };
        return Ok(Draft::Not(offset, Box::new(compared)));
    }
    let mut operator = opt(alt((
        keyword("has").value(Operator::Has),
        symbol("<=").value(Operator::LessOrEqual),
        symbol("<").value(Operator::Less),
        symbol(">=").value(Operator::GreaterOrEqual),
        symbol(">").value(Operator::Greater),
        symbol("=").value(Operator::Equal),
    )));
    match operator.parse_next(input)? {
        Some(operator) => Ok(Draft::Compare { name, operator, value: value(input)? }),
        None => refuse(input, "`=`, `!=`, `<`, `<=`, `>`, `>=`, `has` or `in` behind the name of an attribute"),
    }
}

fn value<'t>(input: &mut Input<'t>) -> Parsed<Placed<Operand<'t>>> {
    let offset = input.current_token_start();
    if let Some(quote) = opt(peek(one_of(['"', '\'']))).parse_next(input)? {
        let text = quoted(input, quote)?;
        return Ok(Placed { offset, what: Operand::Quoted(Cow::Owned(text)) });
    }
    match opt((bare, space)).parse_next(input)? {
        Some((word, ())) => Ok(Placed { offset, what: Operand::Bare(Cow::Borrowed(word)) }),
        None => refuse(input, "a number, a word or a text in quotes"),
    }
}

/// A text between two of `quote`, with escapes.
fn quoted(input: &mut Input<'_>, quote: char) -> Parsed<String> {
    let offset = input.current_token_start();
    any.parse_next(input)?;
    let mut text = String::new();
    loop {
        text.push_str(take_till(0.., ['\\', quote]).parse_next(input)?);
        match opt(any).parse_next(input)? {
            None => return Err(ErrMode::Cut(Fault { offset, rule: FilterRule::Unclosed(quote) })),
            Some('\\') => text.push(escaped(input)?),
            Some(_) => break,
        }
    }
    space(input)?;
    Ok(text)
}

/// What stands behind a backslash.
fn escaped(input: &mut Input<'_>) -> Parsed<char> {
    let offset = input.current_token_start();
    let code = delimited('{', take_while(1..=6, |digit: char| digit.is_ascii_hexdigit()), '}')
        .verify_map(|digits: &str| u32::from_str_radix(digits, 16).ok().and_then(char::from_u32));
    let mut meant =
        opt(alt((one_of(['"', '\'', '\\']), 'n'.value('\n'), 'r'.value('\r'), 't'.value('\t'), preceded('u', code))));
    meant.parse_next(input)?.ok_or(ErrMode::Cut(Fault { offset, rule: FilterRule::Escape }))
}
