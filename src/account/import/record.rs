//! One person of an import: a JSON object in the claim names of OpenID Connect Core §5.1, with a password or its hash.
//! Everything that can be said about it without the database is said here.

use serde_json::{Map, Value};

use super::ImportError;
use crate::crypto::password;
use crate::crypto::secret::Secret;
use crate::protocol::claims::{is_settable, supported};
use crate::protocol::ids::UserId;
use crate::protocol::members::{Members, shown};
use crate::protocol::user::{canonical_email, checked_labels, checked_username};

/// Members that are no claims.
const OWN_MEMBERS: [&str; 10] =
    ["username", "email", "email_verified", "password", "password_hash", "disabled", "roles", "groups", "sub", "id"];

/// A person to import; names are canonical.
#[derive(Clone, Debug)]
pub struct Record {
    /// Their `sub` from now on, where the system they come from gave them one.
    pub id: Option<UserId>,
    pub username: Option<String>,
    pub email: Option<String>,
    pub email_verified: bool,
    pub claims: Map<String, Value>,
    pub roles: Vec<String>,
    pub groups: Vec<String>,
    pub disabled: bool,
    pub password: Password,
}

/// What a person can sign in with.
#[derive(Clone, Debug)]
pub enum Password {
    None,
    Plain(Secret<String>),
    /// As another system spelled it; one that can be verified.
    Hash(Secret<String>),
}

impl Record {
    pub fn parse(line: &[u8]) -> Result<Self, ImportError> {
        let Members(mut members) = serde_json::from_slice(line).map_err(|error| not_an_object(&error))?;
        // An export writes down what it does not know as well.
        members.retain(|_, value| !value.is_null());
        if let Some(name) = members.iter().find_map(|(name, value)| holds_nul(value).then_some(name)) {
            return Err(ImportError::Nul(shown(name)));
        }
        let username = text(&mut members, "username")?;
        let username = username.as_deref().map(checked_username).transpose()?.map(str::to_owned);
        let email = text(&mut members, "email")?.as_deref().map(canonical_email).transpose()?;
        if username.is_none() && email.is_none() {
            return Err(ImportError::Nameless);
        }
        let id = id(&mut members)?;
        let email_verified = flag(&mut members, "email_verified")?;
        let disabled = flag(&mut members, "disabled")?;
        let (roles, groups) = (labels(&mut members, "roles")?, labels(&mut members, "groups")?);
        let password = password(&mut members)?;
        for (name, value) in &members {
            check_claim(name, value)?;
        }
        Ok(Self { id, username, email, email_verified, claims: members, roles, groups, disabled, password })
    }
}

/// The parser's own words for a value of the wrong kind would quote it, and it may be a secret.
fn not_an_object(error: &serde_json::Error) -> ImportError {
    match error.classify() {
        serde_json::error::Category::Data if !error.to_string().contains("stands there twice") => {
            ImportError::NotJson("it is something else".to_owned())
        }
        _ => ImportError::NotJson(error.to_string().replace("line 1 column", "column")),
    }
}

fn holds_nul(value: &Value) -> bool {
    match value {
        Value::String(text) => text.contains('\0'),
        Value::Array(items) => items.iter().any(holds_nul),
        Value::Object(members) => members.iter().any(|(name, value)| name.contains('\0') || holds_nul(value)),
        Value::Null | Value::Bool(_) | Value::Number(_) => false,
    }
}

fn text(members: &mut Map<String, Value>, name: &'static str) -> Result<Option<String>, ImportError> {
    match members.remove(name) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(ImportError::WrongType { member: name.to_owned(), expected: "a string" }),
    }
}

fn flag(members: &mut Map<String, Value>, name: &'static str) -> Result<bool, ImportError> {
    match members.remove(name) {
        None => Ok(false),
        Some(Value::Bool(flag)) => Ok(flag),
        Some(_) => Err(ImportError::WrongType { member: name.to_owned(), expected: "true or false" }),
    }
}

fn labels(members: &mut Map<String, Value>, name: &'static str) -> Result<Vec<String>, ImportError> {
    let refused = || ImportError::WrongType {
        member: name.to_owned(),
        expected: "a list of at most 100 words, each of at most 64 characters without white space",
    };
    let Some(value) = members.remove(name) else { return Ok(Vec::new()) };
    let labels: Vec<String> = serde_json::from_value(value).map_err(|_| refused())?;
    checked_labels(labels).map_err(|_| refused())
}

