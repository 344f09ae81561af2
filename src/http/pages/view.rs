//! What the HTML pages show: one askama struct for each file of `templates/pages/`, and the stylesheet they share.
//!
//! A view is told everything and decides only presentation. Every URL comes as data, because the issuer may have a
//! path, and a link appears only where one is given, because a link is a promise that its feature is built and
//! switched on. Text is escaped by askama (the templates end in `.html`); URLs are not judged here: a client's come
//! from registration, which takes `http` and `https` only. No page carries a style attribute or, but for the nonce'd
//! one of [`FormPostPage`], a script, so the strictest `Content-Security-Policy` holds (`http::pages` sends it).
//! Colours are `colour.rs`.

use std::fmt::Write as _;

use askama::Template;

use super::colour::{self, Rgb};

/// What every page has around its card: the operator's name and links.
#[derive(Clone, Copy, Debug)]
pub struct Chrome<'a> {
    /// The operator's name for this provider.
    pub brand: &'a str,
    /// A square picture, `https:` or `data:`; without one the brand's first letter stands on the accent.
    pub logo_uri: Option<&'a str>,
    /// The favicon: [`icon`], computed once.
    pub icon: &'a str,
    /// Where [`stylesheet`] is served, content hash and all.
    pub stylesheet: &'a str,
    /// BCP 47 language tag of the page's text.
    pub lang: &'a str,
    /// `ltr` or `rtl`.
    pub dir: &'a str,
    pub home_uri: Option<&'a str>,
    pub privacy_uri: Option<&'a str>,
    pub terms_uri: Option<&'a str>,
    pub help_uri: Option<&'a str>,
}

/// An app as people know it (client metadata of RFC 7591 §2).
#[derive(Clone, Copy, Debug)]
pub struct ClientView<'a> {
    /// `client_name`, or the `client_id` where it has none.
    pub name: &'a str,
    /// The host people are sent back to; `None` for a private-use scheme, which nobody can judge by sight.
    pub host: Option<&'a str>,
    pub logo_uri: Option<&'a str>,
    pub policy_uri: Option<&'a str>,
    pub tos_uri: Option<&'a str>,
}

/// A person as they know themselves.
#[derive(Clone, Copy, Debug)]
pub struct AccountView<'a> {
    /// The name; without one the e-mail address or username.
    pub name: &'a str,
    /// The e-mail address or username, unless `name` is that already.
    pub detail: Option<&'a str>,
}

/// What a page says before its form: read out at once by a screen reader (`role="alert"`).
#[derive(Clone, Copy, Debug)]
pub struct Alert<'a> {
    pub text: &'a str,
    pub tone: Tone,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tone {
    /// What was typed is refused: the fields are marked invalid. Both of them, so that neither tells which was right.
    Refused,
    /// Nothing typed was wrong: the page had expired, or the server is busy.
    Remark,
}

/// One scope on the consent page.
#[derive(Clone, Copy, Debug)]
pub struct ScopeView<'a> {
    pub name: &'a str,
    /// Completes "If you allow this, it can …": "See your e-mail address".
    pub sentence: &'a str,
    /// A few more words, quieter, in the same line.
    pub note: Option<&'a str>,
}

/// A labelled value, in type that can be read out over a telephone.
#[derive(Clone, Copy, Debug)]
pub struct Fact<'a> {
    pub label: &'a str,
    pub value: &'a str,
}

#[derive(Clone, Copy, Debug)]
pub struct Link<'a> {
    pub href: &'a str,
    pub label: &'a str,
}

/// One parameter of an authorization response.
#[derive(Clone, Copy, Debug)]
pub struct Field<'a> {
    pub name: &'a str,
    pub value: &'a str,
}

/// Sign-in; with `current_account` also the choice of an account (`prompt=select_account`).
///
/// Posts `username`, `password`, `csrf` and, where there is one, `ticket`; or `action=continue` in their place.
#[derive(Debug, Template)]
#[template(path = "pages/sign-in.html")]
pub struct SignInPage<'a> {
    pub chrome: Chrome<'a>,
    pub client: Option<ClientView<'a>>,
    pub current_account: Option<AccountView<'a>>,
    pub action: &'a str,
    /// What the field shows: what was typed before, or `login_hint`. May be empty.
    pub username: &'a str,
    pub alert: Option<Alert<'a>>,
    pub csrf: &'a str,
    pub ticket: Option<&'a str>,
    pub forgot_uri: Option<&'a str>,
    pub signup_uri: Option<&'a str>,
}

