//! Hashes that other systems made, by system, each with the password it was made from.

use super::{Cost, check, needs_rehash, verify};

const PASSWORD: &str = "correct horse";
const UTF8: &str = "pässwörd ✓";

const VECTORS: &[(&str, &str, &str)] = &[
    (
        "libargon2 argon2id",
        PASSWORD,
        "$argon2id$v=19$m=64,t=2,p=2$c29tZXNhbHRzb21lc2FsdA$LVr/qFyJfQnLIJEsT7ZMHuD8MbMrxYDn",
    ),
    (
        "libargon2 argon2i",
        PASSWORD,
        "$argon2i$v=19$m=64,t=2,p=2$c29tZXNhbHRzb21lc2FsdA$OLc+I7FGGRGBvl1OmhNj9MELdbYznbJk",
    ),
    (
        "libargon2 argon2d",
        PASSWORD,
        "$argon2d$v=19$m=64,t=2,p=2$c29tZXNhbHRzb21lc2FsdA$bVJtUdcAa4iyT71IfQ3RRzC6LDQaT7GB",
    ),
    (
        "libargon2 argon2i 1.0",
        PASSWORD,
        "$argon2i$v=16$m=64,t=2,p=1$c29tZXNhbHRzb21lc2FsdA$1Z2Yard74fm6b7ad3ZXPpY9ZFBZ56e0Td+ZQ0ZTn2S8",
    ),
    (
        "libargon2 argon2i 1.0 before it was written down",
        PASSWORD,
        "$argon2i$m=64,t=2,p=1$c29tZXNhbHRzb21lc2FsdA$1Z2Yard74fm6b7ad3ZXPpY9ZFBZ56e0Td+ZQ0ZTn2S8",
    ),
    (
        "Django argon2",
        PASSWORD,
        "argon2$argon2id$v=19$m=256,t=2,p=2$YWJjZGVmZ2hpamtsbW5vcA$GvThIDTF+FUClyJCEYSB7wtRqsvWJTCpfsTntNhpLws",
    ),
    ("passlib bcrypt 2a", PASSWORD, "$2a$04$jrybOHaanRfIg4I/PQB.bu9Gi.gw6ByaOptjZB9gzHYJe19rV7HG2"),
    ("passlib bcrypt 2b", PASSWORD, "$2b$04$7MaB/Wd3MJvEmBJI2Svn2umqnPcpfUUK/PnWdnEp.9BYKi4.8vD.W"),
    ("passlib bcrypt 2y", PASSWORD, "$2y$04$vAxkDXhZEZNAKEU.tLX3yerV3SlunaDGnoKTau7ZaeTOoVkp0jAG2"),
    ("passlib bcrypt in UTF-8", UTF8, "$2b$04$0TnXf16u/VTgRGwh9ql0iuu6nSAq/eAqD6WLqwOektsb/6pvnEm4."),
    ("jBCrypt, the empty password", "", "$2a$06$DCq7YPn5Rq63x1Lad4cll.TV4S6ytwfsfvkgY8jIucDrjc8deX1s."),
    ("jBCrypt", "a", "$2a$06$m0CrhHm10qJ3lXRY.5zDGO3rS2KdeeWLuGmsfGlMfOxih58VYVfxe"),
    (
        "libxcrypt, cut at 72 bytes",
        "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
        "$2b$04$abcdefghijklmnopqrstuuBzzIgyKkz7xMWYSzkIjUSnxEQFQ0WNe",
    ),
    ("Django bcrypt", PASSWORD, "bcrypt$$2b$04$cDNVqx73frQWkaXVTa4Zy.kPoxSwkCN754vDWLVuOhJtc/6soBovS"),
    ("Django bcrypt_sha256", PASSWORD, "bcrypt_sha256$$2b$04$i73NE46t70BejcU/DjxlIu9vv4KCTq1/gXuwISs.OlVQ7F0E5k9xO"),
    (
        "Django bcrypt_sha256 in UTF-8",
        UTF8,
        "bcrypt_sha256$$2b$04$9IFxJOijG5YnoVzkzhkCQ.BnXBs60LPZi.g71xnrZsRIggly3qFUC",
    ),
    (
        "passlib bcrypt-sha256, version 2",
        PASSWORD,
        "$bcrypt-sha256$v=2,t=2b,r=4$zoSwIEGRWnoqsaxBvP0bw.$tLIjFClsDDHqcRsreMYqcruNEm9PCKi",
    ),
    (
        "passlib bcrypt-sha256, version 1",
        PASSWORD,
        "$bcrypt-sha256$2b,4$kCf2qbudF3p81UPOO..Ubu$an8Bu6In7oXiDnK9skRP.k53O.8ZjX6",
    ),
    (
        "PHC pbkdf2-sha256",
        PASSWORD,
        "$pbkdf2-sha256$i=1000,l=32$yMnKy8zNzs/Q0dLT1NXW1w$TwRueOdCB6KCbpfU0/4XAabBqcM+xth4i3zmIlph9+Q",
    ),
    (
        "PHC pbkdf2-sha512",
        PASSWORD,
        "$pbkdf2-sha512$i=1000,l=64$yMnKy8zNzs/Q0dLT1NXW1w$4xPvOlNzcf4w83OeXLs00cDMTZ/Jcuh8hwgCDBR1y9KhNdPKjKCw1sE1hBb/KcVzJbfBhesdf0dIDnsHZEmvjw",
    ),
    ("passlib pbkdf2_sha1", PASSWORD, "$pbkdf2$1000$fC/lHONcqzXmvFdKiXFOqQ$MLGrcKt2ohqDW2kwFw4Q2KSqjUc"),
    (
        "passlib pbkdf2_sha256",
        PASSWORD,
        "$pbkdf2-sha256$1000$IKR0LmWsNeY8p5TSWqs1Jg$ssNLnZilknVoOoko0.GbnBz3xddYxhxS4tHlEpLBe.Q",
    ),
    (
        "passlib pbkdf2_sha512",
        PASSWORD,
        "$pbkdf2-sha512$1000$am3NeS8FwJhTCqH0PmdszQ$lN8YquMVxEYxe.JpVxP2RZljs18MJsLgHHuDXbkAR.bp9rYHU6LhbiqB1yVSZUekbdrDZaBi0U2fhOtwjW6Uqw",
    ),
    ("Django pbkdf2_sha256", PASSWORD, "pbkdf2_sha256$1000$saltysalt1234$c3jOI47fuGNKFagfqyuY8742gjHULQ0mVkuxCveRFwk="),
    (
        "Django pbkdf2_sha256 in UTF-8",
        UTF8,
        "pbkdf2_sha256$1000$saltysalt1234$YvZ81pWIJ8c9ypUCyocgULUSBEIi+hPiurUSTIhpTII=",
    ),
    ("Django pbkdf2_sha1", PASSWORD, "pbkdf2_sha1$1000$saltysalt1234$tx6GF+RJXc/xtv8dr1JbMK6V0Ww="),
    ("Werkzeug sha1", PASSWORD, "pbkdf2:sha1:1000$bKki8mtqlnzprhkX$e86da8d2d210324c13805fe60d81f4d400985afd"),
    (
        "Werkzeug sha256",
        PASSWORD,
        "pbkdf2:sha256:1000$8riccwA9plZaxdqG$3d62fb3b47477ce27799b10f81278c71484b7c839777d9c3f2fb8c895903067a",
    ),
    (
        "Werkzeug sha512",
        PASSWORD,
        "pbkdf2:sha512:1000$4PwornOrRSEbSP8R$ba6f926390b4697a8fdaea344c818f0bca178a3142636012cfd099bc0b9d0ad840e46cd03134a7f6ae54262ac0dfe1c55efe14df111d38d7eb0137fb728bfb73",
    ),
    ("ASP.NET Core Identity 2", "my password", "AAABAgMEBQYHCAkKCwwNDg+ukCEMDf0yyQ29NYubggHIVY0sdEUfdyeM+E1LtH1uJg=="),
    (
        "ASP.NET Core Identity 3 with SHA-1",
        "my password",
        "AQAAAAAAAAD6AAAAEAhftMyfTJylOlZT+eEotFXd1elee8ih5WsjXaR3PA9M",
    ),
    (
        "ASP.NET Core Identity 3 with SHA-256",
        "my password",
        "AQAAAAEAA9CQAAAAIESkQuj2Du8Y+kbc5lcN/W/3NiAZFEm11P27nrSN5/tId+bR1SwV8CO1Jd72r4C08OLvplNlCDc3oQZ8efcW+jQ=",
    ),
    (
        "ASP.NET Core Identity 3 with SHA-512",
        "my password",
        "AQAAAAIAAAD6AAAAIJbVi5wbMR+htSfFp8fTw8N8GOS/Sje+S/4YZcgBfU7EQuqv4OkVYmc4VJl9AGZzmRTxSkP7LtVi9IWyUxX8IAAfZ8v+ZfhjCcudtC1YERSqE1OEdXLW9VukPuJWBBjLuw==",
    ),
    (
        "Keycloak pbkdf2, as objects",
        PASSWORD,
        r#"{"type":"password","secretData":{"value":"zUsdkDhLT5OD/dmWT/xuh/Z9uCs=","salt":"yMnKy8zNzs/Q0dLT1NXW1w=="},"credentialData":{"hashIterations":1000,"algorithm":"pbkdf2"}}"#,
    ),
    (
        "Keycloak pbkdf2-sha256",
        PASSWORD,
        r#"{"id":"7","type":"password","userLabel":"My password","createdDate":1700000000000,"secretData":"{\"value\":\"TwRueOdCB6KCbpfU0/4XAabBqcM+xth4i3zmIlph9+T10blw+Kx5CxgiwDT/qA7fG2J6ypdgdtM9EOSSodZT/g==\",\"salt\":\"yMnKy8zNzs/Q0dLT1NXW1w==\",\"additionalParameters\":{}}","credentialData":"{\"hashIterations\":1000,\"algorithm\":\"pbkdf2-sha256\",\"additionalParameters\":{}}"}"#,
    ),
    (
        "Keycloak pbkdf2-sha512 in UTF-8",
        UTF8,
        r#"{"secretData":"{\"value\":\"DB2iWFwnq+OaerL7eNjQ1nrWJO/6ams/Y7Nry06oNmiSSeXMW+BNvMbLUq9XCRf7wJvdh5BBIM869kzUdZuIyQ==\",\"salt\":\"yMnKy8zNzs/Q0dLT1NXW1w==\"}","credentialData":"{\"hashIterations\":1000,\"algorithm\":\"pbkdf2-sha512\"}"}"#,
    ),
    (
        "Keycloak argon2",
        PASSWORD,
        r#"{"secretData":"{\"value\":\"XcNNpZYxQx1QP1nf4UQcymmlW1FvTT73HpAT1FA+1uU=\",\"salt\":\"yMnKy8zNzs/Q0dLT1NXW1w==\"}","credentialData":"{\"hashIterations\":5,\"algorithm\":\"argon2\",\"additionalParameters\":{\"hashLength\":[\"32\"],\"memory\":[\"256\"],\"type\":[\"id\"],\"version\":[\"1.3\"],\"parallelism\":[\"1\"]}}"}"#,
    ),
];

