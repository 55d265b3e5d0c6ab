//! A statement with its arguments, and the two ways in which it goes out: prepared, with its arguments beside it; or,
//! where a pooler gives each transaction another session, as one text in which the arguments stand as literals. Decides
//! how a value is written there, so that none can be read as anything but a value.

use std::borrow::Cow;
use std::fmt::Write;

use sqlx::postgres::{PgArguments, PgConnection, PgRow};
use sqlx::query::Query;
use sqlx::{AssertSqlSafe, Executor, Postgres};

use crate::store::errors::Trouble;

/// How statements go out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wire {
    /// Prepared once a connection.
    Prepared,
    /// One text, one transaction, one round trip; what is set in a session otherwise comes first, for this transaction
    /// alone.
    Text {
        /// Statements that end with a semicolon.
        before: &'static str,
    },
}

/// A statement and its arguments, `$1` first.
#[derive(Clone, Debug)]
pub(super) struct Statement {
    text: Cow<'static, str>,
    arguments: Vec<Argument>,
}

/// An argument, by its type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Argument {
    Text(Option<String>),
    Bool(bool),
    Int4(Option<i32>),
    Int8(Option<i64>),
    Texts(Option<Vec<Option<String>>>),
    Int2s(Option<Vec<i16>>),
    Int4s(Vec<Option<i32>>),
    Int8s(Option<Vec<Option<i64>>>),
    Byteas(Vec<Option<Vec<u8>>>),
}

impl Statement {
    pub(super) fn of(text: impl Into<Cow<'static, str>>) -> Self {
        Self { text: text.into(), arguments: Vec::new() }
    }

    /// The next argument.
    pub(super) fn bind(mut self, argument: impl Into<Argument>) -> Self {
        self.arguments.push(argument.into());
        self
    }

    /// Ready to be sent: all that takes time before is done.
    pub(super) fn ready(&self, wire: Wire) -> Result<Ready<'_>, Trouble> {
        match wire {
            Wire::Prepared => Ok(Ready::Prepared(self.prepared())),
            Wire::Text { before } => self.written(before).map(Ready::Text),
        }
    }

    fn prepared(&self) -> Query<'_, Postgres, PgArguments> {
        let query = match &self.text {
            Cow::Borrowed(text) => sqlx::query(*text),
            Cow::Owned(text) => sqlx::query(AssertSqlSafe(text.clone())),
        };
        self.arguments.iter().fold(query, |query, argument| match argument {
            Argument::Text(value) => query.bind(value),
            Argument::Bool(value) => query.bind(value),
            Argument::Int4(value) => query.bind(value),
            Argument::Int8(value) => query.bind(value),
            Argument::Texts(values) => query.bind(values),
            Argument::Int2s(values) => query.bind(values),
            Argument::Int4s(values) => query.bind(values),
            Argument::Int8s(values) => query.bind(values),
            Argument::Byteas(values) => query.bind(values),
        })
    }

    /// The text with each `$n` replaced by its argument. None of this program's texts has another dollar sign.
    fn written(&self, before: &str) -> Result<String, Trouble> {
        let mut out = before.to_owned();
        let mut pieces = self.text.split('$');
        out.push_str(pieces.next().unwrap_or_default());
        for piece in pieces {
            let digits = piece.bytes().take_while(u8::is_ascii_digit).count();
            let (number, rest) = piece.split_at(digits);
            let place = number.parse::<usize>().ok().and_then(|number| number.checked_sub(1));
            let argument = place.and_then(|place| self.arguments.get(place));
            let argument = argument.ok_or_else(|| {
                Trouble::corrupt(format!("a statement without its argument ${number}"))
            })?;
            argument.write(&mut out)?;
            out.push_str(rest);
        }
        Ok(out)
    }
}

/// A statement that only has to be sent.
pub(super) enum Ready<'a> {
    Prepared(Query<'a, Postgres, PgArguments>),
    Text(String),
}

impl Ready<'_> {
    /// Send it; the rows of its answer.
    pub(super) async fn rows(self, connection: &mut PgConnection) -> Result<Vec<PgRow>, Trouble> {
        Ok(match self {
            Self::Prepared(query) => query.fetch_all(connection).await?,
            Self::Text(text) => connection.fetch_all(sqlx::raw_sql(AssertSqlSafe(text))).await?,
        })
    }
}

impl Argument {
    /// Write it as a literal with its type.
    fn write(&self, out: &mut String) -> Result<(), Trouble> {
        match self {
            Self::Text(value) => write_text(out, value.as_deref())?,
            Self::Bool(value) => out.push_str(if *value { "true" } else { "false" }),
            Self::Int4(value) => write_number(out, value.map(i64::from), "integer"),
            Self::Int8(value) => write_number(out, *value, "bigint"),
            Self::Texts(None) => out.push_str("NULL::text[]"),
            Self::Texts(Some(values)) => {
                write_array(out, values, "text", |out, value| write_text(out, value.as_deref()))?;
            }
            Self::Int2s(None) => out.push_str("NULL::smallint[]"),
            Self::Int2s(Some(values)) => write_array(out, values, "smallint", |out, value| {
                write_number(out, Some(i64::from(*value)), "smallint");
                Ok(())
            })?,
            Self::Int4s(values) => write_array(out, values, "integer", |out, value| {
                write_number(out, value.map(i64::from), "integer");
                Ok(())
            })?,
            Self::Int8s(None) => out.push_str("NULL::bigint[]"),
            Self::Int8s(Some(values)) => write_array(out, values, "bigint", |out, value| {
                write_number(out, *value, "bigint");
                Ok(())
            })?,
            Self::Byteas(values) => write_array(out, values, "bytea", |out, value| {
                write_bytes(out, value.as_deref());
                Ok(())
            })?,
        }
        Ok(())
    }
}

