//! The catalogue of attacks: a test bears the numbers of the cases that it shows (`attack_39_…`, `attacks_20_to_23_…`)
//! and has the same thing done rightly beside them. All of them run on both databases. Cases of endpoints that do not
//! exist yet come with those; what another site may try in a real browser stands in `tests/browser/attacks.test.mjs`.

mod api_keys;
mod authorize;
mod code;
mod discovery;
mod first_party;
mod guessing;
mod hashing;
mod introspection;
mod jwt;
pub mod leakage;
mod limits;
mod login;
mod logout;
mod partner;
mod pkce;
pub mod races;
mod redirect_uri;
mod refresh;
mod token;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use crate::support::Page;

/// Everything of an answer but what names the request.
fn without_request_id(page: &Page) -> (u16, String, Vec<(String, String)>) {
    let id = page.header("x-request-id").unwrap_or_default().to_owned();
    let headers = page.headers.iter().filter(|(name, _)| *name != "x-request-id");
    let headers = headers.map(|(name, value)| (name.to_string(), value.to_str().unwrap_or_default().to_owned()));
    (page.status.as_u16(), page.body.replace(&id, ""), headers.collect())
}

/// Cases that must have a test, in a few words each.
const CASES: &[(u32, &str)] = &[
    // The authorization endpoint.
    (1, "an unknown or disabled client"),
    (2, "a parameter that comes twice"),
    (3, "a response type that we do not have"),
    (5, "a silent request without a session or consent"),
    (6, "prompt=none beside another"),
    (7, "walking around a fresh sign-in"),
    (8, "a max_age that is no number"),
    (10, "request objects, and fetching them"),
    (11, "scopes that are not registered"),
    (12, "the consent page of another browser"),
    (13, "consent given twice or too late"),
    (14, "a consent form that asks for more"),
    (15, "foreign text on our pages"),
    (16, "response modes that we do not have"),
    (17, "what was typed travels on"),
    (18, "answers without iss"),
    (19, "a state that breaks out of the answer"),
    // redirect_uri.
    (20, "a prefix or suffix of a registered address"),
    (21, "another spelling of it"),
    (22, "another host hidden in it"),
    (23, "a fragment behind it"),
    (25, "what only resembles a loopback address"),
    (26, "schemes that browsers run"),
    (27, "none at all where there are several"),
    (28, "another one at the token endpoint"),
    (30, "errors as an open redirect"),
    // PKCE.
    (31, "a public client without it"),
    (32, "a challenge without a verifier"),
    (33, "a verifier without a challenge"),
    (34, "plain"),
    (35, "a wrong verifier"),
    (36, "verifiers and challenges of the wrong form"),
    // The code.
    (38, "used twice"),
    (39, "used fifty times at once"),
    (40, "used by another client"),
    (41, "used too late, by any clock"),
    (42, "something else in its place"),
    (44, "its person disabled or deleted"),
    (45, "its session over"),
    // The token endpoint.
    (46, "requests that are no forms"),
    (47, "a secret in the URL"),
    (48, "authentication in two ways at once"),
    (49, "a confidential client without its secret"),
    (50, "a header that cannot be read"),
    (51, "another method than the registered one"),
    (52, "grants that we do not have"),
    (53, "grants that the client may not use"),
    (54, "a client that wants to be a person"),
    (55, "a disabled client"),
    (56, "resources widened later"),
    (57, "secrets of others, and old ones"),
    (58, "parameters that mean nothing"),
    // JWTs.
    (59, "no signature"),
    (60, "a public key as the key of a MAC"),
    (61, "keys brought along or fetched"),
    (63, "critical headers and other serializations"),
    (71, "private members of published keys"),
    // Refresh tokens.
    (72, "reused after the window"),
    (73, "used fifty times at once"),
    (74, "used while they are revoked"),
    (76, "used by another client"),
    (77, "something else in their place"),
    (79, "their person disabled, deleted or with a new password"),
    (80, "longer life by rotation"),
    (81, "used up by an attempt that failed"),
    (82, "two generations old within the window"),
    // Exchanging a key for tokens.
    (90, "for a resource that the key is not for"),
    (91, "for more than the key has"),
    (93, "of keys that do not count, and of tokens"),
    (94, "to be somebody else"),
    (95, "by a public client"),
    // API keys.
    (97, "of somebody else"),
    (98, "that make themselves more"),
    (99, "that ended, and what they are told"),
    (101, "shown twice"),
    (102, "as a secret, and those of partners"),
    (103, "guessed"),
    // Introspection, revocation, UserInfo.
    (104, "introspection by nobody"),
    (105, "introspection of what is none of one's business"),
    (106, "life after revocation"),
    (108, "revocation of the unknown, or with a wrong hint"),
    (109, "tokens of the wrong kind or in the wrong place"),
    (110, "reads from other origins, or by cookie"),
    // Discovery, issuer, host.
    (117, "headers that change who we say we are"),
    (120, "more advertised than there is"),
    // Signing in, sessions, cookies.
    (121, "a planted session"),
    (122, "a sign-in link of somebody else"),
    (123, "forms without our token, or from other sites"),
    (124, "bodies that are no forms"),
    (125, "frames"),
    (126, "cookies without protection, or twice"),
    (129, "an account that makes itself more"),
    // Signing out.
    (146, "a way back that is not registered or not proven"),
    (147, "signing out somebody else"),
    // Guessing, floods, and what every answer bears.
    (148, "a sixth try"),
    (149, "another address for the same network"),
    (150, "another door, many names, many networks, another process"),
    (151, "what it costs to know whether there is somebody"),
    (154, "a flood of passwords"),
    (155, "answers without headers that protect them"),
    (156, "reads from other origins"),
    // What is stored.
    (157, "secrets in the database"),
    // Partners.
    (158, "what belongs to another partner"),
    (160, "a link that is changed or used again"),
];