#[test]
fn hashes_of_other_systems_match_their_password_and_no_other() {
    for (system, password, hash) in VECTORS {
        assert_eq!(check(hash), Ok(()), "{system}");
        assert!(verify(password, hash), "{system}");
        for wrong in ["Correct horse", "correct horse ", "x", &format!("x{password}")] {
            assert!(!verify(wrong, hash), "{system}: {wrong}");
        }
        assert!(password.is_empty() || !verify("", hash), "{system}");
        assert!(needs_rehash(hash, Cost { memory_kib: 64, iterations: 2 }), "{system}");
    }
}

/// There the rest was never looked at, so people may be used to typing anything behind.
#[test]
fn bcrypt_looks_at_72_bytes() {
    let hash = "$2b$04$BDsVkdxuXCs61YBQN/g.Wuy4Cwa3gOgROoDCdjmy5C5eOzRzZFeE.";
    let head = format!("{}y", "x".repeat(71));
    for (password, matches) in
        [(format!("{head}z-and-more"), true), (head.clone(), true), (head[..71].to_owned(), false)]
    {
        assert_eq!(verify(&password, hash), matches, "{password}");
    }
    // Where the password is hashed first, all of it counts.
    let hash = "bcrypt_sha256$$2b$04$i73NE46t70BejcU/DjxlIu9vv4KCTq1/gXuwISs.OlVQ7F0E5k9xO";
    assert!(!verify(&format!("{}{}", "correct horse", "x".repeat(72)), hash));
}

