//! The configuration: files, environment and command line, laid over one another and validated into one value.
//! Every setting is a row of the table in `settings.rs`, from which all else follows, the reference included.
//! Nothing is opened here but the configuration and the files of its secrets.

mod database;
mod draft;
mod error;
mod issuer;
mod kind;
mod listen;
mod load;
mod mail;
mod model;
mod print;
mod read;
mod rules;
mod settings;
mod suggest;

pub use database::sqlite_url;
pub use error::{ConfigError, ConfigErrors, Origin};
pub use issuer::Issuer;
pub use listen::Listen;
pub use load::{Loaded, Sources, dump, load, named_files};
pub use model::{
    Brand, Config, ConnectionLimits, DatabaseUrl, DeclaredClient, DeclaredUser, Events, KeySource, Log, LogFormat,
    Mail, MailCap, MailTransport, Passwords, RateLimit, RateLimits, Sessions, SignInApis, SigningKeys, Smtp, SmtpTls,
    TlsFiles, UsernameApi,
};
pub use print::{reference, template};
pub use settings::holds_secret;

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};

    use tempfile::TempDir;

    use super::*;
    use crate::protocol::client::{ClientMetadata, GrantType};
    use crate::protocol::time::Span;

    const ISSUER: &str = "issuer = \"https://id.example.com\"\n";

    fn directory(files: &[(&str, &str)]) -> TempDir {
        let dir = tempfile::tempdir().expect("a directory");
        for (name, text) in files {
            std::fs::write(dir.path().join(name), text).expect("written");
        }
        dir
    }

    fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    fn in_dir(dir: &Path) -> Sources {
        Sources { files: vec![dir.join("keyward.toml")], ..Sources::default() }
    }

    /// Loads one file of this text, with an issuer before it.
    fn config(text: &str) -> Result<Loaded, String> {
        let dir =
            directory(&[("keyward.toml", &format!("{ISSUER}{text}")), ("secret", "from file\r\n"), ("none", "\n")]);
        let place = format!("{}/", dir.path().display());
        load(in_dir(dir.path())).map_err(|errors| errors.to_string().replace(&place, ""))
    }

    fn from_env(env: &[(&str, &str)]) -> Result<Config, String> {
        let mut env = pairs(env);
        env.push(("KEYWARD_ISSUER".to_owned(), "https://id.example.com".to_owned()));
        let loaded = load(Sources { env, ..Sources::default() });
        loaded.map(|loaded| loaded.config).map_err(|errors| errors.to_string())
    }

    #[test]
    fn an_issuer_is_enough() {
        let config = from_env(&[]).expect("a configuration");
        assert_eq!(config.listen, [Listen::Tcp("127.0.0.1:8080".to_owned())]);
        assert_eq!(config.data_dir, PathBuf::from("data"));
        assert_eq!(config.key_source, KeySource::Dir("keys".into()));
        assert_eq!(config.database.url.as_str(), "sqlite://data/keyward.db");
        assert_eq!(config.tokens.access_token_ttl, Span::minutes(15));
        assert_eq!(config.rate_limits.login, RateLimit { attempts: 5, window: Span::minutes(15) });
        assert_eq!(config.log.format, LogFormat::Pretty);
        assert!(config.clients.is_empty() && config.users.is_empty());
    }

    #[test]
    fn tls_that_does_nothing_or_does_not_fit_is_remarked_on() {
        let tls = "[tls]\ncert_file = \"c\"\nkey_file = \"p\"";
        for (head, expected) in [
            ("", None),
            ("listen = [\"unix:s\", \"127.0.0.1:1\"]\n", None),
            ("listen = \"unix:s\"\n", Some("no TCP address")),
        ] {
            let warnings = config(&format!("{head}{tls}")).expect("a configuration").warnings;
            assert_eq!(warnings.len(), usize::from(expected.is_some()), "{warnings:?}");
            assert!(expected.is_none_or(|expected| warnings[0].contains(expected)), "{warnings:?}");
        }
        let env = pairs(&[
            ("KEYWARD_ISSUER", "http://localhost:8080"),
            ("KEYWARD_TLS__CERT_FILE", "c"),
            ("KEYWARD_TLS__KEY_FILE", "p"),
        ]);
        let warnings = load(Sources { env, ..Sources::default() }).expect("a configuration").warnings;
        assert!(warnings.len() == 1 && warnings[0].contains("https"), "{warnings:?}");
        // The template has the section and nothing in it.
        assert_eq!(config("[tls]\n").expect("a configuration").config.tls, None);
    }

    #[test]
    fn a_flag_beats_a_variable_beats_a_later_file_beats_an_earlier_one() {
        let dir = directory(&[
            ("keyward.toml", "issuer = \"https://one.example.com\"\n[tokens]\nid_token_ttl = \"1m\""),
            ("more.toml", "[tokens]\nid_token_ttl = \"2m\"\naccess_token_ttl = \"2m\""),
        ]);
        let variable = [("KEYWARD_TOKENS__ID_TOKEN_TTL", "3m"), ("HOME", "/root")];
        let flag = [("tokens.id_token_ttl", "4m")];
        for (files, env, flags, expected) in [
            (1, &variable[..0], &flag[..0], 1),
            (2, &variable[..0], &flag[..0], 2),
            (2, &variable[..], &flag[..0], 3),
            (2, &variable[..], &flag[..], 4),
        ] {
            let files = ["keyward.toml", "more.toml"][..files].iter().map(|name| dir.path().join(name)).collect();
            let sources = Sources { files, env: pairs(env), flags: pairs(flags) };
            let config = load(sources).expect("a configuration").config;
            assert_eq!(config.tokens.id_token_ttl, Span::minutes(expected));
        }
    }

    #[test]
    fn later_files_add_to_lists_of_tables() {
        let dir = directory(&[
            ("keyward.toml", &format!("{ISSUER}[[clients]]\nclient_id = \"a\"")),
            ("more.toml", "[[clients]]\nclient_id = \"b\"\n[[clients]]\nclient_id = \"a\""),
        ]);
        let files = vec![dir.path().join("keyward.toml"), dir.path().join("more.toml")];
        let errors = load(Sources { files, ..Sources::default() }).expect_err("twice").to_string();
        assert!(
            errors.ends_with("more.toml:4: `clients[2].client_id` is \"a\", as in `clients[0]`; it must be unique")
        );
    }

    #[test]
    fn variables_are_read_by_the_kind_of_their_setting() {
        let config = from_env(&[
            ("KEYWARD_LISTEN", "127.0.0.1:1, unix:/run/k.sock"),
            ("KEYWARD_PROXY__TRUSTED", r#"["10.0.0.0/8", "::1"]"#),
            ("KEYWARD_PASSWORDS__MIN_LENGTH", "12"),
            ("KEYWARD_RATE_LIMITS__LOGIN__ATTEMPTS", "7"),
            ("keyward_brand__name", "Northwind ID"),
            ("KEYWARD_DATA_DIR", "/srv/My Data"),
            ("KEYWARD_CONFIG", "x"),
            ("KEYWARD_LOG", "debug"),
            ("KEYWARD_SERVICE_HOST", "10.0.0.1"),
            ("KEYWARD_PORT_8080_TCP", "tcp://10.0.0.1:8080"),
        ])
        .expect("a configuration");
        assert_eq!(config.listen, [Listen::Tcp("127.0.0.1:1".to_owned()), Listen::Unix("/run/k.sock".into())]);
        assert_eq!(config.trusted_proxies.len(), 2);
        assert_eq!(config.passwords.min_length, 12);
        assert_eq!(config.rate_limits.login, RateLimit { attempts: 7, window: Span::minutes(15) });
        assert_eq!(config.brand.name, "Northwind ID");
        assert_eq!(config.database.url.as_str(), "sqlite:///srv/My%20Data/keyward.db");
    }

    #[test]
    fn a_wrong_variable_is_named() {
        for (name, value, expected) in [
            (
                "KEYWARD_DATABASE_URL",
                "x",
                "KEYWARD_DATABASE_URL: is not a setting; did you mean `KEYWARD_DATABASE__URL`?",
            ),
            ("KEYWARD_PASSWORDS__MIN_LENGTH", "many", "KEYWARD_PASSWORDS__MIN_LENGTH: `passwords.min_length` must be"),
            ("KEYWARD_CLIENTS", "x", "KEYWARD_CLIENTS: is not a setting; lists of tables stand in the file only"),
            ("KEYWARD_TOKENS", "x", "KEYWARD_TOKENS: is not a setting"),
            ("KEYWARD_LISTEN", "", "KEYWARD_LISTEN: `listen` must be"),
        ] {
            let error = from_env(&[(name, value)]).expect_err(name);
            assert!(error.starts_with(expected), "{error}");
        }
    }

    #[test]
    fn relative_paths_are_beside_the_file() {
        let dir = directory(&[(
            "keyward.toml",
            &format!(
                "{ISSUER}key_dir = \"k\"\nlisten = \"unix:s\"\n[brand]\nlogo_file = \"l.svg\"\n[database]\nurl = \"sqlite://d/x.db\"\n[tls]\ncert_file = \"c\"\nkey_file = \"p\""
            ),
        )]);
        let env = pairs(&[("KEYWARD_BRAND__LOGO_FILE", "m.svg")]);
        let config = load(Sources { env, ..in_dir(dir.path()) }).expect("a configuration").config;
        assert_eq!(config.key_source, KeySource::Dir(dir.path().join("k")));
        assert_eq!(config.data_dir, dir.path().join("data"));
        assert_eq!(config.listen, [Listen::Unix(dir.path().join("s"))]);
        assert_eq!(config.brand.logo_file, Some("m.svg".into()));
        let (cert_file, key_file) = (dir.path().join("c"), dir.path().join("p"));
        assert_eq!(config.tls, Some(TlsFiles { cert_file, key_file }));
        assert_eq!(config.database.url.as_str(), format!("sqlite://{}/d/x.db", dir.path().display()));
    }

    #[test]
    fn a_wrong_file_is_told_by_line_setting_and_remedy() {
        for (text, expected) in [
            (
                "[tokens]\naccess_token_ttl = \"15\"",
                "keyward.toml:3: `tokens.access_token_ttl` must be a duration from 1s",
            ),
            (
                "[tokens]\nauthorization_code_ttl = \"11m\"",
                "from 1s to 10m, like \"90s\", \"15m\" or \"30d\", not \"11m\"",
            ),
            ("[tokns]\nx = 1", "keyward.toml:2: `tokns` is not a setting; did you mean `tokens`?"),
            ("[tokens]\naccess_ttl = \"1m\"", "keyward.toml:3: `tokens.access_ttl` is not a setting"),
            ("tokens = 5", "keyward.toml:2: `tokens` is a section; write its settings under `[tokens]`"),
            (
                "[clients]\nclient_id = \"a\"",
                "keyward.toml:2: `clients` is a list of tables; write each as `[[clients]]`",
            ),
            ("clients = [1]", "`clients` is a list of tables"),
            (
                "admin_listen = \"127.0.0.1:8080\"",
                "keyward.toml:2: `admin_listen` is \"127.0.0.1:8080\", as in `listen`",
            ),
            ("listen = [\"[::1]:1\", \"[::1]:1\"]", "keyward.toml:2: `listen` names \"[::1]:1\" twice"),
            (
                "gateway_cookie_domain = \"com\"",
                "keyward.toml:2: `gateway_cookie_domain` must be a domain of two labels or more",
            ),
            (
                "gateway_cookie_domain = \"ample.com\"",
                "keyward.toml:2: `gateway_cookie_domain` is \"ample.com\", which id.example.com",
            ),
            ("gateway_cookie_domain = \"a.id.example.com\"", "the issuer's host, is not below"),
            ("listen = ", "keyward.toml:2: is not TOML: "),
            ("[tokens]\n[tokens]", "keyward.toml:3: is not TOML: "),
            ("data_dir = \"a\"\ndata_dir = \"b\"", "keyward.toml:3: is not TOML: "),
            ("key_dir = \"a\"\nmaster_key_file = \"b\"", "`master_key_file` and `key_dir` are both set; keep one"),
            ("[tls]\ncert_file = \"c\"", "keyward.toml:2: `tls.key_file` is missing beside `tls.cert_file`"),
            ("[tls]\nkey_file = \"k\"", "keyward.toml:2: `tls.cert_file` is missing beside `tls.key_file`"),
            ("[[clients]]\nclient_name = \"A\"", "keyward.toml:2: `clients[0].client_id` is missing"),
            (
                "[[clients]]\nclient_id = \"a b\"",
                "`clients[0].client_id` must be visible ASCII without spaces, not \"a b\"",
            ),
            ("[[clients]]\nclient_id = \"a\"\nrequest_uris = []", "`clients[0].request_uris` is not a setting"),
            ("[[clients]]\nclient_id = \"a\"\ngrant_types = [\"password\"]", "array of \"authorization_code\", "),
            ("[[clients]]\nclient_id = \"a\"\nredirect_uri = \"x\"", "did you mean `redirect_uris`?"),
            ("[[scopes]]\nname = \"openid\"", "not one of the standard scopes, not \"openid\""),
            (
                "[[scopes]]\nname = \"a\"\n[[scopes]]\nname = \"a\"",
                "keyward.toml:5: `scopes[1].name` is \"a\", as in `scopes[0]`",
            ),
            ("[[resources]]\nuri = \"https://a\"\nscopes = [\"a\"]", "names \"a\", which is no declared scope"),
            ("[[resources]]\nuri = \"a\"", "`resources[0].uri` must be an absolute URI without a fragment"),
            ("[[users]]\nname = \"A\"", "keyward.toml:2: `users[0]` has neither `username` nor `email`"),
            ("[[users]]\nusername = \"a@b\"", "`users[0].username` must be a name without"),
            ("[[users]]\nemail = \"A@b\"\n[[users]]\nemail = \"a@B\"", "as in `users[0]`; it must be unique"),
            ("[[users]]\nemail = \"a@b\"\nroles = [\"a b\"]", "`users[0].roles` must be words"),
            ("[[scopes]]\nname = \"a\"\nrequires_role = \"a b\"", "`scopes[0].requires_role` must be words"),
            (
                "[[clients]]\nclient_id = \"a\"\npartner_client_id = \"b\"\n[[clients]]\nclient_id = \"b\"",
                "names \"b\", which is no partner",
            ),
            ("[[users]]\nemail = \"a@b\"\nmfa = true", "`users[0].mfa` is not a setting"),
        ] {
            let error = config(text).expect_err(text);
            assert!(error.contains(expected) && error.lines().count() == 1, "{text}\n{error}");
        }
    }

    #[test]
    fn the_gateways_cookie_is_for_a_domain_above_the_issuer() {
        for domain in ["example.com", "id.example.com"] {
            let config = config(&format!("gateway_cookie_domain = \"{domain}\"")).expect("a configuration").config;
            assert_eq!(config.gateway_cookie_domain.as_deref(), Some(domain));
        }
        assert_eq!(config("").expect("a configuration").config.gateway_cookie_domain, None);
    }

    #[test]
    fn tables_may_be_written_inline() {
        let config = config("rate_limits = { login = { attempts = 3 } }").expect("a configuration").config;
        assert_eq!(config.rate_limits.login, RateLimit { attempts: 3, window: Span::minutes(15) });
    }

    #[test]
    fn every_error_is_told_at_once() {
        let dir = directory(&[(
            "keyward.toml",
            "listen = \"x\"\nfoo = 1\n[[clients]]\n[[users]]\nusername = \"a\"\npassword_file = \"p\"",
        )]);
        let env = pairs(&[("KEYWARD_FOO", "1")]);
        let errors = load(Sources { env, ..in_dir(dir.path()) }).expect_err("errors");
        let told = errors.to_string();
        for expected in [
            "`listen` must",
            "`foo` is not",
            "KEYWARD_FOO: is not",
            "`issuer` is missing",
            "`clients[0].client_id` is",
            "p: No such file",
        ] {
            assert!(told.contains(expected), "{expected}\n{told}");
        }
        assert_eq!((errors.0.len(), told.lines().count()), (6, 6), "{told}");
    }

    #[test]
    fn a_file_that_cannot_be_read_is_the_only_error() {
        let errors = load(in_dir(Path::new("/nowhere"))).expect_err("no file").to_string();
        assert!(
            errors.starts_with("/nowhere/keyward.toml: cannot be read: ") && errors.lines().count() == 1,
            "{errors}"
        );
    }

    #[test]
    fn secrets_come_from_files_or_stand_inline_with_a_warning() {
        let client = "[[clients]]\nclient_id = \"a\"\n";
        let secret = |text: &str| {
            let loaded = config(&format!("{client}{text}"))?;
            let secret = loaded.config.clients[0].client_secret.as_ref().map(|secret| secret.expose().clone());
            Ok::<_, String>((secret, loaded.warnings.len()))
        };
        assert_eq!(secret(""), Ok((None, 0)));
        assert_eq!(secret("client_secret_file = \"secret\""), Ok((Some("from file".to_owned()), 0)));
        assert_eq!(secret("client_secret = \"inline\""), Ok((Some("inline".to_owned()), 1)));
        for (text, expected) in [
            ("client_secret = \"x\"\nclient_secret_file = \"secret\"", "are both set; keep one"),
            ("client_secret_file = \"none\"", "which is empty"),
            (
                "client_secret_file = \"absent\"",
                "`clients[0].client_secret_file` cannot be read from absent: No such file",
            ),
            ("client_secret = 12345", "must be a secret that is not empty, not …redacted…"),
        ] {
            let error = secret(text).expect_err(text);
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn a_database_url_may_be_a_mounted_secret() {
        let dir = directory(&[
            ("keyward.toml", &format!("{ISSUER}[database]\nurl = \"sqlite://x.db\"")),
            ("url", "postgres://u:p@h/d\n"),
            ("bad", "mysql://u:hunter2@h\n"),
        ]);
        let from = |name: &str| {
            let path = dir.path().join(name).display().to_string();
            load(Sources { env: pairs(&[("KEYWARD_DATABASE__URL_FILE", &path)]), ..in_dir(dir.path()) })
        };
        assert_eq!(from("url").expect("a configuration").config.database.url.as_str(), "postgres://u:p@h/d");
        let error = from("bad").expect_err("not a database").to_string();
        assert!(
            error.contains("`database.url_file` names a file whose content must be") && !error.contains("hunter2"),
            "{error}"
        );
    }

    #[test]
    fn a_client_of_a_sign_in_api_needs_nothing_but_its_name() {
        let text = |more: &str| {
            format!("[sign_in_apis.username]\nclient_id = \"study\"\n[[clients]]\nclient_id = \"study\"\n{more}")
        };
        for (more, grants, public) in [
            ("", &[][..], true),
            ("scope = \"openid offline_access\"", &[GrantType::RefreshToken], true),
            ("grant_types = [\"client_credentials\"]\nclient_secret = \"s\"", &[GrantType::ClientCredentials], false),
            ("redirect_uris = [\"https://a.test/cb\"]\nclient_secret = \"s\"", &[GrantType::AuthorizationCode], false),
        ] {
            let config = config(&text(more)).expect("a configuration").config;
            let metadata = &config.clients[0].metadata;
            assert_eq!((metadata.grant_types.as_slice(), metadata.is_public()), (grants, public), "{more}");
            let api = config.sign_in_apis.username.expect("an API");
            assert_eq!((api.client_id.as_str(), api.password_min_length), ("study", 6));
        }
        let warnings = config("[sign_in_apis.device]\nclient_id = \"game\"").expect("a configuration").warnings;
        assert!(warnings.len() == 1 && warnings[0].contains("no client of this file"), "{warnings:?}");
    }

    #[test]
    fn a_declared_client_is_what_it_says_and_has_the_defaults_of_registration() {
        let loaded = config("[[clients]]\nclient_id = \"a\"\n[[clients]]\nclient_id = \"b\"\ngrant_types = [\"client_credentials\"]\nscope = \"quiz.read  openid\"\naccess_token_ttl = \"7d\"").expect("a configuration");
        let [plain, own] = &loaded.config.clients[..] else { panic!("two clients") };
        assert_eq!(plain.metadata, ClientMetadata::default());
        assert_eq!(own.metadata.grant_types, [GrantType::ClientCredentials]);
        assert_eq!(own.metadata.scope.to_string(), "quiz.read openid");
        assert_eq!(own.metadata.access_token_ttl, Some(Span::days(7)));
    }

    #[test]
    fn every_member_of_client_metadata_can_be_declared() {
        let error = serde_json::from_str::<ClientMetadata>(r#"{"zz": 1}"#).expect_err("unknown").to_string();
        let members: Vec<_> = error.split('`').skip(3).step_by(2).collect();
        assert!(members.len() > 20, "{error}");
        for member in members {
            assert!(settings::entry(&format!("clients[].{member}")).is_some(), "{member}");
        }
    }

    #[test]
    fn a_declared_user_keeps_its_claims() {
        let loaded = config("[[users]]\nusername = \"alice\"\nemail = \"a@b.c\"\nemail_verified = true\npassword_file = \"secret\"\nname = \"Alice\"\nphone_number_verified = false\naddress = { locality = \"Wien\" }").expect("a configuration");
        let [alice] = &loaded.config.users[..] else { panic!("one user") };
        assert_eq!((alice.username.as_deref(), alice.email.as_deref()), (Some("alice"), Some("a@b.c")));
        assert!(alice.email_verified);
        assert_eq!(alice.password.as_ref().map(|password| password.expose().as_str()), Some("from file"));
        let expected =
            serde_json::json!({"name": "Alice", "phone_number_verified": false, "address": {"locality": "Wien"}});
        assert_eq!(serde_json::Value::Object(alice.claims.clone()), expected);
    }

    #[test]
    fn what_works_but_looks_wrong_is_a_warning() {
        let text = "[sessions]\nidle = \"40d\"\n[[resources]]\nuri = \"https://a\"\nintrospection_clients = [\"rs\"]\n[[users]]\nusername = \"a\"\npassword = \"p\"";
        let warnings = config(text).expect("a configuration").warnings.join("\n");
        for expected in [
            ":3: `sessions.idle` is longer",
            ":6: `resources[0].introspection_clients` names \"rs\"",
            ":9: `users[0].password` stands in",
        ] {
            assert!(warnings.contains(expected), "{warnings}");
        }
    }

    #[test]
    fn a_dump_shows_what_is_in_effect_and_no_secret() {
        let text = format!(
            "{ISSUER}[database]\nurl = \"postgres://u:hunter2@h/d\"\n[[clients]]\nclient_id = \"a\"\nclient_secret = \"hunter2\"\n[[users]]\nusername = \"a\"\npassword = \"hunter2\"\n[[users]]\nusername = \"b\"\npassword_file = \"absent\""
        );
        let dir = directory(&[("keyward.toml", &text)]);
        let sources = Sources { flags: pairs(&[("tokens.id_token_ttl", "7m")]), ..in_dir(dir.path()) };
        let dumped = dump(&sources).expect("a dump");
        assert!(!dumped.contains("hunter2"), "{dumped}");
        for expected in [
            "id_token_ttl = \"7m\"",
            "access_token_ttl = \"15m\"",
            "client_secret = \"…redacted…\"",
            "password_file = ",
        ] {
            assert!(dumped.contains(expected), "{dumped}");
        }
        let again = directory(&[("keyward.toml", &dumped.replace("password_file", "password"))]);
        assert!(load(in_dir(again.path())).is_ok());
    }

    #[test]
    fn debug_hides_the_secrets() {
        let loaded = config(
            "[database]\nurl = \"postgres://u:hunter2@h/d\"\n[[users]]\nusername = \"a\"\npassword = \"hunter2\"",
        );
        assert!(!format!("{loaded:?}").contains("hunter2"));
    }
}
