//! Points and lengths of time as plain numbers. Nothing here reads a clock: `now` is always an argument
//! (`crate::ambient` owns the clock).

use std::fmt;
use std::ops::{Add, Sub};
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Milliseconds since 1970-01-01T00:00:00Z.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Timestamp(pub i64);

impl Timestamp {
    pub const fn from_millis(millis: i64) -> Self {
        Self(millis)
    }

    pub const fn millis(self) -> i64 {
        self.0
    }

    /// As the JSON API and the command line write times (RFC 3339), in UTC.
    pub fn rfc3339(self) -> String {
        use time::format_description::well_known::Rfc3339;
        let at = time::OffsetDateTime::from_unix_timestamp_nanos(i128::from(self.0) * 1_000_000).ok();
        at.and_then(|at| at.format(&Rfc3339).ok()).unwrap_or_else(|| self.0.to_string())
    }

    /// A JWT `NumericDate` (RFC 7519 §2): whole seconds, rounded down.
    pub const fn numeric_date(self) -> i64 {
        self.0.div_euclid(1000)
    }
}

/// A text that is no RFC 3339 time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotATime;

impl FromStr for Timestamp {
    type Err = NotATime;

    fn from_str(text: &str) -> Result<Self, NotATime> {
        use time::format_description::well_known::Rfc3339;
        let at = time::OffsetDateTime::parse(text, &Rfc3339).map_err(|_| NotATime)?;
        i64::try_from(at.unix_timestamp_nanos().div_euclid(1_000_000)).map(Self).map_err(|_| NotATime)
    }
}

impl Add<Span> for Timestamp {
    type Output = Self;
    fn add(self, span: Span) -> Self {
        Self(self.0.saturating_add(span.0))
    }
}

impl Sub<Span> for Timestamp {
    type Output = Self;
    fn sub(self, span: Span) -> Self {
        Self(self.0.saturating_sub(span.0))
    }
}

impl Sub for Timestamp {
    type Output = Span;
    fn sub(self, earlier: Self) -> Span {
        Span(self.0.saturating_sub(earlier.0))
    }
}

/// A length of time in milliseconds, written `250ms`, `60s`, `15m`, `12h` or `30d` wherever a person writes it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Span(i64);

impl Span {
    pub const ZERO: Self = Self(0);

    pub const fn from_millis(millis: i64) -> Self {
        Self(millis)
    }

    pub const fn from_secs(seconds: i64) -> Self {
        Self(seconds.saturating_mul(1000))
    }

    pub const fn minutes(minutes: i64) -> Self {
        Self::from_secs(minutes.saturating_mul(60))
    }

    pub const fn hours(hours: i64) -> Self {
        Self::minutes(hours.saturating_mul(60))
    }

    pub const fn days(days: i64) -> Self {
        Self::hours(days.saturating_mul(24))
    }

    pub const fn millis(self) -> i64 {
        self.0
    }

    /// What clocks that only go forward measure; nothing where this is less.
    pub fn to_std(self) -> Duration {
        Duration::from_millis(u64::try_from(self.0).unwrap_or_default())
    }

    /// Whole seconds, rounded down: what `expires_in` carries (RFC 6749 §5.1).
    pub const fn secs(self) -> i64 {
        self.0.div_euclid(1000)
    }

    /// Whole seconds, rounded up: what `Retry-After` carries, so that a client that waits so long is let in.
    pub const fn secs_up(self) -> i64 {
        -((-self.0).div_euclid(1000))
    }
}

impl Add for Span {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }
}

impl Sub for Span {
    type Output = Self;
    fn sub(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }
}

/// Largest unit first, so that `Display` finds the one that divides evenly.
const UNITS: [(&str, i64); 5] = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)];

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 == 0 {
            return f.write_str("0s");
        }
        for (unit, size) in UNITS {
            if self.0 % size == 0 {
                return write!(f, "{}{unit}", self.0 / size);
            }
        }
        Ok(())
    }
}

/// Why a text is not a [`Span`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpanError(String);

impl fmt::Display for SpanError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` is not a duration; write a whole number and a unit, like 90s, 15m, 12h or 30d", self.0)
    }
}

impl std::error::Error for SpanError {}

impl FromStr for Span {
    type Err = SpanError;

    fn from_str(text: &str) -> Result<Self, SpanError> {
        let wrong = || SpanError(text.chars().take(40).collect());
        let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        let (number, unit) = text.split_at(digits);
        let number: i64 = number.parse().map_err(|_| wrong())?;
        let (_, size) = UNITS.iter().find(|(name, _)| *name == unit).ok_or_else(wrong)?;
        number.checked_mul(*size).map(Self).ok_or_else(wrong)
    }
}

impl Serialize for Span {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_parse_as_people_write_them() {
        for (text, expected) in [
            ("250ms", Some(250)),
            ("60s", Some(60_000)),
            ("15m", Some(900_000)),
            ("12h", Some(43_200_000)),
            ("30d", Some(2_592_000_000)),
            ("0s", Some(0)),
            ("", None),
            ("15", None),
            ("m", None),
            ("-5m", None),
            ("1.5h", None),
            ("15 m", None),
            ("15M", None),
            ("99999999999999999d", None),
        ] {
            assert_eq!(text.parse::<Span>().ok().map(Span::millis), expected, "{text}");
        }
    }

    #[test]
    fn spans_print_in_the_largest_unit_that_divides_them() {
        for text in ["250ms", "90s", "15m", "36h", "30d", "0s"] {
            assert_eq!(text.parse::<Span>().map(|span| span.to_string()).as_deref(), Ok(text));
        }
    }

    #[test]
    fn times_parse_as_they_are_written() {
        for (text, expected) in [
            ("2027-01-15T08:00:00Z", Some(1_800_000_000_000)),
            ("2027-01-15T08:00:00.25Z", Some(1_800_000_000_250)),
            ("2027-01-15T09:30:00+01:30", Some(1_800_000_000_000)),
            ("1969-12-31T23:59:59.999Z", Some(-1)),
            ("2027-01-15", None),
            ("2027-01-15T08:00:00", None),
            ("yesterday", None),
            ("", None),
        ] {
            assert_eq!(text.parse::<Timestamp>().ok().map(Timestamp::millis), expected, "{text}");
        }
        assert_eq!(Timestamp(1_800_000_000_250).rfc3339().parse(), Ok(Timestamp(1_800_000_000_250)));
    }

    #[test]
    fn numeric_dates_round_down_and_retry_after_rounds_up() {
        assert_eq!(Timestamp(1999).numeric_date(), 1);
        assert_eq!(Timestamp(-1).numeric_date(), -1);
        assert_eq!(Span(1001).secs_up(), 2);
        assert_eq!(Span(1000).secs_up(), 1);
        assert_eq!(Span(0).secs_up(), 0);
    }
}
