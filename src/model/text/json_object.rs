//! Structures that are read only from JSON objects. The code that serde derives also accepts an array and assigns its
//! elements to the fields by position, which no specification allows.

/// Reads types that derive `Deserialize` with `#[serde(remote = "Self")]` from objects, and refuses arrays. Types after
/// `written:` also derive `Serialize`.
macro_rules! only_objects {
    ($($name:ident),* $(; written: $($written:ident),*)?) => {
        $(only_objects!(@read $name);)*
        $($(
            only_objects!(@read $written);

            impl serde::Serialize for $written {
                fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                    // The derived one, which is no method of the trait.
                    <$written>::serialize(self, serializer)
                }
            }
        )*)?
    };
    (@read $name:ident) => {
        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct Fields;

                impl<'de> serde::de::Visitor<'de> for Fields {
                    type Value = $name;

                    fn expecting(
                        &self,
                        formatter: &mut std::fmt::Formatter<'_>,
                    ) -> std::fmt::Result {
                        formatter.write_str("an object")
                    }

                    fn visit_map<A: serde::de::MapAccess<'de>>(
                        self,
                        map: A,
                    ) -> Result<$name, A::Error> {
                        <$name>::deserialize(serde::de::value::MapAccessDeserializer::new(map))
                    }
                }

                deserializer.deserialize_map(Fields)
            }
        }
    };
}
pub(crate) use only_objects;

#[cfg(test)]
mod tests {
    #[derive(Debug, PartialEq, serde::Serialize, serde::Deserialize)]
    #[serde(remote = "Self")]
    struct Outer {
        number: u8,
        #[serde(default)]
        inner: Option<Inner>,
        #[serde(default)]
        list: Vec<Inner>,
    }

    #[derive(Debug, PartialEq, serde::Serialize, serde::Deserialize)]
    #[serde(remote = "Self")]
    struct Inner {
        number: u8,
    }

    only_objects!(; written: Outer, Inner);

    #[test]
    fn objects_are_read_and_written_and_arrays_refused_at_every_depth() {
        let text = r#"{"number":1,"inner":{"number":2},"list":[{"number":3}]}"#;
        let outer: Outer = serde_json::from_str(text).unwrap();
        let inner = |number| Inner { number };
        assert_eq!(outer, Outer { number: 1, inner: Some(inner(2)), list: vec![inner(3)] });
        assert_eq!(serde_json::to_string(&outer).unwrap(), text);
        for text in
            ["[1]", r#"{"number":1,"inner":[2]}"#, r#"{"number":1,"list":[[3]]}"#, "[1,null,[]]"]
        {
            let error = serde_json::from_str::<Outer>(text).unwrap_err().to_string();
            assert!(
                error.contains("invalid type: sequence, expected an object at line 1"),
                "{error}"
            );
        }
    }
}