/// Posts `decision=allow` or `decision=deny`, `csrf` and `ticket`.
#[derive(Debug, Template)]
#[template(path = "pages/consent.html")]
pub struct ConsentPage<'a> {
    pub chrome: Chrome<'a>,
    pub client: ClientView<'a>,
    pub account: AccountView<'a>,
    /// "Not you?"
    pub switch_uri: Option<&'a str>,
    pub scopes: &'a [ScopeView<'a>],
    /// The resource indicators (RFC 8707) the access is for; empty for none.
    pub resources: &'a [&'a str],
    /// Where access can be taken back, once that page exists.
    pub account_uri: Option<&'a str>,
    pub action: &'a str,
    pub csrf: &'a str,
    pub ticket: &'a str,
}

#[derive(Debug, Template)]
#[template(path = "pages/signed-in.html")]
pub struct SignedInPage<'a> {
    pub chrome: Chrome<'a>,
    pub account: AccountView<'a>,
    pub logout_uri: &'a str,
    pub account_uri: Option<&'a str>,
}

/// Asks before a partner's link signs the browser in. Posts `token` and `csrf`.
#[derive(Debug, Template)]
#[template(path = "pages/handoff.html")]
pub struct HandOffPage<'a> {
    pub chrome: Chrome<'a>,
    /// The partner.
    pub client: ClientView<'a>,
    pub account: AccountView<'a>,
    /// Somebody else who is signed in now.
    pub replaces: Option<AccountView<'a>>,
    pub action: &'a str,
    pub csrf: &'a str,
    pub token: &'a str,
}

/// Asks before signing out (RP-Initiated Logout §2). Posts `action=logout` or `action=stay`, `csrf` and, where there
/// is one, `ticket`.
#[derive(Debug, Template)]
#[template(path = "pages/logout.html")]
pub struct LogoutPage<'a> {
    pub chrome: Chrome<'a>,
    /// Who asks, where the request says so verifiably.
    pub client: Option<ClientView<'a>>,
    pub account: AccountView<'a>,
    pub action: &'a str,
    pub csrf: &'a str,
    pub ticket: Option<&'a str>,
}

#[derive(Debug, Template)]
#[template(path = "pages/signed-out.html")]
pub struct SignedOutPage<'a> {
    pub chrome: Chrome<'a>,
    pub client: Option<ClientView<'a>>,
    /// The way back to the app.
    pub back: Option<Link<'a>>,
    /// The way in again.
    pub login_uri: Option<&'a str>,
}

/// Whatever went wrong: what happened, whose doing it is, what to do next.
#[derive(Debug, Template)]
#[template(path = "pages/error.html")]
pub struct ErrorPage<'a> {
    pub chrome: Chrome<'a>,
    /// For the tab: short, without the app's name.
    pub title: &'a str,
    pub heading: &'a str,
    pub lead: &'a str,
    /// The request id is always one of them.
    pub facts: &'a [Fact<'a>],
    pub back: Option<Link<'a>>,
}

/// OAuth 2.0 Form Post Response Mode §2: the answer travels as a form that sends itself, or is sent by its button.
///
/// The form must stay the first of the document; its CSP names no `form-action`, but `script-src 'nonce-…'`.
#[derive(Debug, Template)]
#[template(path = "pages/form-post.html")]
pub struct FormPostPage<'a> {
    pub chrome: Chrome<'a>,
    pub client: Option<ClientView<'a>>,
    /// The verified `redirect_uri`.
    pub action: &'a str,
    pub fields: &'a [Field<'a>],
    pub nonce: &'a str,
}

impl Chrome<'_> {
    fn initials(&self) -> String {
        initials(self.brand, 1)
    }
}

impl ClientView<'_> {
    fn initials(&self) -> String {
        initials(self.name, 2)
    }

    fn has_policies(&self) -> bool {
        self.policy_uri.is_some() || self.tos_uri.is_some()
    }
}

impl AccountView<'_> {
    fn initials(&self) -> String {
        initials(self.name, 1)
    }
}

impl Alert<'_> {
    fn is_refusal(&self) -> bool {
        self.tone == Tone::Refused
    }
}

