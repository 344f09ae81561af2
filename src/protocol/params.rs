//! Request parameters in the form `application/x-www-form-urlencoded` (RFC 6749 §3.1, §3.2, appendix B): ordered,
//! a parameter without a value counts as absent, and one that is sent twice is remembered, because the
//! specification forbids it and only the endpoint knows how to say so.

use std::collections::HashSet;
use std::fmt;

use url::form_urlencoded;

/// Parameters that may be repeated: RFC 8707 §2, RFC 8693 §2.1.
const REPEATABLE: [&str; 2] = ["resource", "audience"];

/// Decoded parameters in the order in which they came.
#[derive(Clone, PartialEq, Eq)]
pub struct Params {
    pairs: Vec<(String, String)>,
    repeated: Option<String>,
}

/// Names only: values are codes, passwords and tokens.
impl fmt::Debug for Params {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.pairs.iter().map(|(name, _)| name)).finish()
    }
}

/// A text that cannot be parameters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MalformedParams {
    NotUtf8,
    /// U+0000 is refused in every string: PostgreSQL cannot store it.
    Nul,
}

impl MalformedParams {
    pub const fn description(self) -> &'static str {
        match self {
            Self::NotUtf8 => "the parameters are not UTF-8",
            Self::Nul => "a parameter contains U+0000",
        }
    }
}

impl Params {
    /// `encoded` is a query string without `?`, or a form body.
    pub fn parse(encoded: &[u8]) -> Result<Self, MalformedParams> {
        let pairs: Vec<(String, String)> = form_urlencoded::parse(encoded)
            .filter(|(_, value)| !value.is_empty())
            .map(|(name, value)| (name.into_owned(), value.into_owned()))
            .collect();
        // The decoder replaces what is not UTF-8, so that is how such input shows itself.
        for text in pairs.iter().flat_map(|(name, value)| [name, value]) {
            if text.contains(char::REPLACEMENT_CHARACTER) {
                return Err(MalformedParams::NotUtf8);
            }
            if text.contains('\0') {
                return Err(MalformedParams::Nul);
            }
        }
        let mut seen = HashSet::new();
        let mut again = pairs.iter().filter(|(name, _)| !seen.insert(name) && !REPEATABLE.contains(&name.as_str()));
        let repeated = again.next().map(|(name, _)| name.clone());
        Ok(Self { pairs, repeated })
    }

    /// The first value of `name`; `None` where it is absent or empty.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.all(name).next()
    }

    pub fn all<'a, 'n>(&'a self, name: &'n str) -> impl Iterator<Item = &'a str> + use<'a, 'n> {
        self.pairs.iter().filter(move |(own, _)| own == name).map(|(_, value)| value.as_str())
    }

    /// The `resource` parameters (RFC 8707 §2), each once.
    pub fn resources(&self) -> Vec<String> {
        let mut resources: Vec<String> = Vec::new();
        for uri in self.all("resource") {
            if !resources.iter().any(|known| known == uri) {
                resources.push(uri.to_owned());
            }
        }
        resources
    }

    /// The first parameter that was sent more than once though it must not be (RFC 6749 §3.1).
    pub fn repeated(&self) -> Option<&str> {
        self.repeated.as_deref()
    }

    pub fn is_repeated(&self, name: &str) -> bool {
        self.all(name).nth(1).is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_decode_and_empty_ones_are_absent() {
        let params = Params::parse(b"a=1+2&b=%C3%A9&c=&d&e=%2B").unwrap();
        assert_eq!(params.get("a"), Some("1 2"));
        assert_eq!(params.get("b"), Some("é"));
        assert_eq!(params.get("c"), None);
        assert_eq!(params.get("d"), None);
        assert_eq!(params.get("e"), Some("+"));
    }

    #[test]
    fn a_parameter_sent_twice_is_noticed_except_resource() {
        for (text, repeated) in [
            ("a=1&b=2", None),
            ("a=1&b=2&a=1", Some("a")),
            ("a=&a=1", None),
            ("resource=https%3A%2F%2Fa&resource=https%3A%2F%2Fb", None),
            ("%61=1&a=2", Some("a")),
        ] {
            assert_eq!(Params::parse(text.as_bytes()).unwrap().repeated(), repeated, "{text}");
        }
    }

    #[test]
    fn what_is_not_text_is_refused() {
        assert_eq!(Params::parse(b"a=%FF"), Err(MalformedParams::NotUtf8));
        assert_eq!(Params::parse(b"a\xff=1"), Err(MalformedParams::NotUtf8));
        assert_eq!(Params::parse(b"a=%00"), Err(MalformedParams::Nul));
    }

    #[test]
    fn debug_shows_names_only() {
        let text = format!("{:?}", Params::parse(b"client_secret=hunter2").unwrap());
        assert!(text.contains("client_secret") && !text.contains("hunter2"), "{text}");
    }
}
