//! When a letter that did not leave is tried again.

use crate::ambient::{Rng, random_bytes};
use crate::protocol::time::Span;

/// What lies at least between a try and the next one. The second is what greylisting mostly wants, and together they
/// outlast a night without a server.
const PAUSES: [Span; 7] = [
    Span::minutes(1),
    Span::minutes(5),
    Span::minutes(15),
    Span::hours(1),
    Span::hours(3),
    Span::hours(6),
    Span::hours(12),
];

/// How often a letter is tried.
pub const TRIES: i64 = PAUSES.len() as i64 + 1;

/// How long to wait after the `attempt`th try, of which the first is 1; `None` after the last. Up to a fifth is added
/// by chance, so that what failed together does not come back together.
pub fn pause_after(attempt: i64, rng: &dyn Rng) -> Option<Span> {
    let pause = *usize::try_from(attempt.max(1) - 1).ok().and_then(|nth| PAUSES.get(nth))?;
    Some(with_chance(pause, rng))
}

/// `span` and up to a fifth of it.
pub fn with_chance(span: Span, rng: &dyn Rng) -> Span {
    let chance = i64::from(u16::from_be_bytes(random_bytes(rng)));
    Span::from_millis(span.millis() + span.millis() * chance / (5 * i64::from(u16::MAX)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Gives the same byte for ever.
    struct Always(u8);

    impl Rng for Always {
        fn fill(&self, bytes: &mut [u8]) {
            bytes.fill(self.0);
        }
    }

    #[test]
    fn eight_tries_a_minute_to_twelve_hours_apart() {
        for (attempt, least, most) in [
            (1, Some("1m"), Some("72s")),
            (2, Some("5m"), Some("6m")),
            (3, Some("15m"), Some("18m")),
            (4, Some("1h"), Some("72m")),
            (5, Some("3h"), Some("216m")),
            (6, Some("6h"), Some("432m")),
            (7, Some("12h"), Some("864m")),
            (8, None, None),
            (9, None, None),
        ] {
            let shown = |chance| pause_after(attempt, &Always(chance)).map(|pause| pause.to_string());
            let expected = |text: Option<&str>| text.map(|text| text.parse::<Span>().expect("a span").to_string());
            assert_eq!(shown(0), expected(least), "{attempt}");
            assert_eq!(shown(255), expected(most), "{attempt}");
        }
    }
}