impl ScopeView<'_> {
    /// The path of a picture on a 24 × 24 grid; decoration, the sentence says it all.
    fn icon(&self) -> &'static str {
        match self.name {
            "openid" => "M12 3l7.5 2.8v5.4c0 4.6-3.1 8-7.5 9.8-4.4-1.8-7.5-5.2-7.5-9.8V5.8zM8.8 12l2.3 2.3 4.2-4.4",
            "profile" => "M12 12a4 4 0 1 0 0-8 4 4 0 0 0 0 8ZM4.5 20c.8-3.4 3.8-5 7.5-5s6.7 1.6 7.5 5",
            "email" => "M3 6h18v12H3zM3.5 7l8.5 6 8.5-6",
            "phone" => "M8 3h8a1 1 0 0 1 1 1v16a1 1 0 0 1-1 1H8a1 1 0 0 1-1-1V4a1 1 0 0 1 1-1ZM11 18h2",
            "address" => {
                "M12 21s7-6 7-11.2a7 7 0 0 0-14 0C5 15 12 21 12 21ZM12 12.2a2.4 2.4 0 1 0 0-4.8 2.4 2.4 0 0 0 0 4.8Z"
            }
            "offline_access" => "M12 21a9 9 0 1 0 0-18 9 9 0 0 0 0 18ZM12 7v5l3.5 2",
            "groups" | "roles" => {
                "M9 11a3.5 3.5 0 1 0 0-7 3.5 3.5 0 0 0 0 7ZM2.5 19.5a6.5 5 0 0 1 13 0M16 4.3a3.5 3.5 0 0 1 0 6.4"
            }
            _ => "M5 12.5l4.5 4.5L19 7.5",
        }
    }
}

impl SignInPage<'_> {
    fn refused(&self) -> bool {
        self.alert.is_some_and(|alert| alert.is_refusal())
    }

    /// Focus goes where the person must act: the one-click way if it is there and nothing was typed yet, otherwise
    /// the first field that is still empty (a browser never gets the password back).
    fn focus_is(&self, id: &str) -> bool {
        let focus = match (self.current_account, self.username) {
            (Some(_), "") => "continue",
            (None, "") => "username",
            _ => "password",
        };
        focus == id
    }
}

/// Up to `most` letters that stand for `name`: the first of each word. Scripts whose letters join or carry marks get
/// one, which is all that stays legible in a small square.
fn initials(name: &str, most: usize) -> String {
    let mut letters = name.split_whitespace().filter_map(|word| word.chars().find(|c| c.is_alphanumeric()));
    let Some(first) = letters.next() else {
        return "·".to_owned();
    };
    let latin = |c: &char| u32::from(*c) < 0x250;
    let mut text: String = first.to_uppercase().collect();
    if latin(&first) && most > 1 {
        text.extend(letters.filter(latin).take(most - 1).flat_map(char::to_uppercase));
    }
    text
}

/// The stylesheet in the operator's accent (`#rrggbb`). It depends on nothing else, so a process makes it once and
/// serves it under a hash of its content.
pub fn stylesheet(accent: &str) -> String {
    let mut css = colour::custom_properties(accent);
    css.push_str(include_str!("../../../templates/pages/keyward.css"));
    css
}

