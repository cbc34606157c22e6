//! A filter as text.

use std::fmt::{self, Display, Formatter, Write as _};

use super::super::{End, Filter};

/// The text form. Reading it gives the same filter, where a form was read to make it; one that was put together otherwise
/// may come back in another shape that means the same.
impl Display for Filter {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::And(parts) if parts.is_empty() => f.write_str("true"),
            Self::Or(parts) if parts.is_empty() => f.write_str("false"),
            Self::And(parts) => joined(f, parts, " and "),
            Self::Or(parts) => joined(f, parts, " or "),
            Self::Not(part) => f.write_str("not ").and_then(|()| Inner(part).fmt(f)),
            Self::AnyOf { field, values } => {
                write!(f, "{} in [", Name(field))?;
                for (i, value) in values.iter().enumerate() {
                    write!(f, "{}{}", if i == 0 { "" } else { ", " }, Quoted(value))?;
                }
                f.write_char(']')
            }
            Self::Between { field, range } => {
                let field = Name(field);
                match (range.low, range.high) {
                    (Some((low, End::Included)), Some((high, End::Included))) if low == high => {
                        write!(f, "{field} = {}", Number(low))
                    }
                    (Some(low), Some(high)) => {
                        write!(f, "({field} {} {} and ", above(low.1), Number(low.0))?;
                        write!(f, "{field} {} {})", below(high.1), Number(high.0))
                    }
                    (Some((low, end)), None) => write!(f, "{field} {} {}", above(end), Number(low)),
                    (None, Some((high, end))) => write!(f, "{field} {} {}", below(end), Number(high)),
                    // Every number.
                    (None, None) => write!(f, "{field} >= {}", Number(f64::MIN)),
                }
            }
        }
    }
}

fn joined(f: &mut Formatter<'_>, parts: &[Filter], word: &str) -> fmt::Result {
    parts.iter().enumerate().try_for_each(|(i, part)| {
        f.write_str(if i == 0 { "" } else { word })?;
        Inner(part).fmt(f)
    })
}

fn above(end: End) -> &'static str {
    match end {
        End::Included => ">=",
        End::Excluded => ">",
    }
}

fn below(end: End) -> &'static str {
    match end {
        End::Included => "<=",
        End::Excluded => "<",
    }
}

/// A part of another filter: in parentheses where it has parts itself.
struct Inner<'a>(&'a Filter);

impl Display for Inner<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self.0 {
            Filter::And(parts) | Filter::Or(parts) if !parts.is_empty() => write!(f, "({})", self.0),
            Filter::And(_) | Filter::Or(_) | Filter::Not(_) | Filter::AnyOf { .. } | Filter::Between { .. } => {
                self.0.fmt(f)
            }
        }
    }
}

/// The name of an attribute, which holds no backtick.
struct Name<'a>(&'a str);

impl Display for Name<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let is_reserved = super::grammar::RESERVED.into_iter().any(|word| self.0.eq_ignore_ascii_case(word));
        match !is_reserved && !self.0.is_empty() && self.0.chars().all(super::grammar::is_bare) {
            true => f.write_str(self.0),
            false => write!(f, "`{}`", self.0),
        }
    }
}

struct Quoted<'a>(&'a str);

impl Display for Quoted<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_char('"')?;
        for character in self.0.chars() {
            match character {
                '"' | '\\' => write!(f, "\\{character}")?,
                _ if character.is_control() => f.write_fmt(format_args!("\\u{{{:x}}}", u32::from(character)))?,
                _ => f.write_char(character)?,
            }
        }
        f.write_char('"')
    }
}

/// The shortest digits that mean the same number.
struct Number(f64);

impl Display for Number {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let size = self.0.abs();
        if size == 0.0 || (1e-5..1e16).contains(&size) { write!(f, "{}", self.0) } else { write!(f, "{:e}", self.0) }
    }
}
