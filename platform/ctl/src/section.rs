//! One table of a description: typed access to its keys, with a diagnostic for each that is not as it should be.

use crate::diagnostic::{Sink, Span, closest, one_of};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// A value and where it stands.
#[derive(Clone, Debug)]
pub(crate) struct At<T> {
    pub(crate) value: T,
    pub(crate) span: Span,
}

/// A key that the table does not take, and what to say of it.
pub(crate) struct Foreign {
    pub(crate) key: &'static str,
    pub(crate) message: &'static str,
    pub(crate) help: &'static str,
}

/// Another name, from another tool, of a key that the table takes.
pub(crate) type Alias = (&'static str, &'static str);

/// What keys a table takes.
pub(crate) struct Keys {
    pub(crate) known: &'static [&'static str],
    pub(crate) aliases: &'static [Alias],
    pub(crate) foreign: &'static [Foreign],
    /// How those of the keys that are tables are written: `[[guest]]`.
    pub(crate) tables: &'static [&'static str],
}

/// A table of the description.
pub(crate) struct Section<'a> {
    table: &'a DeTable<'a>,
    /// Where the table begins.
    pub(crate) span: Span,
    /// What its diagnostics are about.
    pub(crate) subject: String,
    /// Known keys that an unknown key probably stands for; they are not reported missing.
    meant: Vec<&'static str>,
}

impl<'a> Section<'a> {
    pub(crate) fn new(table: &'a DeTable<'a>, span: Span, subject: impl Into<String>) -> Self {
        Section { table, span, subject: subject.into(), meant: Vec::new() }
    }

    /// Reports every key that is not known.
    pub(crate) fn check_keys(&mut self, sink: &mut Sink<'_>, keys: &Keys) {
        for key in self.table.keys() {
            let name: &str = key.get_ref();
            if keys.known.contains(&name) {
                continue;
            }
            if let Some(foreign) = keys.foreign.iter().find(|foreign| foreign.key == name) {
                sink.add(&key.span(), &self.subject, foreign.message, foreign.help);
                continue;
            }
            let alias = keys.aliases.iter().find(|alias| alias.0 == name).map(|alias| alias.1);
            let folded = name.replace('-', "_");
            let meant = alias.or_else(|| closest(&folded, keys.known.iter().copied()));
            let written = |known: &str| {
                keys.tables.iter().find(|table| table.contains(known)).map_or(known, |table| table).to_owned()
            };
            let help = match meant {
                Some(meant) => format!("write `{}`", written(meant)),
                None => {
                    let known: Vec<String> = keys.known.iter().map(|known| written(known)).collect();
                    format!("known here are {}", one_of(known.iter().map(String::as_str)).replace(" or ", " and "))
                }
            };
            sink.add(&key.span(), &self.subject, format!("unknown key `{name}`"), help);
            self.meant.extend(keys.known.iter().find(|known| Some(**known) == meant));
        }
    }

    pub(crate) fn raw(&self, key: &str) -> Option<&'a Spanned<DeValue<'a>>> {
        self.table.get(key)
    }

    /// Says whether the key is there, or was meant by a misspelt one.
    pub(crate) fn has(&self, key: &str) -> bool {
        self.table.contains_key(key) || self.meant.contains(&key)
    }

    /// Reports `key` as missing unless it is there.
    pub(crate) fn require(&self, sink: &mut Sink<'_>, key: &str, help: &str) {
        if !self.has(key) {
            sink.add(&self.span, &self.subject, format!("`{key}` is missing"), help);
        }
    }

    /// Reports a value of the wrong type.
    pub(crate) fn wrong_type(&self, sink: &mut Sink<'_>, key: &str, found: &Spanned<DeValue<'_>>, help: &str) {
        let kind = found.get_ref().type_str();
        let article = if kind.starts_with(['a', 'i']) { "an" } else { "a" };
        sink.add(&found.span(), &self.subject, format!("`{key}` is {article} {kind}"), help);
    }

