//! Labels, as the engine's API and its store have them.

use crate::model::extension::claim::Claims;
use crate::model::extension::role::CLASS;
use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use std::collections::BTreeMap;
use std::fmt;

/// The one class of extensions.
pub(crate) const OVERLAY: &str = "overlay";

/// Labels whose names begin with this are kept.
const PREFIX: &str = "io.balena.";

/// The labels of an object, those of balena alone.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Labels(Vec<(String, String)>);

impl Labels {
    pub(crate) fn value(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(label, _)| label == name).map(|(_, text)| text.as_str())
    }

    pub(crate) fn is_extension(&self) -> bool {
        self.value(CLASS) == Some(OVERLAY)
    }

    pub(crate) fn claims(&self) -> Claims<'_> {
        Claims::of(|name| self.value(name))
    }

    pub(crate) fn to_map(&self) -> BTreeMap<String, String> {
        self.0.iter().cloned().collect()
    }
}

/// Labels as the API has them: an object of strings. Null, and what is no object at all, are none; a
/// value that is no text is left out, because nothing may be concluded from it.
impl<'de> Deserialize<'de> for Labels {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Any;
        impl<'de> Visitor<'de> for Any {
            type Value = Labels;
            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("labels")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Labels, A::Error> {
                // Of two with one name the last counts, as for other readers of JSON.
                let mut labels = BTreeMap::new();
                while let Some(name) = map.next_key::<String>()? {
                    let text: Text = map.next_value()?;
                    if name.starts_with(PREFIX) {
                        labels.insert(name, text.0);
                    }
                }
                let labels = labels.into_iter().filter_map(|(name, text)| Some((name, text?)));
                Ok(Labels(labels.collect()))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Labels, A::Error> {
                while list.next_element::<IgnoredAny>()?.is_some() {}
                Ok(Labels::default())
            }
            fn visit_unit<E>(self) -> Result<Labels, E> {
                Ok(Labels::default())
            }
            fn visit_bool<E>(self, _: bool) -> Result<Labels, E> {
                Ok(Labels::default())
            }
            fn visit_i64<E>(self, _: i64) -> Result<Labels, E> {
                Ok(Labels::default())
            }
            fn visit_u64<E>(self, _: u64) -> Result<Labels, E> {
                Ok(Labels::default())
            }
            fn visit_f64<E>(self, _: f64) -> Result<Labels, E> {
                Ok(Labels::default())
            }
            fn visit_str<E>(self, _: &str) -> Result<Labels, E> {
                Ok(Labels::default())
            }
        }
        deserializer.deserialize_any(Any)
    }
}

/// A text, or none for anything else.
#[derive(Default)]
struct Text(Option<String>);

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Odd {
            Text(String),
            Other(IgnoredAny),
        }
        Ok(Self(match Odd::deserialize(deserializer)? {
            Odd::Text(text) => Some(text),
            Odd::Other(_) => None,
        }))
    }
}
