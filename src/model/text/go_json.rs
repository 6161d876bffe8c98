//! JSON as Go's `encoding/json` reads it, which is how engines read the documents of an image. The name of a field
//! matches in any case, a repeated field is set again, and text that is not UTF-8 is replaced. serde takes a name
//! in another case for another field, and refuses the other two.

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use std::fmt;

/// A value. The fields of an object are in the order of the document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Json {
    Null,
    Bool(bool),
    /// No field that is read here is one.
    Number,
    Text(String),
    List(Vec<Json>),
    Object(Vec<(String, Json)>),
}

/// A value does not have the type that its field needs.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field} is {found}, not {expected}")]
pub(crate) struct WrongType {
    pub(crate) field: String,
    found: &'static str,
    expected: &'static str,
}

impl Json {
    /// Reads a document.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_str(&lone_surrogates_replaced(&String::from_utf8_lossy(bytes)))
    }

    /// The values of the field `name`, in the order in which they are set.
    pub(crate) fn field(&self, name: &str) -> Result<Vec<&Self>, WrongType> {
        let fields = self.fields("it")?;
        let of_name = |(key, value)| is_same_name(key, name).then_some(value);
        Ok(fields.into_iter().filter_map(of_name).collect())
    }

    /// The fields of an object. `owner` names the object in an error, here and below.
    pub(crate) fn fields(&self, owner: &str) -> Result<Vec<(&str, &Self)>, WrongType> {
        let Self::Object(fields) = self else { return self.default_if_null("an object", owner) };
        Ok(fields.iter().map(|(name, value)| (name.as_str(), value)).collect())
    }

    /// A text. `None` if it is `null`, which leaves an earlier value as it is.
    pub(crate) fn text(&self, owner: &str) -> Result<Option<&str>, WrongType> {
        let Self::Text(text) = self else { return self.default_if_null("a text", owner) };
        Ok(Some(text))
    }

    /// Whether it is `true`. `null` counts as false.
    pub(crate) fn is_true(&self, owner: &str) -> Result<bool, WrongType> {
        let Self::Bool(value) = self else { return self.default_if_null("true or false", owner) };
        Ok(*value)
    }

    /// A list; `null` is an empty one.
    pub(crate) fn list(&self, owner: &str) -> Result<&[Self], WrongType> {
        let Self::List(items) = self else { return self.default_if_null("a list", owner) };
        Ok(items)
    }

    /// A list of texts, in which `null` is an empty one.
    pub(crate) fn texts(&self, owner: &str) -> Result<Vec<String>, WrongType> {
        let items = self.list(owner)?.iter();
        items.map(|item| Ok(item.text(owner)?.unwrap_or_default().to_owned())).collect()
    }

    fn default_if_null<T: Default>(
        &self,
        expected: &'static str,
        field: &str,
    ) -> Result<T, WrongType> {
        let found = match self {
            Self::Null => return Ok(T::default()),
            Self::Bool(_) => "true or false",
            Self::Number => "a number",
            Self::Text(_) => "a text",
            Self::List(_) => "a list",
            Self::Object(_) => "an object",
        };
        Err(WrongType { field: field.to_owned(), found, expected })
    }

    /// The last value that the field `name` is set to, as a text.
    pub(crate) fn text_of(&self, name: &str) -> Result<Option<&str>, WrongType> {
        let mut last = None;
        for value in self.field(name)? {
            last = value.text(name)?.or(last);
        }
        Ok(last)
    }

    /// The last value of the field `name`; `null` where there is none.
    pub(crate) fn last(&self, name: &str) -> Result<&Self, WrongType> {
        Ok(self.field(name)?.pop().unwrap_or(&Self::Null))
    }
}

/// Go compares with simple case folding, which maps two characters outside ASCII to letters: the Kelvin sign and the
/// long s.
fn is_same_name(key: &str, name: &str) -> bool {
    let folded = |letter: char| match letter {
        '\u{212a}' => 'k',
        '\u{17f}' => 's',
        other => other.to_ascii_lowercase(),
    };
    key.chars().map(folded).eq(name.chars().map(folded))
}

