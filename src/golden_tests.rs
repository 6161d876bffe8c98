//! The golden test of error texts: one value of every variant of every error is constructed and compared
//! with `tests/golden/errors/`, a file for each source file, so that each change of a text is seen and meant.
//!
//! `errors!` stands at the end of the file that defines the error, and does not compile while a variant is
//! missing. After a change: `WRITE_GOLDEN=1 cargo test --lib golden_errors`, and look at the difference.

use std::ffi::OsString;
use std::fmt::Write as _;
use std::io;
use std::path::{Path, PathBuf};

/// A value for a field of an error: where text can say so, the field's name in capitals.
pub(crate) trait Sample {
    fn sample(field: &str) -> Self;
}

impl Sample for String {
    fn sample(field: &str) -> Self {
        field.to_ascii_uppercase()
    }
}

impl Sample for &'static str {
    fn sample(field: &str) -> Self {
        String::sample(field).leak()
    }
}

impl Sample for PathBuf {
    fn sample(field: &str) -> Self {
        Path::new("/").join(String::sample(field))
    }
}

impl Sample for OsString {
    fn sample(field: &str) -> Self {
        String::sample(field).into()
    }
}

impl Sample for crate::model::kernel::abi::Abi {
    fn sample(_: &str) -> Self {
        Self::parse(&"a".repeat(64)).unwrap()
    }
}

impl Sample for char {
    fn sample(_: &str) -> Self {
        'x'
    }
}

impl Sample for io::Error {
    fn sample(field: &str) -> Self {
        Self::other(String::sample(field))
    }
}

impl Sample for serde_json::Error {
    fn sample(field: &str) -> Self {
        serde::de::Error::custom(String::sample(field))
    }
}

impl Sample for Box<dyn std::error::Error> {
    fn sample(field: &str) -> Self {
        String::sample(field).into()
    }
}

impl<T: Sample> Sample for Option<T> {
    fn sample(field: &str) -> Self {
        Some(T::sample(field))
    }
}

impl<T: Sample> Sample for Vec<T> {
    fn sample(field: &str) -> Self {
        vec![T::sample(field), T::sample(field)]
    }
}

impl<T: Sample> Sample for Box<T> {
    fn sample(field: &str) -> Self {
        Self::new(T::sample(field))
    }
}

macro_rules! numbers {
    ($($number:ty)*) => {
        $(impl Sample for $number {
            fn sample(_: &str) -> Self {
                7_u8.into()
            }
        })*
    };
}

numbers! { i32 i64 u8 u16 u32 u64 f32 usize }

/// Lists every error that a file defines, with its variants and their fields. `field = value` where a
/// [`Sample`] does not do; `(..)` for a transparent variant, whose text is another error's.
macro_rules! errors {
    ($kind:ident $($items:tt)*) => {
        mod golden_errors {
            #[allow(unused_imports, reason = "not every file needs every name")]
            use super::*;
            #[allow(unused_imports, reason = "not every file needs every name")]
            use crate::golden_tests::{self, Sample, errors, sample};

            #[test]
            #[allow(clippy::vec_init_then_push, reason = "a macro cannot know how many there are")]
            fn are_as_recorded() {
                let mut lines = Vec::new();
                errors!(@lines lines $kind $($items)*);
                golden_tests::compare(module_path!(), lines);
            }

            errors!(@samples $kind $($items)*);
        }
    };

    (@lines $lines:ident enum $name:ident { $($body:tt)* } $($rest:tt)*) => {
        errors!(@variants $lines $name { $($body)* });
        errors!(@lines $lines $($rest)*);
    };
    (@lines $lines:ident struct $name:ident $({ $($field:ident $(= $value:expr)?),* })?; $($rest:tt)*) => {
        let value = $name $({ $($field: errors!(@value $field $(= $value)?)),* })?;
        $lines.push(golden_tests::line(stringify!($name), &value));
        errors!(@lines $lines $($rest)*);
    };
    (@lines $lines:ident) => {};

    (@variants $lines:ident $name:ident {
        $($variant:ident $({ $($field:ident $(= $value:expr)?),* })? $(($($one:tt)*))?),* $(,)?
    }) => {
        $($lines.push(errors!(@line $name $variant $({ $($field $(= $value)?),* })? $(($($one)*))?));)*
        // Does not compile while a variant is missing above.
        const _: fn(&$name) = |error| match error { $($name::$variant { .. } => {})* };
    };

    (@line $name:ident $variant:ident (..)) => {
        format!("{}::{}: the text of its source", stringify!($name), stringify!($variant))
    };
    (@line $name:ident $variant:ident $($fields:tt)?) => {
        golden_tests::line(
            concat!(stringify!($name), "::", stringify!($variant)),
            &errors!(@construct $name $variant $($fields)?),
        )
    };

    (@construct $name:ident $variant:ident) => { $name::$variant };
    (@construct $name:ident $variant:ident { $($field:ident $(= $value:expr)?),* }) => {
        $name::$variant { $($field: errors!(@value $field $(= $value)?)),* }
    };
    (@construct $name:ident $variant:ident (..)) => { $name::$variant(sample("value")) };
    (@construct $name:ident $variant:ident (_)) => { $name::$variant(sample("value")) };
    (@construct $name:ident $variant:ident ($value:expr)) => { $name::$variant($value) };

    (@value $field:ident) => { sample(stringify!($field)) };
    (@value $field:ident = $value:expr) => { $value };

    (@samples enum $name:ident { $first:ident $({ $($field:tt)* })? $(($($one:tt)*))? $(, $($more:tt)*)? } $($rest:tt)*) => {
        impl Sample for $name {
            fn sample(_: &str) -> Self {
                errors!(@construct $name $first $({ $($field)* })? $(($($one)*))?)
            }
        }
        errors!(@samples $($rest)*);
    };
    (@samples struct $name:ident $({ $($field:ident $(= $value:expr)?),* })?; $($rest:tt)*) => {
        impl Sample for $name {
            fn sample(_: &str) -> Self {
                $name $({ $($field: errors!(@value $field $(= $value)?)),* })?
            }
        }
        errors!(@samples $($rest)*);
    };
    (@samples) => {};
}

pub(crate) use errors;

pub(crate) fn sample<T: Sample>(field: &str) -> T {
    T::sample(field)
}

/// The text of `error` itself; its causes have lines of their own.
pub(crate) fn line(name: &str, error: &dyn std::error::Error) -> String {
    let more = if error.source().is_some() { ": …" } else { "" };
    format!("{name}: {error}{more}")
}

/// Compares the errors of the file that has the module `path`, or writes them down.
#[expect(clippy::disallowed_methods, reason = "a test owns the files it writes")]
pub(crate) fn compare(path: &str, lines: Vec<String>) {
    let inside = path.split("::").skip(1).collect::<Vec<_>>();
    let file = inside.join("/").replace("/golden_errors", ".txt");
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/errors").join(file);
    let mut found = String::new();
    for line in lines {
        writeln!(found, "{line}").unwrap();
    }
    if std::env::var_os("WRITE_GOLDEN").is_some() {
        std::fs::create_dir_all(golden.parent().unwrap()).unwrap();
        std::fs::write(&golden, found).unwrap();
    } else {
        let recorded = std::fs::read_to_string(&golden).unwrap_or_default();
        assert!(
            found == recorded,
            "{golden:?} differs; if it is meant: WRITE_GOLDEN=1 cargo test --lib golden_errors\n\
             recorded:\n{recorded}\nfound:\n{found}"
        );
    }
}
