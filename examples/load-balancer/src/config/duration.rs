//! Times as people write them: `500ms`, `2s`, `5m`, `1h`.

use std::time::Duration;

use serde::{Deserialize, Deserializer, Serializer, de::Error};

/// Units by their names, in milliseconds; the longest comes first when a time is written.
const UNITS: [(&str, u64); 4] = [("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)];

pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(from)?;
    parse(&text).ok_or_else(|| {
        D::Error::custom(format!("{text:?} isn't a time: write 500ms, 2s, 5m or 1h"))
    })
}

pub(super) fn serialize<S: Serializer>(time: &Duration, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(&print(*time))
}

/// A time that may be left out.
pub(super) mod optional {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    #[derive(Serialize, Deserialize)]
    struct Written(#[serde(with = "super")] Duration);

    pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Option<Duration>, D::Error> {
        Ok(Option::<Written>::deserialize(from)?.map(|Written(time)| time))
    }

    pub(in super::super) fn serialize<S: Serializer>(
        time: &Option<Duration>,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        time.map(Written).serialize(to)
    }
}

fn parse(text: &str) -> Option<Duration> {
    let unit = text.trim_start_matches(|c: char| c.is_ascii_digit());
    let number: u64 = text[..text.len() - unit.len()].parse().ok()?;
    let (_, milliseconds) = UNITS.iter().find(|(name, _)| *name == unit)?;
    number.checked_mul(*milliseconds).map(Duration::from_millis)
}

/// In the longest unit that needs no fraction.
pub(super) fn print(time: Duration) -> String {
    let all = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    let fits = |(_, unit): &&(&str, u64)| all > 0 && all.is_multiple_of(*unit);
    let (name, unit) = UNITS.iter().find(fits).unwrap_or(&UNITS[3]);
    format!("{}{name}", all / unit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_and_written() {
        for (text, milliseconds) in
            [("500ms", 500), ("2s", 2000), ("90s", 90_000), ("1h", 3_600_000)]
        {
            assert_eq!(parse(text), Some(Duration::from_millis(milliseconds)), "{text}");
            assert_eq!(print(Duration::from_millis(milliseconds)), text);
        }
        assert_eq!(print(Duration::ZERO), "0ms");
        for text in
            ["", "2", "s", "-1s", "1.5s", "2 s", "99999999999999999999s", "9999999999999999h"]
        {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