/// OpenID Connect Core §2 gives a `sub` at most 255 ASCII characters; white space in one would only confuse.
fn id(members: &mut Map<String, Value>) -> Result<Option<UserId>, ImportError> {
    let id = match (text(members, "sub")?, text(members, "id")?) {
        (Some(sub), Some(id)) if sub != id => return Err(ImportError::TwoIds),
        (sub, id) => sub.or(id),
    };
    match id {
        Some(id) if id.is_empty() || id.len() > 255 || !id.bytes().all(|byte| byte.is_ascii_graphic()) => {
            Err(ImportError::BadId)
        }
        id => Ok(id.map(UserId::new)),
    }
}

fn password(members: &mut Map<String, Value>) -> Result<Password, ImportError> {
    let plain = text(members, "password")?.map(Secret::new);
    let hash = match members.remove("password_hash") {
        None => None,
        Some(Value::String(hash)) => Some(Secret::new(hash)),
        // Keycloak's credentials are objects.
        Some(Value::Object(hash)) => Some(Secret::new(Value::Object(hash).to_string())),
        Some(_) => {
            let expected = "a string, or an object as Keycloak exports it";
            return Err(ImportError::WrongType { member: "password_hash".to_owned(), expected });
        }
    };
    match (plain, hash) {
        (Some(_), Some(_)) => Err(ImportError::TwoPasswords),
        (Some(plain), None) => Ok(Password::Plain(plain)),
        (None, Some(hash)) => {
            password::check(hash.expose())?;
            Ok(Password::Hash(hash))
        }
        (None, None) => Ok(Password::None),
    }
}

/// A claim in the type that OpenID Connect Core §5.1 gives it.
fn check_claim(name: &str, value: &Value) -> Result<(), ImportError> {
    if !is_settable(name) {
        return Err(ImportError::UnknownMember { member: shown(name), advice: advice(name) });
    }
    let is_text = |value: &Value| value.is_string();
    let (fits, expected) = match name {
        "phone_number_verified" => (value.is_boolean(), "true or false"),
        "address" => {
            let fits = value.as_object().is_some_and(|members| members.values().all(is_text));
            (fits, "an object of strings, like {\"country\":\"NO\"}")
        }
        _ => (is_text(value), "a string"),
    };
    if fits { Ok(()) } else { Err(ImportError::WrongType { member: name.to_owned(), expected }) }
}

