//! JWTs that come from outside: access tokens at `/userinfo`, `/introspect` and `/revoke`, and `id_token_hint` at
//! `/authorize` and `/logout`. To know that it is the header which is refused, these are signed by our own key, taken
//! from the database as only its operator could.

use std::net::TcpListener;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use hmac::{Hmac, Mac as _};
use http::Method;
use keyward::crypto::seal::SealKey;
use keyward::protocol::client::SigningAlg;
use openssl::bn::BigNum;
use openssl::ec::{EcGroup, EcKey};
use openssl::ecdsa::EcdsaSig;
use openssl::hash::MessageDigest;
use openssl::nid::Nid;
use openssl::pkey::{Id, PKey, Private, Public};
use openssl::rsa::{Padding, Rsa};
use openssl::sign::{RsaPssSaltlen, Signer};
use serde_json::{Map, Value, json};
use sha2::Sha256;

use crate::authorize::{code_at_app, enc, error_at_app};
use crate::logout::{asks, logout_url};
use crate::on_both_databases;
use crate::support::{Browser, Provider, claims_of};

/// A private key with its name.
pub struct Key {
    kid: String,
    alg: &'static str,
    private: PKey<Private>,
}

impl Key {
    /// The key that signs for us.
    pub async fn own(provider: &Provider, alg: SigningAlg) -> Self {
        let master = std::fs::read_to_string(provider.dir.path().join("keys/master.key")).expect("a master key");
        let master = URL_SAFE_NO_PAD.decode(master.trim_end()).expect("base64url");
        let seal = SealKey::derive(&master.try_into().expect("32 bytes"), "signing-key");
        let stored = provider.app.store.signing_keys().await.expect("keys");
        let stored = stored.into_iter().find(|key| key.alg == alg).expect("a key");
        let der = seal.open(&stored.sealed_private).expect("sealed under the master key");
        Self { kid: stored.kid, alg: alg.as_str(), private: PKey::private_key_from_der(&der).expect("a key") }
    }

    /// A stranger's, under any name.
    fn foreign(kid: &str) -> Self {
        let rsa = Rsa::generate(2048).expect("a key");
        Self { kid: kid.to_owned(), alg: "RS256", private: PKey::from_rsa(rsa).expect("a key") }
    }

    /// The bytes that nobody else may know.
    pub fn secret(&self) -> Vec<u8> {
        match self.private.id() {
            Id::RSA => self.private.rsa().expect("an RSA key").d().to_vec(),
            _ => self.private.ec_key().expect("an EC key").private_key().to_vec(),
        }
    }

    fn sign(&self, input: &[u8]) -> Vec<u8> {
        let mut signer = Signer::new(MessageDigest::sha256(), &self.private).expect("a signer");
        let signature = signer.sign_oneshot_to_vec(input).expect("a signature");
        if self.private.id() == Id::RSA {
            return signature;
        }
        let signature = EcdsaSig::from_der(&signature).expect("a signature");
        let part = |number: &openssl::bn::BigNumRef| number.to_vec_padded(32).expect("32 bytes");
        [part(signature.r()), part(signature.s())].concat()
    }

    fn sign_pss(&self, input: &[u8]) -> Vec<u8> {
        let mut signer = Signer::new(MessageDigest::sha256(), &self.private).expect("a signer");
        signer.set_rsa_padding(Padding::PKCS1_PSS).expect("PSS");
        signer.set_rsa_pss_saltlen(RsaPssSaltlen::DIGEST_LENGTH).expect("a length");
        signer.sign_oneshot_to_vec(input).expect("a signature")
    }

    /// What is published of it, as a JWK.
    fn public_jwk(&self) -> Value {
        let rsa = self.private.rsa().expect("an RSA key");
        let number = |number: &openssl::bn::BigNumRef| URL_SAFE_NO_PAD.encode(number.to_vec());
        json!({"kty": "RSA", "n": number(rsa.n()), "e": number(rsa.e()), "alg": "RS256", "use": "sig", "kid": self.kid})
    }
}

fn part(value: &Value) -> String {
    URL_SAFE_NO_PAD.encode(value.to_string())
}

/// A JWS in compact form.
fn compact(header: &Value, claims: &Value, sign: impl FnOnce(&[u8]) -> Vec<u8>) -> String {
    let input = format!("{}.{}", part(header), part(claims));
    let signature = sign(input.as_bytes());
    format!("{input}.{}", URL_SAFE_NO_PAD.encode(signature))
}

/// A header with more members.
fn with(header: &Value, more: Value) -> Value {
    let mut header = header.clone();
    let Value::Object(more) = more else { panic!("an object") };
    header.as_object_mut().expect("an object").extend(more);
    header
}