/// The numbers in the name of a test: `attack_1_…`, `attacks_1_and_2_…`, `attacks_1_to_4_…`.
fn numbers(name: &str) -> Vec<u32> {
    let words: Vec<&str> = name.split('_').collect();
    let number = |at: usize| words.get(at).and_then(|word| word.parse::<u32>().ok());
    match (words.first(), number(1), words.get(2), number(3)) {
        (Some(&"attack"), Some(one), _, _) => vec![one],
        (Some(&"attacks"), Some(first), Some(&"to"), Some(last)) => (first..=last).collect(),
        (Some(&"attacks"), Some(first), Some(&"and"), Some(second)) => vec![first, second],
        _ => Vec::new(),
    }
}

/// The names of the functions in a text that run on both databases.
fn functions(text: &str) -> impl Iterator<Item = &str> {
    let heads = text.lines().filter_map(|line| line.strip_prefix("    async fn "));
    heads.filter_map(|head| head.strip_suffix("(provider: Provider) {"))
}

#[test]
fn every_case_has_a_test() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/attacks");
    let mut shown = BTreeSet::new();
    for entry in fs::read_dir(dir).expect("a directory") {
        let text = fs::read_to_string(entry.expect("an entry").path()).expect("a file");
        shown.extend(functions(&text).flat_map(numbers));
    }
    let missing: Vec<_> = CASES.iter().filter(|(number, _)| !shown.contains(number)).collect();
    assert!(missing.is_empty(), "no test bears the number of: {missing:#?}");
}

#[test]
fn numbers_are_read_from_names() {
    for (name, expected) in [
        ("attack_39_fifty_at_once", &[39][..]),
        ("attack_07_a_fresh_sign_in", &[7]),
        ("attacks_52_and_53_grants", &[52, 53]),
        ("attacks_20_to_23_addresses", &[20, 21, 22, 23]),
        ("a_test_of_39_things", &[]),
        ("attack_of_39", &[]),
    ] {
        assert_eq!(numbers(name), expected, "{name}");
    }
    let text =
        "    async fn a(provider: Provider) {\n    async fn b() {\n    // async fn c(provider: Provider) {\nfn d() {";
    assert_eq!(functions(text).collect::<Vec<_>>(), ["a"]);
}
