//! Reads a JSON list item by item, each as its own text: an item that cannot be parsed does not hide the others.

use serde::de::{Deserializer as _, SeqAccess, Visitor};
use serde_json::value::RawValue;
use std::fmt;
use std::io::Read;

/// Passes on every item of the list that `reader` has. `null` is an empty list, as Go writes it.
pub(super) fn each(reader: impl Read, item: impl FnMut(&RawValue)) -> serde_json::Result<()> {
    let mut json = serde_json::Deserializer::from_reader(reader);
    json.deserialize_any(PassOn(item))?;
    json.end()
}

struct PassOn<F>(F);

impl<'de, F: FnMut(&RawValue)> Visitor<'de> for PassOn<F> {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a list")
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut list: A) -> Result<(), A::Error> {
        while let Some(item) = list.next_element::<Box<RawValue>>()? {
            (self.0)(&item);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> serde_json::Result<Vec<String>> {
        let mut items = Vec::new();
        each(text.as_bytes(), |item| items.push(item.get().to_owned()))?;
        Ok(items)
    }

    #[test]
    fn items_arrive_in_order_and_null_is_an_empty_list() {
        assert_eq!(read("[1, {\"a\":[]},null]\n").unwrap(), ["1", "{\"a\":[]}", "null"]);
        assert!(read("[]").unwrap().is_empty());
        assert!(read("null").unwrap().is_empty());
        for text in ["", "[1", "[1,x]", "{}", "[1] x", "1"] {
            assert!(read(text).is_err(), "{text}");
        }
    }
}