/// Whether a text is believed wherever an access token of `first` is taken. All doors have to agree.
async fn access_token_is_believed(provider: &Provider, token: &str) -> bool {
    let at_userinfo = provider.userinfo(token).await.status == 200;
    let posted = provider.browser().post("/userinfo", &[("access_token", token)]).await.status == 200;
    let bearer = format!("Bearer {token}");
    let bearer = [("authorization", bearer.as_str())];
    let at_gateway = provider.browser().send(Method::GET, "/forward-auth/required", None, &bearer).await.status == 200;
    let at_api = provider.browser().send(Method::GET, "/v1/me", None, &bearer).await.status == 200;
    let answer = provider.introspect("first", token).await;
    let at_introspection = answer["active"] == true;
    assert!(at_introspection || answer == json!({"active": false}), "{answer}");
    let before = provider.row_counts().await;
    assert_eq!(provider.call("first", "/revoke", &[("token", token)]).await.status, 200);
    let revoked = provider.row_counts().await != before;
    let believed = [at_userinfo, posted, at_gateway, at_api, at_introspection, revoked];
    assert_eq!(believed, [at_userinfo; 6], "{token}");
    at_userinfo
}

/// Whether a text is believed wherever an ID token of `first` is taken as a hint, in the browser it was made for.
async fn hint_is_believed(provider: &Provider, browser: &mut Browser, hint: &str) -> bool {
    let page = browser.get(&provider.authorize_url(&format!("prompt=none&id_token_hint={}", enc(hint)))).await;
    let at_authorize = page.location_params().contains_key("code");
    if !at_authorize {
        assert_eq!(error_at_app(&page), "invalid_request");
    }
    let page = browser.get(&logout_url(&[("id_token_hint", hint)])).await;
    assert_eq!(!asks(&page), at_authorize, "{hint}");
    at_authorize
}

/// What one sign-in has brought, to forge from.
struct Genuine {
    browser: Browser,
    access: Value,
    id: Value,
}

impl Genuine {
    async fn new(provider: &Provider) -> Self {
        let mut browser = provider.browser();
        let code = provider.code(&mut browser, &provider.authorize_url("scope=openid")).await;
        let tokens = provider.redeem(&code).await;
        Self { browser, access: claims_of(&tokens.text("access_token")), id: claims_of(&tokens.text("id_token")) }
    }

    /// Makes an access token and a hint with each header; all of them are refused, and the plain ones believed.
    async fn only_plain_ones_count(mut self, provider: &Provider, key: &Key, forgeries: &[Forgery<'_>]) {
        for Forgery { name, header, sign } in forgeries {
            let header = |typ: &str| with(&json!({"alg": key.alg, "kid": key.kid, "typ": typ}), header.clone());
            let token = compact(&header("at+jwt"), &self.access, |input| sign(input));
            assert!(!access_token_is_believed(provider, &token).await, "{name}");
            let hint = compact(&header("JWT"), &self.id, |input| sign(input));
            assert!(!hint_is_believed(provider, &mut self.browser, &hint).await, "{name}");
        }
        let header = |typ: &str| json!({"alg": key.alg, "kid": key.kid, "typ": typ});
        let token = compact(&header("at+jwt"), &self.access, |input| key.sign(input));
        assert!(access_token_is_believed(provider, &token).await, "the control");
        let hint = compact(&header("JWT"), &self.id, |input| key.sign(input));
        assert!(hint_is_believed(provider, &mut self.browser, &hint).await, "the control");
    }
}

/// Members of a header beyond or instead of our own, and what stands as the signature.
struct Forgery<'a> {
    name: &'static str,
    header: Value,
    sign: Box<Sign<'a>>,
}

/// Makes a signature, or what stands in its place.
type Sign<'a> = dyn Fn(&[u8]) -> Vec<u8> + 'a;

fn forgery<'a>(name: &'static str, header: Value, sign: impl Fn(&[u8]) -> Vec<u8> + 'a) -> Forgery<'a> {
    Forgery { name, header, sign: Box::new(sign) }
}

fn hmac(key: &[u8], input: &[u8]) -> Vec<u8> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("a key of any length");
    mac.update(input);
    mac.finalize().into_bytes().to_vec()
}

