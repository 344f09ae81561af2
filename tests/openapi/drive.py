"""Drives every operation of /v1/openapi.json with schemathesis: by an API key, in a browser's session, and as a partner.

Starts `keyward dev` in an empty directory (the program is the one that KEYWARD_BIN names) and stops it. Ends with 1 where an answer is not
what the document says, or where an operation was never answered with what it promises.
"""

import http.cookiejar
import json
import os
import re
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request

# Not for the program, to which it would be an unknown setting.
PROGRAM = os.environ.pop("KEYWARD_BIN")
# What the document promises must hold for whatever is sent. `positive_data_acceptance` wants a success for every body of
# the right form; a key of the right form is still a bad key.
UNCHECKED = ["positive_data_acceptance"]


def free_ports():
    with socket.socket() as one, socket.socket() as other:
        for taken in (one, other):
            taken.bind(("127.0.0.1", 0))
        return one.getsockname()[1], other.getsockname()[1]


class Browser:
    """Cookies, and forms that are sent as they stand."""

    def __init__(self, issuer):
        self.issuer = issuer
        self.jar = http.cookiejar.CookieJar()
        self.opener = urllib.request.build_opener(
            urllib.request.ProxyHandler({}), urllib.request.HTTPCookieProcessor(self.jar)
        )

    def sign_in(self, user):
        page = self.opener.open(f"{self.issuer}/login").read().decode()
        hidden = dict(re.findall(r'<input type="hidden" name="([^"]+)" value="([^"]*)"', page))
        form = urllib.parse.urlencode({**hidden, **user}).encode()
        self.opener.open(f"{self.issuer}/login", form).read()
        return next(cookie.value for cookie in self.jar if cookie.name == "keyward_session")

    def call(self, method, path, body=None, headers=(), lines=None):
        data = None if body is None else json.dumps(body).encode()
        data = data if lines is None else lines.encode()
        request = urllib.request.Request(f"{self.issuer}{path}", data, dict(headers), method=method)
        if data is not None:
            request.add_header("Content-Type", "application/json" if lines is None else "application/x-ndjson")
        try:
            with self.opener.open(request) as answer:
                text = answer.read()
                return answer.status, json.loads(text) if text else None
        except urllib.error.HTTPError as error:
            return error.code, json.loads(error.read())


def wait_until_up(url, process, log):
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    for _ in range(600):
        if process.poll() is not None:
            sys.exit(f"keyward ended with {process.returncode}: {open(log, encoding='utf-8').read()}")
        try:
            return json.loads(opener.open(url).read())
        except urllib.error.URLError:
            time.sleep(0.1)
    sys.exit(f"{url} does not answer")


def walk(issuer, credentials, document):
    """Every operation once as it is meant, so that none is described that nobody can use."""
    key, user = credentials["api_key"], credentials["user"]
    person, machine = Browser(issuer), Browser(issuer)
    person.sign_in(user)
    used = set()

    def expect(browser, status, method, path, template=None, **rest):
        got, body = browser.call(method, path, **rest)
        assert got == status, f"{method} {path}: {got} {body}"
        operation = document["paths"][template or path][method.lower()]
        assert str(status) in operation["responses"], f"{method} {path}: {status} is not described"
        used.add((method.lower(), template or path))
        return body

    tokens = expect(machine, 200, "POST", "/v1/auth/api-key/login", body={"api_key": key, "scope": "openid profile"})
    expect(machine, 200, "POST", "/v1/auth/refresh", body={"refresh_token": tokens["refresh_token"]})
    expect(machine, 200, "GET", "/v1/me", headers=[("Authorization", f"Bearer {tokens['access_token']}")])
    expect(machine, 204, "POST", "/v1/auth/session", headers=[("Authorization", f"Bearer {key}")])
    expect(machine, 204, "DELETE", "/v1/auth/session")
    made = expect(person, 201, "POST", "/v1/me/api-keys", body={"name": "one", "scopes": ["openid"]})["api_key"]
    expect(person, 200, "GET", "/v1/me/api-keys")
    path = f"/v1/me/api-keys/{made['id']}"
    new = expect(person, 201, "POST", f"{path}/rotate", "/v1/me/api-keys/{kid}/rotate", body={"overlap_seconds": 60})
    expect(person, 204, "DELETE", path, "/v1/me/api-keys/{kid}")
    expect(machine, 204, "POST", "/v1/api-keys/self-revoke", body={"api_key": new["api_key"]["key"]})
    partner(expect, credentials["partner_api_key"], document)
    described = {(method, path) for path, methods in document["paths"].items() for method in methods}
    assert used == described, f"not driven: {described - used}"


