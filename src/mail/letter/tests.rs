//! What letters say, and what can never be put into them.

use super::*;
use crate::mail::carrier::Fault;

const AT: Timestamp = Timestamp(1_800_000_000_000);

impl Letterhead {
    pub fn for_tests() -> Self {
        Self {
            from: "Northwind ID <no-reply@id.test>".parse().expect("a mailbox"),
            brand: Brand {
                name: "Northwind ID".to_owned(),
                logo_file: None,
                accent: "#3d5afe".to_owned(),
                privacy_uri: Some("https://northwind.test/privacy?a=1&b=2".to_owned()),
                terms_uri: None,
                help_uri: Some("https://northwind.test/help".to_owned()),
            },
            issuer: "https://id.test".to_owned(),
            host: "id.test".to_owned(),
        }
    }

    pub fn letter_for_tests(&self, id: &str) -> Letter {
        self.write(id, "ann@school.test", Content::Test, AT).expect("a letter")
    }

    fn welcome(&self, partner_name: &str) -> Letter {
        let mail = Mail::Welcome { partner_name: partner_name.to_owned() };
        self.write("Id-1", "ann@school.test", Content::Mail(&mail), AT).expect("a letter")
    }
}

/// The headers, with folded lines joined, and what follows them.
fn parts(letter: &Letter) -> (Vec<String>, String) {
    let text = String::from_utf8(letter.message.clone()).expect("text");
    assert!(text.is_ascii() && text.replace("\r\n", "").find(['\r', '\n']).is_none(), "{text}");
    let (head, body) = text.split_once("\r\n\r\n").expect("a body");
    let head = head.replace("\r\n ", " ");
    (head.lines().map(str::to_owned).collect(), body.to_owned())
}

fn header<'a>(headers: &'a [String], name: &str) -> Vec<&'a str> {
    headers.iter().filter_map(|line| line.strip_prefix(name)?.strip_prefix(": ")).collect()
}

/// A body of quoted-printable or plain parts, decoded far enough to be searched.
fn readable(body: &str) -> String {
    let joined = body.replace("=\r\n", "");
    let mut bytes = Vec::new();
    let mut rest = joined.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        let code = (*first == b'=').then(|| tail.get(..2)).flatten();
        let code = code.and_then(|hex| u8::from_str_radix(std::str::from_utf8(hex).ok()?, 16).ok());
        bytes.push(code.unwrap_or(*first));
        rest = if code.is_some() { &tail[2..] } else { tail };
    }
    String::from_utf8(bytes).expect("text")
}

#[test]
fn a_welcome_says_who_made_which_account_where_and_how_to_get_help() {
    let (headers, body) = parts(&Letterhead::for_tests().welcome("Acme School"));
    for (name, expected) in [
        ("From", "\"Northwind ID\" <no-reply@id.test>"),
        ("To", "ann@school.test"),
        ("Subject", "Acme School made you an account at Northwind ID"),
        ("Date", "Fri, 15 Jan 2027 08:00:00 +0000"),
        ("Message-ID", "<Id-1@id.test>"),
        ("Auto-Submitted", "auto-generated"),
        ("MIME-Version", "1.0"),
    ] {
        assert_eq!(header(&headers, name), [expected], "{headers:#?}");
    }
    assert!(header(&headers, "Content-Type")[0].starts_with("multipart/alternative"), "{headers:#?}");
    let body = readable(&body);
    let (text, html) = body.split_once("text/html").expect("two parts");
    for part in [text, html] {
        for word in
            ["Acme School", "Northwind ID", "https://id.test", "https://northwind.test/help", "northwind.test/privacy"]
        {
            assert!(part.contains(word), "{word} is missing in {part}");
        }
        // The local part of an address is chosen by whoever asked for the mail, and readers make links of such text.
        assert!(!part.contains("ann@school.test"), "{part}");
    }
    assert!(html.contains("privacy?a=1&#38;b=2") || html.contains("privacy?a=1&amp;b=2"), "{html}");
    assert!(html.contains("<html lang=\"en\">") && html.contains("prefers-color-scheme: dark"), "{html}");
}

#[test]
fn without_help_and_privacy_nothing_speaks_of_them() {
    let mut head = Letterhead::for_tests();
    (head.brand.help_uri, head.brand.privacy_uri) = (None, None);
    let body = readable(&parts(&head.welcome("Acme")).1);
    assert!(!body.contains("rivacy") && !body.contains("Help") && body.contains("Acme"), "{body}");
}

#[test]
fn a_partners_name_stays_a_name() {
    for (name, shown) in [
        ("<b>Acme</b> & \"Co\"", "<b>Acme</b> & \"Co\""),
        ("Acme\r\nBcc: eve@evil.test", "Acme Bcc: eve@evil.test"),
        ("Acme\r\n\r\n<p>Hello", "Acme <p>Hello"),
        ("A\u{0}c\u{7f}m\u{85}e\u{2028}x", "A c m e x"),
        ("\u{202e}emcA\u{2066}\u{200b}\u{feff}", "emcA"),
        ("  \t ", "A partner"),
        (&"x".repeat(500), &format!("{}…", "x".repeat(79))),
    ] {
        let letter = Letterhead::for_tests().welcome(name);
        let (headers, body) = parts(&letter);
        let known = ["From", "To", "Subject", "Date", "Message-ID", "Auto-Submitted", "MIME-Version", "Content-Type"];
        let names: Vec<_> = headers.iter().map(|line| line.split(':').next().unwrap_or_default()).collect();
        assert_eq!(names.len(), known.len(), "{headers:#?}");
        assert!(known.iter().all(|known| names.contains(known)), "{headers:#?}");
        let body = readable(&body);
        let (text, html) = body.split_once("text/html").expect("two parts");
        assert!(text.contains(&format!("{shown} has made an account")), "{name:?}: {text}");
        assert!(!html.contains("<b>Acme") && !html.contains("<p>Hello"), "{html}");
        assert_eq!(body.matches("=_Id-1").count(), 3, "{body}");
    }
}

#[test]
fn only_addresses_that_mail_can_reach_are_written_to() {
    let head = Letterhead::for_tests();
    let write = |to: &str| head.write("a", to, Content::Test, AT);
    for (to, expected) in [
        ("Ann@School.test", "ann@school.test"),
        ("ann+k@bücher.test", "ann+k@xn--bcher-kva.test"),
        ("änne@bücher.test", "änne@xn--bcher-kva.test"),
    ] {
        assert_eq!(write(to).expect(to).envelope.to()[0].to_string(), expected);
    }
    for to in [
        "",
        "ann",
        "@school.test",
        "ann@",
        "ann@school.test\r\nBcc: eve@evil.test",
        "a b@school.test",
        "ann@-",
        "ann@a b",
    ] {
        assert_eq!(write(to).map(|letter| letter.name).expect_err(to).fault, Fault::Refused, "{to}");
    }
}

#[test]
fn the_same_mail_is_the_same_letter_to_the_byte() {
    let head = Letterhead::for_tests();
    assert_eq!(head.welcome("Acme").message, head.welcome("Acme").message);
    assert_eq!(head.welcome("Acme").name, "20270115T080000Z-Id-1");
}