/// Everything that somebody could make of a published key to use as the key of a MAC.
fn shapes(jwk: &Map<String, Value>) -> Vec<Vec<u8>> {
    let number = |name: &str| URL_SAFE_NO_PAD.decode(jwk[name].as_str().expect("text")).expect("base64url");
    let big = |name: &str| BigNum::from_slice(&number(name)).expect("a number");
    let mut shapes: Vec<Vec<u8>> = Vec::new();
    let public: PKey<Public> = if jwk["kty"] == "RSA" {
        let rsa = Rsa::from_public_components(big("n"), big("e")).expect("a key");
        shapes.push(rsa.public_key_to_pem_pkcs1().expect("PEM"));
        shapes.push(number("n"));
        PKey::from_rsa(rsa).expect("a key")
    } else {
        let group = EcGroup::from_curve_name(Nid::X9_62_PRIME256V1).expect("P-256");
        shapes.push([number("x"), number("y")].concat());
        shapes.push([&[4][..], &number("x"), &number("y")].concat());
        PKey::from_ec_key(EcKey::from_public_key_affine_coordinates(&group, &big("x"), &big("y")).expect("a key"))
            .expect("a key")
    };
    let pem = public.public_key_to_pem().expect("PEM");
    shapes.push(public.public_key_to_der().expect("DER"));
    shapes.push(pem.trim_ascii_end().to_vec());
    shapes.push(pem);
    shapes.push(Value::Object(jwk.clone()).to_string().into_bytes());
    shapes.push(jwk["kid"].as_str().expect("a kid").as_bytes().to_vec());
    shapes
}