/// Half of a surrogate pair alone is not a character. Go replaces it, serde refuses the document.
fn lone_surrogates_replaced(text: &str) -> String {
    let mut replaced = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('\\') {
        let (before, escape) = rest.split_at(at);
        replaced.push_str(before);
        let half = |escape: &str, halves: std::ops::RangeInclusive<u32>| {
            let digits = escape.strip_prefix("\\u").and_then(|digits| digits.get(..4));
            let code = digits.and_then(|digits| u32::from_str_radix(digits, 16).ok());
            code.is_some_and(|code| halves.contains(&code))
        };
        let (high, low) = (0xd800..=0xdbff, 0xdc00..=0xdfff);
        let len = if half(escape, high.clone())
            && half(escape.get(6..).unwrap_or_default(), low.clone())
        {
            12
        } else if half(escape, high) || half(escape, low) {
            replaced.push('\u{fffd}');
            rest = escape.get(6..).unwrap_or_default();
            continue;
        } else {
            // The character after the backslash too: it may be another one.
            1 + escape.chars().nth(1).map_or(0, char::len_utf8)
        };
        let (whole, after) = escape.split_at(len.min(escape.len()));
        replaced.push_str(whole);
        rest = after;
    }
    replaced.push_str(rest);
    replaced
}

impl<'de> Deserialize<'de> for Json {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Any;

        impl<'de> Visitor<'de> for Any {
            type Value = Json;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a value")
            }

            fn visit_unit<E>(self) -> Result<Json, E> {
                Ok(Json::Null)
            }

            fn visit_bool<E>(self, value: bool) -> Result<Json, E> {
                Ok(Json::Bool(value))
            }

            fn visit_u64<E>(self, _: u64) -> Result<Json, E> {
                Ok(Json::Number)
            }

            fn visit_i64<E>(self, _: i64) -> Result<Json, E> {
                Ok(Json::Number)
            }

            fn visit_f64<E>(self, _: f64) -> Result<Json, E> {
                Ok(Json::Number)
            }

            fn visit_str<E>(self, value: &str) -> Result<Json, E> {
                Ok(Json::Text(value.to_owned()))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Json, A::Error> {
                let mut list = Vec::new();
                while let Some(item) = items.next_element()? {
                    list.push(item);
                }
                Ok(Json::List(list))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut items: A) -> Result<Json, A::Error> {
                let mut fields = Vec::new();
                while let Some(field) = items.next_entry()? {
                    fields.push(field);
                }
                Ok(Json::Object(fields))
            }
        }

        deserializer.deserialize_any(Any)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_has_its_name_in_any_case_and_all_its_values() {
        let json =
            Json::parse(br#"{"Cmd":["a"],"cMD":null,"La\u0062el\u017f":{"x":"1"}}"#).unwrap();
        assert_eq!(json.field("cmd").unwrap().len(), 2);
        assert_eq!(json.field("Labels").unwrap().len(), 1);
        assert_eq!(json.field("none").unwrap(), Vec::<&Json>::new());
        assert_eq!(Json::Null.field("x").unwrap(), Vec::<&Json>::new());
        let error = Json::parse(b"[]").unwrap().field("x").unwrap_err();
        assert_eq!(error.to_string(), "it is a list, not an object");
    }

    #[test]
    fn text_that_is_not_unicode_is_replaced() {
        for (bytes, expected) in [
            (&b"\"a\xff\""[..], "a\u{fffd}"),
            (br#""\ud800""#, "\u{fffd}"),
            (br#""\udc00x""#, "\u{fffd}x"),
            (br#""\ud83d\ude00""#, "\u{1f600}"),
            (br#""\\ud800""#, "\\ud800"),
            (br#""\ud800\ud83d\ude00""#, "\u{fffd}\u{1f600}"),
        ] {
            assert_eq!(Json::parse(bytes).unwrap(), Json::Text(expected.to_owned()), "{bytes:?}");
        }
        assert!(Json::parse(b"\"\\").is_err() && Json::parse(br#""\ud8"#).is_err());
        assert!(Json::parse(b"{} x").is_err());
    }

    #[test]
    fn values_have_types() {
        let json = Json::parse(br#"["a",null]"#).unwrap();
        assert_eq!(json.texts("x").unwrap(), ["a", ""]);
        let json = Json::parse(br#"["a",5]"#).unwrap();
        assert_eq!(json.texts("Cmd").unwrap_err().to_string(), "Cmd is a number, not a text");
        assert_eq!(
            Json::Bool(true).text("x").unwrap_err().to_string(),
            "x is true or false, not a text"
        );
        assert_eq!(Json::parse(b"-5").unwrap(), Json::Number);
    }
}

#[cfg(test)]
crate::golden_tests::errors! {
    struct WrongType { field, found, expected };
}