def partner(expect, key, document):
    """The partner's part of the walk."""
    backend = Browser(document["servers"][0]["url"])
    bearer = [("Authorization", f"Bearer {key}")]
    prefix = "/v1/partner"

    def call(status, method, path, template=None, headers=(), **rest):
        return expect(backend, status, method, f"{prefix}{path}", f"{prefix}{template or path}", headers=[*bearer, *headers], **rest)

    user = {"external_id": "walk-1", "email": "walk-1@example.com", "api_key": {"name": "walk", "expires_in": 3600}}
    made = call(201, "POST", "/users", body=user, headers=[("Idempotency-Key", "walk-1")])
    assert call(201, "POST", "/users", body=user, headers=[("Idempotency-Key", "walk-1")]) == made
    assert call(200, "POST", "/users", body=user)["user"] == made["user"]
    call(200, "GET", "/users")
    person = f"/users/{made['user']['id']}"
    call(200, "GET", person, "/users/{id}")
    call(200, "PATCH", person, "/users/{id}", body={"name": "Walker", "locale": None})
    call(200, "GET", f"{person}/api-keys", "/users/{id}/api-keys")
    more = call(201, "POST", f"{person}/api-keys", "/users/{id}/api-keys", body={"name": "more"})["api_key"]
    new = call(201, "POST", f"/api-keys/{more['id']}/rotate", "/api-keys/{kid}/rotate", body={"overlap_seconds": 0})
    call(204, "DELETE", f"/api-keys/{new['api_key']['id']}", "/api-keys/{kid}")
    assert "token=" in call(201, "POST", f"{person}/browser-handoff", "/users/{id}/browser-handoff")["url"]
    call(200, "POST", f"{person}/disable", "/users/{id}/disable")
    call(200, "POST", f"{person}/enable", "/users/{id}/enable")
    # Somebody whose address is taken, and is not any more.
    taken = {"external_id": "walk-2", "email": user["email"]}
    got, _ = backend.call("POST", f"{prefix}/users", body=taken, headers=bearer)
    assert got == 409, got
    failed = call(200, "GET", "/onboarding?state=failed", "/onboarding")["items"][0]
    call(200, "PATCH", person, "/users/{id}", body={"email": "walker@example.com"})
    call(200, "POST", f"/onboarding/{failed['id']}/retry", "/onboarding/{id}/retry")
    lines = "".join(json.dumps({"external_id": f"line-{n}", "email": f"line-{n}@example.com"}) + "\n" for n in range(50))
    brought = call(202, "POST", "/imports", lines=lines)
    for _ in range(200):
        work = call(200, "GET", f"/imports/{brought['id']}", "/imports/{id}")
        if work["state"] == "completed":
            break
        time.sleep(0.1)
    assert (work["done"], work["total"], len(work["results"])) == (50, 50, 50), work
    call(204, "DELETE", person, "/users/{id}")


def schemathesis(issuer, home, bearer, session, which, unchecked=()):
    """Lets schemathesis drive some of the operations; whether all went well."""
    with open(os.path.join(home, "schemathesis.toml"), "w", encoding="utf-8") as file:
        file.write(f'[auth.openapi.bearer]\nbearer = "{bearer}"\n')
        file.write(f'[auth.openapi.session]\napi_key = "{session}"\n')
    run = ["schemathesis", "run", f"{issuer}/v1/openapi.json", *which]
    run += ["--checks=all", f"--exclude-checks={','.join([*UNCHECKED, *unchecked])}"]
    run += ["--phases=examples,coverage,fuzzing", "--max-examples=30", "--seed=1", "--no-color"]
    here = os.path.dirname(os.path.abspath(__file__))
    environment = {**os.environ, "NO_PROXY": "*", "HYPOTHESIS_STORAGE_DIRECTORY": home}
    environment |= {"PYTHONPATH": here, "SCHEMATHESIS_HOOKS": "hooks", "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(run, cwd=home, env=environment, check=False).returncode == 0


def main():
    port, demo_port = free_ports()
    issuer = f"http://localhost:{port}"
    with tempfile.TemporaryDirectory() as home:
        command = [PROGRAM, "dev", "--dir", home, "--port", str(port), "--demo-port", str(demo_port)]
        with open(os.path.join(home, "log"), "w", encoding="utf-8") as log:
            process = subprocess.Popen(command, cwd=home, stdout=log, stderr=log)
        try:
            document = wait_until_up(f"{issuer}/v1/openapi.json", process, os.path.join(home, "log"))
            with open(os.path.join(home, "data", "dev-credentials.json"), encoding="utf-8") as file:
                credentials = json.load(file)
            walk(issuer, credentials, document)
            # The key of the first walk would not survive the second: this one revokes only what it makes.
            _, made = Browser(issuer).call("POST", "/v1/auth/api-key/login", {"api_key": credentials["api_key"]})
            session = Browser(issuer).sign_in(credentials["user"])
            people, partner_key = made["access_token"], credentials["partner_api_key"]
            partners, imports = "/v1/partner/", "/v1/partner/imports$"
            fine = [
                schemathesis(issuer, home, people, session, [f"--exclude-path-regex={partners}"]),
                schemathesis(
                    issuer, home, partner_key, session,
                    [f"--include-path-regex={partners}", f"--exclude-path-regex={imports}"],
                ),
                # Any text has lines, and what is wrong with one stands in the line's result.
                schemathesis(
                    issuer, home, partner_key, session, [f"--include-path-regex={imports}"], ["negative_data_rejection"]
                ),
            ]
            sys.exit(0 if all(fine) else 1)
        finally:
            process.terminate()
            process.wait()


main()