fn write_number(out: &mut String, number: Option<i64>, of_type: &str) {
    let _ = match number {
        // Of a negative number the sign would bind less than the type; and the least has no positive counterpart.
        Some(number) => write!(out, "'{number}'::{of_type}"),
        None => write!(out, "NULL::{of_type}"),
    };
}

/// Escapes mean the same in `E''` whatever `standard_conforming_strings` is. The encoding is UTF-8, in which no byte of
/// another character looks like a quote or a backslash.
fn write_text(out: &mut String, text: Option<&str>) -> Result<(), Trouble> {
    let Some(text) = text else {
        out.push_str("NULL::text");
        return Ok(());
    };
    if text.contains('\0') {
        let reason = "a text with a NUL, which PostgreSQL has no place for".to_owned();
        return Err(Trouble::Sql(sqlx::Error::InvalidArgument(reason)));
    }
    out.push_str("E'");
    for character in text.chars() {
        if matches!(character, '\'' | '\\') {
            out.push(character);
        }
        out.push(character);
    }
    out.push_str("'::text");
    Ok(())
}

fn write_bytes(out: &mut String, bytes: Option<&[u8]>) {
    let Some(bytes) = bytes else {
        out.push_str("NULL::bytea");
        return;
    };
    out.push_str("decode('");
    for byte in bytes {
        let _ = write!(out, "{byte:02x}");
    }
    out.push_str("', 'hex')");
}

fn write_array<T>(
    out: &mut String,
    values: &[T],
    of_type: &str,
    each: impl Fn(&mut String, &T) -> Result<(), Trouble>,
) -> Result<(), Trouble> {
    out.push_str("ARRAY[");
    for (place, value) in values.iter().enumerate() {
        if place > 0 {
            out.push(',');
        }
        each(out, value)?;
    }
    let _ = write!(out, "]::{of_type}[]");
    Ok(())
}

macro_rules! from {
    ($($type:ty => |$value:ident| $argument:expr;)*) => {
        $(impl From<$type> for Argument {
            fn from($value: $type) -> Self {
                $argument
            }
        })*
    };
}

from! {
    String => |value| Self::Text(Some(value));
    &str => |value| Self::Text(Some(value.to_owned()));
    Option<String> => |value| Self::Text(value);
    bool => |value| Self::Bool(value);
    i32 => |value| Self::Int4(Some(value));
    Option<i32> => |value| Self::Int4(value);
    i64 => |value| Self::Int8(Some(value));
    Option<i64> => |value| Self::Int8(value);
    &[String] => |values| Self::Texts(Some(values.iter().cloned().map(Some).collect()));
    Option<&[String]> => |values| values.map_or(Self::Texts(None), Into::into);
    Vec<String> => |values| Self::Texts(Some(values.into_iter().map(Some).collect()));
    Vec<&str> => |values| Self::Texts(Some(values.into_iter().map(|v| Some(v.to_owned())).collect()));
    Vec<Option<String>> => |values| Self::Texts(Some(values));
    Option<Vec<String>> => |values| values.map_or(Self::Texts(None), Into::into);
    Vec<i16> => |values| Self::Int2s(Some(values));
    Option<Vec<i16>> => |values| Self::Int2s(values);
    Vec<i32> => |values| Self::Int4s(values.into_iter().map(Some).collect());
    Vec<Option<i32>> => |values| Self::Int4s(values);
    Vec<i64> => |values| Self::Int8s(Some(values.into_iter().map(Some).collect()));
    Option<Vec<Option<i64>>> => |values| Self::Int8s(values);
    Vec<Option<i64>> => |values| Self::Int8s(Some(values));
    Vec<Option<&[u8]>> => |values| Self::Byteas(values.into_iter().map(|v| v.map(<[u8]>::to_vec)).collect());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(argument: impl Into<Argument>) -> String {
        Statement::of("$1").bind(argument).written("").unwrap()
    }

    #[test]
    fn every_value_is_written_with_its_type() {
        assert_eq!(written("it's \\ $1 \u{1f600}"), r"E'it''s \\ $1 😀'::text");
        assert_eq!(written(None::<String>), "NULL::text");
        assert_eq!(written(i64::MIN), "'-9223372036854775808'::bigint");
        assert_eq!(written(None::<i32>), "NULL::integer");
        assert_eq!(written(true), "true");
        assert_eq!(written(Vec::<String>::new()), "ARRAY[]::text[]");
        assert_eq!(written(None::<&[String]>), "NULL::text[]");
        assert_eq!(
            written(vec![Some("'".to_owned()), None]),
            "ARRAY[E''''::text,NULL::text]::text[]"
        );
        assert_eq!(written(vec![-1_i16]), "ARRAY['-1'::smallint]::smallint[]");
        let bytes: Vec<Option<&[u8]>> = vec![Some(b"\x00'\\"), None];
        assert_eq!(written(bytes), "ARRAY[decode('00275c', 'hex'),NULL::bytea]::bytea[]");
    }

    #[test]
    fn arguments_stand_at_their_numbers() {
        let mut statement = Statement::of("SELECT f($2, $1::text::uuid, $10)");
        for number in 1..=10_i32 {
            statement = statement.bind(number);
        }
        let text = statement.written("SET LOCAL jit = off; ").unwrap();
        assert_eq!(
            text,
            "SET LOCAL jit = off; SELECT f('2'::integer, '1'::integer::text::uuid, '10'::integer)"
        );
        assert!(Statement::of("SELECT $2").bind(1_i32).written("").is_err(), "one is missing");
        assert!(Statement::of("SELECT $1").bind("a\0b").written("").is_err(), "it would end there");
    }
}
