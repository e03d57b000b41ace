//! What flags take.

use clap::builder::{OsStringValueParser, PossibleValuesParser, TypedValueParser};
use magic_merge::methods::METHODS;

/// Heading of flags that replace files or let pass what is refused without them.
pub(super) const DANGEROUS: &str = "Dangerous";

/// Text that goes into recipes and reports, which are UTF-8.
pub(super) fn utf8() -> impl TypedValueParser<Value = String> {
    OsStringValueParser::new().try_map(|text| text.into_string().map_err(|_| "it is not valid UTF-8"))
}

pub(super) fn words(words: &'static [&'static str]) -> PossibleValuesParser {
    PossibleValuesParser::new(words)
}

pub(super) fn method() -> PossibleValuesParser {
    PossibleValuesParser::new(METHODS.iter().map(|method| method.name))
}

/// `64MB`, `5GB`, `512KiB`, `1.5G` or plain bytes; `K`, `M` and `G` are powers of ten, `Ki`, `Mi` and `Gi` of two.
pub(super) fn size(text: &str) -> Result<u64, &'static str> {
    text.parse()
        .map(|size: bytesize::ByteSize| size.as_u64())
        .map_err(|_| "a size is a number and a unit, such as 64MB")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        let read = |text| size(text).ok();
        assert_eq!(read("64MB"), Some(64_000_000));
        assert_eq!(read("5GB"), Some(5_000_000_000));
        assert_eq!(read("512KiB"), Some(512 << 10));
        assert_eq!(read("1.5GB"), Some(1_500_000_000));
        assert_eq!(read("2 gib"), Some(2 << 30));
        assert_eq!([read("7"), read("7B"), read("7K"), read("7M"), read("7G")].map(Option::unwrap), {
            [7, 7, 7_000, 7_000_000, 7_000_000_000]
        });
        assert_eq!([read(""), read("GB"), read("-1GB"), read("5XB"), read("1e3"), read("1.2.3")], [None; 6]);
    }
}