/// Cut where less than a digest is left, or with one character of its digest changed.
#[test]
fn a_spoiled_hash_matches_nothing() {
    for (system, password, hash) in VECTORS.iter().filter(|(system, ..)| !system.contains("with SHA-256")) {
        for at in (0..hash.len() / 3).step_by(5) {
            assert!(!verify(password, &hash[..at]), "{system}: {}", &hash[..at]);
        }
        // Not the last characters, some of whose bits mean nothing; nor what Keycloak writes behind the digest.
        for at in hash.len() - 18..hash.len() - 3 {
            let other = if &hash[at..=at] == "1" { "2" } else { "1" };
            let spoiled = format!("{}{other}{}", &hash[..at], &hash[at + 1..]);
            assert!(system.contains("Keycloak") || !verify(password, &spoiled), "{system}: {spoiled}");
        }
    }
}

#[test]
fn what_cannot_be_verified_is_refused_with_the_reason() {
    let salt = "c29tZXNhbHRzb21lc2FsdA";
    let digest = "1Z2Yard74fm6b7ad3ZXPpY9ZFBZ56e0Td+ZQ0ZTn2S8";
    let bcrypt = "7MaB/Wd3MJvEmBJI2Svn2umqnPcpfUUK/PnWdnEp.9BYKi4.8vD.W";
    let keycloak = |secret: &str, data: &str| format!(r#"{{"secretData":{secret},"credentialData":{data}}}"#);
    let secret = r#"{"value":"zUsdkDhLT5OD/dmWT/xuh/Z9uCs=","salt":"yMnKy8zNzs/Q0dLT1NXW1w=="}"#;
    for (hash, reason) in [
        (String::new(), "no argon2, bcrypt or PBKDF2 hash"),
        ("x".repeat(5000), "longer than any"),
        ("5f4dcc3b5aa765d61d8327deb882cf99".to_owned(), "no argon2, bcrypt or PBKDF2 hash"),
        ("$6$saltsalt$abc".to_owned(), "no argon2, bcrypt or PBKDF2 hash"),
        ("{SSHA}W6ph5Mm5Pz8GgiULbPgzG37mj9g=".to_owned(), "no argon2, bcrypt or PBKDF2 hash"),
        ("scrypt:32768:8:1$salt$aa".to_owned(), "scrypt"),
        (format!("$argon2id$v=19$m=2097152,t=2,p=1${salt}${digest}"), "m=2097152; at most 1048576"),
        (format!("$argon2id$v=19$m=64,t=65,p=1${salt}${digest}"), "t=65; at most 64"),
        (format!("$argon2id$v=19$m=256,t=2,p=17${salt}${digest}"), "p=17; at most 16"),
        (format!("$argon2x$v=19$m=64,t=2,p=1${salt}${digest}"), "cannot be read"),
        (format!("$argon2id$v=21$m=64,t=2,p=1${salt}${digest}"), "cannot be read"),
        (format!("$argon2id$v=19$m=64,t=2,p=1${salt}"), "digest is missing"),
        (format!("$argon2id$v=19$m=64,t=2,p=1${salt}$c29tZXNhbHRzb20"), "digest of this argon2 hash has not 16"),
        (format!("$argon2id$v=19$m=64,t=2,p=1$c2FsdA${digest}"), "salt of this argon2 hash has less than 8"),
        (format!("$argon2id$v=19$m=64,t=2,p=1,keyid=c2FsdA${salt}${digest}"), "keyid"),
        (format!("$2x$04${bcrypt}"), "2x come from a faulty implementation"),
        (format!("$2$04${bcrypt}"), "unknown version"),
        (format!("$2b$17${bcrypt}"), "cost 17; at most 16"),
        (format!("$2b$31${bcrypt}"), "cost 31; at most 16"),
        (format!("$2b$99999999999${bcrypt}"), "not a number"),
        (format!("$2b$03${bcrypt}"), "cost 3, which is less"),
        (format!("$2b$+4${bcrypt}"), "not a number"),
        (format!("$2b$04${}", &bcrypt[..21]), "cut short"),
        (format!("$2b$04${}", &bcrypt[..52]), "digest of this bcrypt hash"),
        (format!("$2b$04${bcrypt}.."), "digest of this bcrypt hash"),
        (format!("$2b$04${}é{}", &bcrypt[..21], &bcrypt[22..]), "cut short"),
        (format!("bcrypt$sha256$2b$04${bcrypt}"), "cannot be read"),
        (
            "$bcrypt-sha256$v=3,t=2b,r=4$zoSwIEGRWnoqsaxBvP0bw.$tLIjFClsDDHqcRsreMYqcruNEm9PCKi".to_owned(),
            "unknown version",
        ),
        ("$bcrypt-sha256$v=2,t=2b,r=30$zoSwIEGRWnoqsaxBvP0bw.$tLIjFClsDDHqcRsreMYqcruNEm9PCKi".to_owned(), "cost 30"),
        (format!("$pbkdf2-sha256$10000001${salt}${digest}"), "10000001 iterations; 1 to 10000000"),
        (format!("$pbkdf2-sha256$99999999999999${salt}${digest}"), "iterations; 1 to 10000000"),
        (format!("$pbkdf2-sha256$0${salt}${digest}"), "0 iterations"),
        (format!("$pbkdf2-sha256$-1${salt}${digest}"), "not a number"),
        (format!("$pbkdf2-sha256$i=1000,l=31${salt}${digest}"), "length l"),
        (format!("$pbkdf2-sha256$i=1000,x=1${salt}${digest}"), "besides i and l"),
        (format!("$pbkdf2-md5$1000${salt}${digest}"), "SHA-1, SHA-256 or SHA-512"),
        (format!("$pbkdf2-sha256$1000${salt}$"), "digest of this PBKDF2 hash has not 16"),
        (format!("$pbkdf2-sha256$1000${salt}$!"), "cannot be read"),
        ("pbkdf2_sha256$1000$salt".to_owned(), "cannot be read"),
        (format!("pbkdf2_sha256$1000$salt${digest}$x"), "cannot be read"),
        ("pbkdf2:sha256$salt$aa".to_owned(), "how many iterations"),
        ("pbkdf2:sha256:1000$salt$abc".to_owned(), "cannot be read"),
        ("pbkdf2:sha256:1000$salt$zz".to_owned(), "cannot be read"),
        // ASP.NET Core Identity with 0x7fffffff iterations.
        (
            "AQAAAAF/////AAAAEMjJysvMzc7P0NHS09TV1tczdGGrbpg4Yvgdm9W1A2pTEGldr8zR0XUcq/IRBSLo+A==".to_owned(),
            "2147483647 iterations",
        ),
        ("AQAAAAkAACcQAAAAEMjJysvMzc7P0NHS09TV1tczdGGrbpg4Yvgdm9W1A2pTEGldr8zR0XUcq/IRBSLo+A==".to_owned(), "ASP.NET"),
        (keycloak(secret, r#"{"hashIterations":1000,"algorithm":"md5"}"#), "Keycloak credential is not made with"),
        (keycloak(secret, r#"{"hashIterations":"1000","algorithm":"pbkdf2"}"#), "`hashIterations`"),
        (keycloak(secret, r#"{"hashIterations":99999999999,"algorithm":"pbkdf2"}"#), "iterations; 1 to"),
        (keycloak(r#""{""#, r#"{"hashIterations":1000,"algorithm":"pbkdf2"}"#), "`secretData`"),
        (keycloak(r#"{"value":"%","salt":""}"#, r#"{"hashIterations":1000,"algorithm":"pbkdf2"}"#), "`value`"),
        (keycloak(secret, r#"{"hashIterations":5,"algorithm":"argon2"}"#), "`type`"),
        (r#"{"type":"otp","secretData":{},"credentialData":{}}"#.to_owned(), "no password"),
    ] {
        let refused = check(&hash).expect_err(&hash);
        assert!(refused.to_string().contains(reason), "{hash}: {refused}");
        assert!(!verify("correct horse", &hash), "{hash}");
    }
}
