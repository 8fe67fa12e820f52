//! One JSON object (RFC 8259) on one line. Only writing, and only what the events need.

use std::fmt::{Display, Write as _};

/// An object that grows by a field at a time.
#[derive(Debug)]
pub(super) struct Object(String);

impl Object {
    pub(super) fn new() -> Self {
        Self(String::from("{"))
    }

    /// Appends a string.
    pub(super) fn string(mut self, key: &str, value: impl Display) -> Self {
        self.key(key);
        quote(&mut self.0, &value.to_string());
        self
    }

    /// Appends a string, or null.
    pub(super) fn optional(self, key: &str, value: Option<impl Display>) -> Self {
        match value {
            Some(value) => self.string(key, value),
            None => self.raw(key, "null"),
        }
    }

    /// Appends an array of strings.
    pub(super) fn strings(mut self, key: &str, values: impl IntoIterator<Item = impl Display>) -> Self {
        self.key(key);
        self.0.push('[');
        for (index, value) in values.into_iter().enumerate() {
            if index > 0 {
                self.0.push(',');
            }
            quote(&mut self.0, &value.to_string());
        }
        self.0.push(']');
        self
    }

    /// Appends an integer.
    pub(super) fn integer(self, key: &str, value: impl Into<i128>) -> Self {
        let value: i128 = value.into();
        self.raw(key, &value.to_string())
    }

    /// Appends a number with so many decimals; JSON has none that are not finite, they become null.
    pub(super) fn number(self, key: &str, value: f64, decimals: usize) -> Self {
        if value.is_finite() { self.raw(key, &format!("{value:.decimals$}")) } else { self.raw(key, "null") }
    }

    /// Closes the object.
    pub(super) fn finish(mut self) -> String {
        self.0.push('}');
        self.0
    }

    fn raw(mut self, key: &str, value: &str) -> Self {
        self.key(key);
        self.0.push_str(value);
        self
    }

    fn key(&mut self, key: &str) {
        if self.0.len() > 1 {
            self.0.push(',');
        }
        quote(&mut self.0, key);
        self.0.push(':');
    }
}

/// Appends a string with its quotes; control characters, quotes and backslashes are escaped (section 7).
fn quote(out: &mut String, text: &str) {
    out.push('"');
    for character in text.chars() {
        match character {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\0'..='\x1f' | '\x7f' => {
                // Writing to a String cannot fail.
                let _ = write!(out, "\\u{:04x}", u32::from(character));
            }
            _ => out.push(character),
        }
    }
    out.push('"');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_of_every_kind_of_field() {
        let line = Object::new()
            .string("event", "registered")
            .number("t", 0.25, 3)
            .optional("name", None::<&str>)
            .optional("other", Some("x"))
            .strings("mapped", ["192.0.2.1:5", "[2001:db8::1]:5"])
            .strings("none", [""; 0])
            .integer("n", 7_u64)
            .number("nan", f64::NAN, 1)
            .finish();
        assert_eq!(
            line,
            r#"{"event":"registered","t":0.250,"name":null,"other":"x","mapped":["192.0.2.1:5","[2001:db8::1]:5"],"none":[],"n":7,"nan":null}"#
        );
    }

    #[test]
    fn a_string_stays_one_line_whatever_is_in_it() {
        let line = Object::new().string("m", "a\"b\\c\nd\re\tf\u{1}\u{7f}ü\u{1f600}").finish();
        assert_eq!(line, "{\"m\":\"a\\\"b\\\\c\\nd\\re\\tf\\u0001\\u007fü\u{1f600}\"}");
    }
}