/// The member that was most likely meant.
fn advice(unknown: &str) -> String {
    let names = OWN_MEMBERS.into_iter().chain(supported().into_iter().filter(|name| is_settable(name)));
    let near = names.map(|name| (strsim::damerau_levenshtein(unknown, name), name)).min();
    match near.filter(|(distance, name)| *distance <= (name.len() / 3).max(1)) {
        Some((_, name)) => format!("did you mean `{name}`?"),
        None => "docs/import.md lists what is".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Record, String> {
        Record::parse(line.as_bytes()).map_err(|error| error.to_string())
    }

    #[test]
    fn a_line_holds_all_that_is_known_of_a_person() {
        let record = parse(
            r#"{"sub":"00u1-7","username":"alice","email":"Alice@Example.com","email_verified":true,"name":"Alice A.",
                "phone_number_verified":false,"address":{"country":"NO"},"nickname":null,"disabled":true,
                "roles":["student","student"],"groups":["year-7"],
                "password_hash":"$2y$04$vAxkDXhZEZNAKEU.tLX3yerV3SlunaDGnoKTau7ZaeTOoVkp0jAG2"}"#,
        )
        .expect("a record");
        assert_eq!(record.id, Some(UserId::new("00u1-7")));
        assert_eq!((record.username.as_deref(), record.email.as_deref()), (Some("alice"), Some("alice@example.com")));
        assert!(record.email_verified && record.disabled);
        assert_eq!((&record.roles[..], &record.groups[..]), (&["student".to_owned()][..], &["year-7".to_owned()][..]));
        let mut claims: Vec<&String> = record.claims.keys().collect();
        claims.sort();
        assert_eq!(claims, ["address", "name", "phone_number_verified"]);
        assert!(matches!(record.password, Password::Hash(_)));
        assert!(matches!(parse(r#"{"username":"a"}"#).expect("a record").password, Password::None));
    }

    #[test]
    fn keycloaks_object_is_kept_as_it_is() {
        let credential = r#"{"type":"password","secretData":{"value":"zUsdkDhLT5OD/dmWT/xuh/Z9uCs=","salt":"yMnKy8zNzs/Q0dLT1NXW1w=="},"credentialData":{"hashIterations":1000,"algorithm":"pbkdf2"}}"#;
        for written in [credential.to_owned(), Value::from(credential).to_string()] {
            let record = parse(&format!(r#"{{"username":"a","password_hash":{written}}}"#)).expect("a record");
            let Password::Hash(hash) = record.password else { panic!("no hash: {written}") };
            assert!(password::verify("correct horse", hash.expose()), "{written}");
        }
    }

    /// Whoever copies from the manual gets what it promises.
    #[test]
    fn the_manuals_examples_can_be_imported() {
        let manual = include_str!("../../../docs/import.md");
        let lines: Vec<&str> = manual.lines().filter(|line| line.starts_with("{\"")).collect();
        assert!(lines.len() >= 2);
        for line in lines {
            assert!(matches!(parse(line).expect(line).password, Password::Hash(_)), "{line}");
        }
        let table = manual.split("## Hashes").nth(1).unwrap_or_default();
        let rows =
            table.lines().filter_map(|line| line.split(" | `").nth(1)).filter_map(|cell| cell.strip_suffix("` |"));
        let hashes: Vec<&str> = rows.filter(|cell| !cell.contains('…')).collect();
        assert!(hashes.len() >= 8, "{hashes:?}");
        for hash in hashes {
            assert_eq!(password::check(hash), Ok(()), "{hash}");
        }
    }

    #[test]
    fn a_line_that_cannot_be_a_person_is_refused_with_the_reason() {
        for (line, reason) in [
            ("", "JSON object"),
            ("hello", "JSON object"),
            ("[1]", "JSON object"),
            (r#""hunter2hunter2""#, "JSON object"),
            (r#"{"username":"a"} {}"#, "trailing characters"),
            (r#"{"username":"a""#, "EOF"),
            (r#"{"username":"a","username":"b"}"#, "`username` stands there twice"),
            ("{}", "username or an email"),
            (r#"{"name":"A"}"#, "username or an email"),
            (r#"{"username":7}"#, "`username` must be a string"),
            (r#"{"username":"a b"}"#, "white space"),
            (r#"{"email":"nonsense"}"#, "e-mail"),
            (r#"{"username":"a","email_verified":"yes"}"#, "`email_verified` must be true or false"),
            (r#"{"username":"a","roles":"x"}"#, "`roles` must be a list"),
            (r#"{"username":"a","groups":["x y"]}"#, "`groups` must be a list"),
            (r#"{"username":"a","role":["x"]}"#, "did you mean `roles`?"),
            (r#"{"username":"a","e-mail":"a@b.c"}"#, "did you mean `email`?"),
            (r#"{"username":"a","pasword_hash":"x"}"#, "did you mean `password_hash`?"),
            (r#"{"username":"a","updated_at":1}"#, "`updated_at`"),
            (r#"{"username":"a","\u001b[2J":1}"#, r"`\u{1b}[2J`"),
            (r#"{"username":"a","name":{"en":"x"}}"#, "`name` must be a string"),
            (r#"{"username":"a","name":"x\u0000"}"#, "`name` holds U+0000"),
            (r#"{"username":"a","address":{"country":"\u0000"}}"#, "`address` holds U+0000"),
            (r#"{"username":"a","address":"x"}"#, "`address` must be an object"),
            (r#"{"username":"a","address":{"country":7}}"#, "`address` must be an object"),
            (r#"{"username":"a","phone_number_verified":"no"}"#, "`phone_number_verified` must be true or false"),
            (r#"{"username":"a","sub":"x","id":"y"}"#, "`sub` and `id`"),
            (r#"{"username":"a","sub":""}"#, "1 to 255"),
            (r#"{"username":"a","sub":"a b"}"#, "1 to 255"),
            (r#"{"username":"a","sub":"ø"}"#, "1 to 255"),
            (r#"{"username":"a","id":7}"#, "`id` must be a string"),
            (r#"{"username":"a","password":"hunter2hunter2","password_hash":"x"}"#, "keep one"),
            (r#"{"username":"a","password_hash":["hunter2hunter2"]}"#, "`password_hash` must be"),
            (r#"{"username":"a","password_hash":"hunter2hunter2"}"#, "no argon2, bcrypt or PBKDF2 hash"),
            (
                r#"{"username":"a","password_hash":"$2b$20$7MaB/Wd3MJvEmBJI2Svn2umqnPcpfUUK/PnWdnEp.9BYKi4.8vD.W"}"#,
                "cost 20",
            ),
        ] {
            let refused = parse(line).expect_err(line);
            assert!(refused.contains(reason), "{line}: {refused}");
            assert!(!refused.contains("hunter2"), "{line}: {refused}");
        }
    }
}