/// A favicon as a `data:` URI: the brand's letter on the accent. Without one every first visit asks for
/// `/favicon.ico`, and the tab stays blank.
pub fn icon(brand: &str, accent: &str) -> String {
    let accent = Rgb::parse(accent).or_else(|| Rgb::parse(colour::DEFAULT_ACCENT)).unwrap_or(Rgb(0, 0, 0));
    // `initials` yields letters and digits (or a dot), so nothing here needs XML escapes.
    let svg = format!(
        "<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 32 32'><rect width='32' height='32' rx='9' \
         fill='{accent}'/><text x='16' y='22.5' text-anchor='middle' font-family='system-ui,sans-serif' \
         font-size='18' font-weight='700' fill='{}'>{}</text></svg>",
        accent.foreground(),
        initials(brand, 1),
    );
    let mut uri = String::from("data:image/svg+xml,");
    for byte in svg.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b' ' | b'=' | b':' | b'/' | b'-' | b'.' | b',' | b'\'' => {
                uri.push(char::from(byte));
            }
            // Writing to a String cannot fail.
            _ => drop(write!(uri, "%{byte:02X}")),
        }
    }
    uri
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOSTILE: &str = "<script>alert('1')</script>\"& ";

    const CHROME: Chrome<'_> = Chrome {
        brand: "Northwind ID",
        logo_uri: None,
        icon: "data:,",
        stylesheet: "/id/assets/keyward-0123.css",
        lang: "en",
        dir: "ltr",
        home_uri: None,
        privacy_uri: None,
        terms_uri: None,
        help_uri: None,
    };

    const CLIENT: ClientView<'_> = ClientView {
        name: "Study Planner",
        host: Some("study.example.com"),
        logo_uri: None,
        policy_uri: None,
        tos_uri: None,
    };

    const ALICE: AccountView<'_> = AccountView { name: "Alice Archer", detail: Some("alice@example.com") };

    fn sign_in<'a>(client: Option<ClientView<'a>>, username: &'a str) -> SignInPage<'a> {
        SignInPage {
            chrome: CHROME,
            client,
            current_account: None,
            action: "/id/login",
            username,
            alert: None,
            csrf: "c5rf",
            ticket: None,
            forgot_uri: None,
            signup_uri: None,
        }
    }

    /// Every page, each text and URL in it hostile.
    fn hostile_pages() -> Vec<(&'static str, String)> {
        let chrome = Chrome {
            brand: HOSTILE,
            logo_uri: Some(HOSTILE),
            icon: HOSTILE,
            stylesheet: HOSTILE,
            lang: HOSTILE,
            dir: HOSTILE,
            home_uri: Some(HOSTILE),
            privacy_uri: Some(HOSTILE),
            terms_uri: Some(HOSTILE),
            help_uri: Some(HOSTILE),
        };
        let client = ClientView {
            name: HOSTILE,
            host: Some(HOSTILE),
            logo_uri: Some(HOSTILE),
            policy_uri: Some(HOSTILE),
            tos_uri: Some(HOSTILE),
        };
        let account = AccountView { name: HOSTILE, detail: Some(HOSTILE) };
        let back = Some(Link { href: HOSTILE, label: HOSTILE });
        let scopes: Vec<_> = ["openid", "profile", "email", "phone", "address", "groups", "offline_access", HOSTILE]
            .map(|name| ScopeView { name, sentence: HOSTILE, note: Some(HOSTILE) })
            .into();
        let sign_in = SignInPage {
            chrome,
            current_account: Some(account),
            alert: Some(Alert { text: HOSTILE, tone: Tone::Refused }),
            action: HOSTILE,
            csrf: HOSTILE,
            ticket: Some(HOSTILE),
            forgot_uri: Some(HOSTILE),
            signup_uri: Some(HOSTILE),
            ..sign_in(Some(client), HOSTILE)
        };
        let consent = ConsentPage {
            chrome,
            client,
            account,
            switch_uri: Some(HOSTILE),
            scopes: &scopes,
            resources: &[HOSTILE, HOSTILE],
            account_uri: Some(HOSTILE),
            action: HOSTILE,
            csrf: HOSTILE,
            ticket: HOSTILE,
        };
        let signed_in = SignedInPage { chrome, account, logout_uri: HOSTILE, account_uri: Some(HOSTILE) };
        let logout =
            LogoutPage { chrome, client: Some(client), account, action: HOSTILE, csrf: HOSTILE, ticket: Some(HOSTILE) };
        let signed_out = SignedOutPage { chrome, client: Some(client), back, login_uri: Some(HOSTILE) };
        let facts = [Fact { label: HOSTILE, value: HOSTILE }];
        let error = ErrorPage { chrome, title: HOSTILE, heading: HOSTILE, lead: HOSTILE, facts: &facts, back };
        let fields = [Field { name: HOSTILE, value: HOSTILE }];
        let form_post = FormPostPage { chrome, client: Some(client), action: HOSTILE, fields: &fields, nonce: "n0nce" };
        vec![
            ("sign-in", sign_in.render().unwrap()),
            ("consent", consent.render().unwrap()),
            ("signed-in", signed_in.render().unwrap()),
            ("logout", logout.render().unwrap()),
            ("signed-out", signed_out.render().unwrap()),
            ("error", error.render().unwrap()),
            ("form-post", form_post.render().unwrap()),
        ]
    }

    #[test]
    fn whatever_the_text_nothing_escapes_it() {
        for (page, html) in hostile_pages() {
            assert!(!html.contains("<script>"), "{page}");
            assert!(!html.contains("1')"), "{page}: an unescaped apostrophe");
            assert_eq!(html.matches("<script").count(), usize::from(page == "form-post"), "{page}");
            for refused_by_csp in [" style=", "<style", " onload=", " onclick=", "javascript:"] {
                assert!(!html.contains(refused_by_csp), "{page}: {refused_by_csp}");
            }
        }
    }

    #[test]
    fn every_page_is_small_and_has_one_heading() {
        for (page, html) in hostile_pages() {
            assert!(html.len() < 10_000, "{page}: {} bytes", html.len());
            for once in ["<h1>", "<main", "<footer>", "<title>", "<html lang=", " dir="] {
                assert!(html.matches(once).count() == 1 || once == " dir=", "{page}: {once}");
            }
        }
    }

    #[test]
    fn the_stable_ids_are_there() {
        let pages = hostile_pages();
        for (page, ids) in [
            ("sign-in", &["username", "password", "login-submit", "login-continue"][..]),
            ("consent", &["consent-allow", "consent-deny"]),
            ("signed-in", &["sign-out"]),
            ("logout", &["logout-confirm", "logout-stay"]),
            ("form-post", &["form-post-continue"]),
        ] {
            let html = &pages.iter().find(|(name, _)| *name == page).unwrap().1;
            for id in ids {
                assert_eq!(html.matches(&format!(" id=\"{id}\"")).count(), 1, "{page}: {id}");
            }
        }
    }

    #[test]
    fn a_link_appears_only_when_given() {
        assert!(!sign_in(Some(CLIENT), "").render().unwrap().contains("<a "));
        let html = SignInPage { forgot_uri: Some("/id/password/forgot"), ..sign_in(None, "") }.render().unwrap();
        assert_eq!(html.matches("<a ").count(), 1);
        assert!(html.contains("href=\"/id/password/forgot\""));
        let client = ClientView { tos_uri: Some("https://study.example.com/tos"), ..CLIENT };
        let html = sign_in(Some(client), "").render().unwrap();
        assert!(
            html.contains("has its own <a href=\"https://study.example.com/tos\" rel=\"noopener noreferrer\">terms")
        );
        assert!(!html.contains("privacy policy"));
    }

    #[test]
    fn focus_is_where_the_person_must_act() {
        let focused = |page: SignInPage<'_>| {
            let html = page.render().unwrap();
            assert_eq!(html.matches(" autofocus").count(), 1);
            let before = &html[..html.find(" autofocus").unwrap()];
            let id = &before[before.rfind(" id=\"").unwrap() + 5..];
            id[..id.find('"').unwrap()].to_owned()
        };
        let chooser = |username| SignInPage { current_account: Some(ALICE), ..sign_in(None, username) };
        assert_eq!(focused(sign_in(None, "")), "username");
        assert_eq!(focused(sign_in(None, "alice")), "password");
        assert_eq!(focused(chooser("")), "login-continue");
        assert_eq!(focused(chooser("bob")), "password");
    }

    #[test]
    fn a_refusal_marks_both_fields_and_a_remark_none() {
        let with = |tone| {
            let alert = Some(Alert { text: "That name and password don’t match.", tone });
            SignInPage { alert, ..sign_in(None, "alice") }.render().unwrap()
        };
        assert_eq!(with(Tone::Refused).matches("aria-invalid=\"true\" aria-describedby=\"alert\"").count(), 2);
        assert_eq!(with(Tone::Remark).matches("aria-invalid").count(), 0);
        assert_eq!(with(Tone::Remark).matches("aria-describedby=\"alert\"").count(), 2);
        assert_eq!(sign_in(None, "alice").render().unwrap().matches("alert").count(), 0);
    }

    #[test]
    fn initials_stand_for_any_name() {
        for (name, one, two) in [
            ("Study Planner", "S", "SP"),
            ("northwind", "N", "N"),
            ("«Élan» & vital force", "É", "ÉV"),
            ("学習プランナー", "学", "学"),
            ("مخطط الدراسة", "م", "م"),
            ("Plan 学習", "P", "P"),
            ("🦀", "·", "·"),
            ("", "·", "·"),
        ] {
            assert_eq!((initials(name, 1).as_str(), initials(name, 2).as_str()), (one, two), "{name}");
        }
    }

    #[test]
    fn the_stylesheet_knows_every_property_it_uses() {
        let css = stylesheet("#ffff00");
        assert!(css.contains("--on-accent: #000000;"));
        for used in css.split("var(--").skip(1).filter_map(|rest| rest.split(')').next()) {
            assert!(css.contains(&format!("--{used}:")), "--{used} is used and nowhere set");
        }
    }

    #[test]
    fn the_icon_is_a_data_uri_that_needs_no_escape() {
        let uri = icon("Ωmega <b>", "#00ff00");
        assert!(uri.starts_with("data:image/svg+xml,%3Csvg "));
        assert!(uri.contains("fill='%2300ff00'") && uri.contains("fill='%23000000'") && uri.contains("%CE%A9"));
        assert!(uri.bytes().all(|b| b.is_ascii() && b != b'"' && b != b'<' && b != b'>'));
    }
}
