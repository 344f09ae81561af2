"""Verifies access tokens as a service would that knows nothing but the issuer (PyJWT).

    python verify.py ISSUER < tokens.json     # {"name": "eyJ…", …}

Prints the claims of each by its name. Ends with an error where a token does not verify, or where one does that must not.
"""

import json
import sys
import urllib.request

import jwt

issuer = sys.argv[1]
with urllib.request.urlopen(f"{issuer}/.well-known/openid-configuration") as answer:
    discovered = json.load(answer)
assert discovered["issuer"] == issuer, discovered
keys = jwt.PyJWKClient(discovered["jwks_uri"])


def verify(token, **changes):
    checks = {
        "algorithms": ["RS256"],
        "audience": issuer,
        "issuer": issuer,
        "leeway": 5,
        "options": {"require": ["exp", "iat", "sub", "aud", "iss"]},
    }
    return jwt.decode(token, keys.get_signing_key_from_jwt(token), **(checks | changes))


def refuses(error, token, **changes):
    try:
        verify(token, **changes)
    except error:
        return
    raise AssertionError(f"{error.__name__} was to be raised with {changes}")


claims = {}
for name, token in json.load(sys.stdin).items():
    claims[name] = verify(token)
    refuses(jwt.InvalidAudienceError, token, audience="https://elsewhere.example")
    refuses(jwt.InvalidIssuerError, token, issuer="https://elsewhere.example")
    refuses(jwt.InvalidAlgorithmError, token, algorithms=["HS256", "ES256"])
    # In 400 days, as far as it can tell.
    later = {"leeway": -400 * 24 * 3600, "options": {"verify_iat": False}}
    refuses(jwt.ExpiredSignatureError, token, **later)
    head, payload, signature = token.split(".")
    other = payload[:-4] + ("AAAA" if payload[-4:] != "AAAA" else "BBBB")
    refuses(jwt.InvalidTokenError, f"{head}.{other}.{signature}")
    refuses(jwt.InvalidSignatureError, f"{head}.{payload}.{signature[:-8]}AAAAAAAA")
json.dump(claims, sys.stdout)