    pub(crate) fn string(&self, sink: &mut Sink<'_>, key: &str, help: &str) -> Option<At<&'a str>> {
        let found = self.raw(key)?;
        match found.get_ref().as_str() {
            Some(value) => Some(At { value, span: found.span() }),
            None => {
                self.wrong_type(sink, key, found, help);
                None
            }
        }
    }

    pub(crate) fn boolean(&self, sink: &mut Sink<'_>, key: &str) -> Option<bool> {
        let found = self.raw(key)?;
        let value = found.get_ref().as_bool();
        if value.is_none() {
            self.wrong_type(sink, key, found, "write `true` or `false`, without quotes");
        }
        value
    }

    /// An integer within `range`.
    pub(crate) fn integer(
        &self,
        sink: &mut Sink<'_>,
        key: &str,
        range: std::ops::RangeInclusive<u64>,
    ) -> Option<At<u64>> {
        let found = self.raw(key)?;
        let help = format!("write a number from {} to {}", range.start(), range.end());
        let Some(integer) = found.get_ref().as_integer() else {
            self.wrong_type(sink, key, found, &help);
            return None;
        };
        let value = u64::from_str_radix(integer.as_str(), integer.radix()).ok();
        match value.filter(|value| range.contains(value)) {
            Some(value) => Some(At { value, span: found.span() }),
            None => {
                sink.add(&found.span(), &self.subject, format!("`{key}` is {integer}, out of range"), help);
                None
            }
        }
    }

    /// A value that `parse` makes of a string or an integer; its error is a message and a help text.
    pub(crate) fn parsed<T>(
        &self,
        sink: &mut Sink<'_>,
        key: &str,
        help: &str,
        parse: impl Fn(Scalar<'_>) -> Result<T, (String, String)>,
    ) -> Option<At<T>> {
        let found = self.raw(key)?;
        let scalar = match found.get_ref() {
            DeValue::String(text) => Scalar::Text(text),
            DeValue::Integer(integer) => match i64::from_str_radix(integer.as_str(), integer.radix()) {
                Ok(value) => Scalar::Integer(value),
                Err(_) => {
                    sink.add(&found.span(), &self.subject, format!("`{key}` is out of range"), help);
                    return None;
                }
            },
            DeValue::Float(float) => match float.as_str().parse() {
                Ok(value) => Scalar::Float(value),
                Err(_) => return None,
            },
            _ => {
                self.wrong_type(sink, key, found, help);
                return None;
            }
        };
        match parse(scalar) {
            Ok(value) => Some(At { value, span: found.span() }),
            Err((message, help)) => {
                sink.add(&found.span(), &self.subject, format!("`{key}` {message}"), help);
                None
            }
        }
    }

    /// A list of strings.
    pub(crate) fn strings(&self, sink: &mut Sink<'_>, key: &str, help: &str) -> Option<At<Vec<At<&'a str>>>> {
        let found = self.raw(key)?;
        let Some(array) = found.get_ref().as_array() else {
            self.wrong_type(sink, key, found, help);
            return None;
        };
        let mut values = Vec::new();
        for element in array.iter() {
            match element.get_ref().as_str() {
                Some(value) => values.push(At { value, span: element.span() }),
                None => self.wrong_type(sink, key, element, help),
            }
        }
        Some(At { value: values, span: found.span() })
    }

    /// A table inside this one.
    pub(crate) fn table(&self, sink: &mut Sink<'_>, key: &str, help: &str) -> Option<Section<'a>> {
        let found = self.raw(key)?;
        match found.get_ref().as_table() {
            Some(table) => Some(Section::new(table, found.span(), self.subject.clone())),
            None => {
                self.wrong_type(sink, key, found, help);
                None
            }
        }
    }

    /// The tables of an array of tables, `[[key]]`.
    pub(crate) fn tables(&self, sink: &mut Sink<'_>, key: &str) -> Vec<(&'a DeTable<'a>, Span)> {
        let Some(found) = self.raw(key) else {
            return Vec::new();
        };
        let help = format!("write `[[{key}]]`, with two brackets, before each");
        let Some(array) = found.get_ref().as_array() else {
            self.wrong_type(sink, key, found, &help);
            return Vec::new();
        };
        let mut tables = Vec::new();
        for element in array.iter() {
            match element.get_ref().as_table() {
                Some(table) => tables.push((table, element.span())),
                None => self.wrong_type(sink, key, element, &help),
            }
        }
        tables
    }
}

/// A value that can be written in more than one way.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Scalar<'a> {
    Text(&'a str),
    Integer(i64),
    Float(f64),
}
