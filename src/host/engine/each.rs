//! A JSON list, item by item.

use serde::de::{DeserializeOwned, Deserializer as _, SeqAccess, Visitor};
use std::fmt;
use std::io::Read;
use std::marker::PhantomData;

/// Hands on every item of the list that `reader` has. `null` is an empty list, as Go writes it.
///
/// # Errors
/// The reader's, and line and column of what is no such list.
pub(super) fn each<T: DeserializeOwned>(
    reader: impl Read,
    item: impl FnMut(T),
) -> serde_json::Result<()> {
    let mut json = serde_json::Deserializer::from_reader(reader);
    json.deserialize_any(Each { item, kind: PhantomData })?;
    json.end()
}

struct Each<T, F> {
    item: F,
    kind: PhantomData<T>,
}

impl<'de, T: DeserializeOwned, F: FnMut(T)> Visitor<'de> for Each<T, F> {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a list")
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut list: A) -> Result<(), A::Error> {
        while let Some(item) = list.next_element()? {
            (self.item)(item);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> serde_json::Result<Vec<u32>> {
        let mut items = Vec::new();
        each(text.as_bytes(), |item| items.push(item))?;
        Ok(items)
    }

    #[test]
    fn items_arrive_in_order_and_null_is_an_empty_list() {
        assert_eq!(read("[1, 2,3]\n").unwrap(), [1, 2, 3]);
        assert!(read("[]").unwrap().is_empty());
        assert!(read("null").unwrap().is_empty());
        for text in ["", "[1", "[1,\"x\"]", "{}", "[1] x", "1"] {
            assert!(read(text).is_err(), "{text}");
        }
    }
}