on_both_databases! {
    async fn attack_59_a_token_without_a_signature_is_none(provider: Provider) {
        for alg in [SigningAlg::Rs256, SigningAlg::Es256] {
            let key = Key::own(&provider, alg).await;
            let mut forgeries = vec![
                forgery("no signature under our alg", json!({}), |_| Vec::new()),
                forgery("zeros", json!({}), |_| vec![0; 64]),
                forgery("signed, but said not to be", json!({"alg": "none"}), |input| key.sign(input)),
                forgery("no alg", json!({"alg": null}), |input| key.sign(input)),
                forgery("an alg of another type", json!({"alg": [key.alg]}), |input| key.sign(input)),
                forgery("another spelling", json!({"alg": key.alg.to_lowercase()}), |input| key.sign(input)),
            ];
            for none in ["none", "None", "NONE", "nOnE", ""] {
                forgeries.push(forgery("alg none", json!({"alg": none}), |_| Vec::new()));
            }
            Genuine::new(&provider).await.only_plain_ones_count(&provider, &key, &forgeries).await;
        }
    }

    async fn attack_60_a_public_key_is_not_the_key_of_a_mac(provider: Provider) {
        let jwks = provider.browser().get("/jwks").await.json();
        for alg in [SigningAlg::Rs256, SigningAlg::Es256] {
            let key = Key::own(&provider, alg).await;
            let published = jwks["keys"].as_array().expect("keys").iter().find(|jwk| jwk["kid"] == key.kid.as_str());
            let published = published.and_then(Value::as_object).expect("our key");
            let mut forgeries = Vec::new();
            let secrets = [b"first-secret".to_vec(), Vec::new()];
            for shape in shapes(published).into_iter().chain(secrets) {
                forgeries.push(forgery("HS256", json!({"alg": "HS256"}), move |input| hmac(&shape, input)));
            }
            if alg == SigningAlg::Rs256 {
                // The right key, by another algorithm of its own.
                forgeries.push(forgery("PS256", json!({"alg": "PS256"}), |input| key.sign_pss(input)));
                forgeries.push(forgery("PSS called RS256", json!({}), |input| key.sign_pss(input)));
            }
            Genuine::new(&provider).await.only_plain_ones_count(&provider, &key, &forgeries).await;
        }
    }

    async fn attack_61_keys_that_a_token_brings_or_points_at_are_not_looked_at(provider: Provider) {
        let canary = TcpListener::bind("127.0.0.1:0").expect("a port");
        canary.set_nonblocking(true).expect("no waiting");
        let at = format!("http://{}", canary.local_addr().expect("an address"));
        let own = Key::own(&provider, SigningAlg::Rs256).await;
        let thief = Key::foreign("thief");
        let certificate = STANDARD.encode(thief.private.public_key_to_der().expect("DER"));
        let brought = json!({
            "jwk": thief.public_jwk(),
            "jku": format!("{at}/jwks"),
            "x5u": format!("{at}/certificate.pem"),
            "x5c": [certificate],
            "x5t#S256": "AAAA",
        });
        let mut forgeries = Vec::new();
        for (name, value) in brought.as_object().expect("an object") {
            let address = format!("{at}/jwks#thief");
            for kid in [json!(own.kid), json!("thief"), json!(address), json!("../../thief"), Value::Null] {
                let header = json!({"kid": kid, name: value});
                forgeries.push(forgery("a key of the thief", header, |input| thief.sign(input)));
            }
        }
        let mut everything = brought.clone();
        everything["kid"] = json!(own.kid);
        forgeries.push(forgery("all of them", everything, |input| thief.sign(input)));
        forgeries.push(forgery("no kid", json!({"kid": null}), |input| own.sign(input)));
        Genuine::new(&provider).await.only_plain_ones_count(&provider, &own, &forgeries).await;
        let fetched = canary.accept();
        assert!(fetched.is_err(), "{fetched:?} came to fetch");
    }

    async fn attack_63_what_a_token_calls_critical_and_other_serializations_are_refused(provider: Provider) {
        let key = Key::own(&provider, SigningAlg::Rs256).await;
        // Every one of these bears a good signature of ours.
        let headers = [
            json!({"crit": ["unheard"], "unheard": true}),
            json!({"crit": ["exp"], "exp": 1}),
            json!({"crit": ["b64"], "b64": false}),
            json!({"crit": ["b64"], "b64": true}),
            json!({"crit": []}),
            json!({"crit": "unheard"}),
            json!({"b64": false}),
            json!({"typ": "unheard+jwt"}),
            json!({"typ": null}),
        ];
        let forgeries: Vec<Forgery<'_>> =
            headers.into_iter().map(|header| forgery("critical", header, |input| key.sign(input))).collect();
        let genuine = Genuine::new(&provider).await;
        let (access, id) = (genuine.access.clone(), genuine.id.clone());

        let json_forms = |typ: &str, claims: &Value| {
            let token = compact(&json!({"alg": key.alg, "kid": key.kid, "typ": typ}), claims, |input| key.sign(input));
            let [header, payload, signature] = token.split('.').collect::<Vec<_>>().try_into().expect("three parts");
            let one = json!({"protected": header, "signature": signature});
            let mut flattened = one.clone();
            flattened["payload"] = json!(payload);
            vec![
                flattened.to_string(),
                json!({"payload": payload, "signatures": [one]}).to_string(),
                json!({"payload": payload, "signatures": [one, one]}).to_string(),
                format!("{token}.{signature}"),
                format!("{token}.{header}.{payload}.{signature}"),
                format!("{token},{token}"),
                format!("{token} {token}"),
                format!(" {token}="),
                format!("{header}..{signature}"),
                // Bits that a signature's last character does not need.
                format!("{header}.{payload}.{signature}="),
                format!("{header}=.{payload}=.{signature}"),
            ]
        };
        let mut browser = genuine.browser.clone();
        for token in json_forms("at+jwt", &access) {
            // A header cannot hold every text, so the forms go where any text can go.
            let answer = provider.introspect("first", &token).await;
            assert_eq!(answer, json!({"active": false}), "{token}");
            assert_eq!(provider.browser().post("/userinfo", &[("access_token", &token)]).await.status, 401, "{token}");
            let before = provider.row_counts().await;
            assert_eq!(provider.call("first", "/revoke", &[("token", &token)]).await.status, 200);
            assert_eq!(provider.row_counts().await, before);
        }
        for hint in json_forms("JWT", &id) {
            assert!(!hint_is_believed(&provider, &mut browser, &hint).await, "{hint}");
        }
        genuine.only_plain_ones_count(&provider, &key, &forgeries).await;
    }

    /// That a retired key is refused is shown in `tests/it/key_life.rs`.
    async fn attack_71_published_keys_have_public_members_alone(provider: Provider) {
        let page = provider.browser().get("/jwks").await;
        let document = page.json();
        assert_eq!(document.as_object().expect("an object").len(), 1);
        let keys = document["keys"].as_array().expect("keys");
        assert!(keys.len() >= 2);
        for key in keys {
            let public: &[&str] = match key["kty"].as_str() {
                Some("RSA") => &["alg", "e", "kid", "kty", "n", "use"],
                Some("EC") => &["alg", "crv", "kid", "kty", "use", "x", "y"],
                Some("OKP") => &["alg", "crv", "kid", "kty", "use", "x"],
                other => panic!("a key of type {other:?}"),
            };
            for name in key.as_object().expect("a key").keys() {
                assert!(public.contains(&name.as_str()), "{name}");
            }
        }
        for alg in [SigningAlg::Rs256, SigningAlg::Es256] {
            let key = Key::own(&provider, alg).await;
            assert!(keys.iter().any(|published| published["kid"] == key.kid.as_str()), "the one that signs is there");
            assert!(!page.body.contains(&URL_SAFE_NO_PAD.encode(key.secret())), "{alg}");
        }
        let bearer = provider.tokens("openid").await.text("access_token");
        assert_eq!(provider.userinfo(&bearer).await.status, 200);
        let code = provider.authorize(&mut provider.browser(), &provider.authorize_url("")).await;
        code_at_app(&code);
        assert_eq!(provider.browser().send(Method::GET, "/jwks", None, &[]).await.body, page.body);
    }
}
