"""A mail server for tests (aiosmtpd), which does what the recipient's name says.

    python server.py LETTERS [--port N] [--tls none|starttls|implicit --cert F --key F] [--user U --password P]

It prints `listening PORT`, and writes each letter that it accepts as a line of JSON to LETTERS, on the disk before the
client is told. Recipients: `grey…` are put off at their first try, `nobody…` refused at once, `full…` once the letter
is there, `slow…` take three seconds, `later…` are always put off. A file LETTERS.down makes it answer 421 to everybody.
"""

import argparse
import asyncio
import json
import os
import ssl

from aiosmtpd.smtp import SMTP, AuthResult

PUT_OFF = "451 4.7.1 come back later"


class Handler:
    def __init__(self, letters):
        self.letters = open(letters, "a", encoding="utf-8")
        self.down = letters + ".down"
        self.seen = set()

    async def handle_MAIL(self, server, session, envelope, address, options):
        if os.path.exists(self.down):
            return "421 4.3.2 down for the day"
        envelope.mail_from = address
        envelope.mail_options.extend(options)
        return "250 2.1.0 sender ok"

    async def handle_RCPT(self, server, session, envelope, address, options):
        name = address.split("@")[0]
        if name.startswith("nobody"):
            return f"550 5.1.1 <{address}> no such user here"
        if name.startswith("later") or (name.startswith("grey") and address not in self.seen):
            self.seen.add(address)
            return PUT_OFF
        if name.startswith("slow"):
            await asyncio.sleep(3)
        envelope.rcpt_tos.append(address)
        return "250 2.1.5 recipient ok"

    async def handle_DATA(self, server, session, envelope):
        if envelope.rcpt_tos[0].startswith("full"):
            return "552 5.2.2 mailbox full"
        letter = {
            "from": envelope.mail_from,
            "to": envelope.rcpt_tos,
            "hello": session.host_name,
            "tls": server.transport.get_extra_info("ssl_object") is not None,
            "user": (session.auth_data or b"").decode() if session.authenticated else None,
            "message": envelope.original_content.decode("utf-8"),
        }
        self.letters.write(json.dumps(letter) + "\n")
        self.letters.flush()
        os.fsync(self.letters.fileno())
        return "250 2.0.0 ok: queued"


def authenticator(user, password):
    def check(server, session, envelope, mechanism, data):
        known = data.login == user.encode() and data.password == password.encode()
        # `handled=False` gives 535 5.7.8.
        return AuthResult(success=known, handled=False, auth_data=data.login)

    return check


async def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("letters")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--tls", default="none")
    parser.add_argument("--cert")
    parser.add_argument("--key")
    parser.add_argument("--user")
    parser.add_argument("--password")
    args = parser.parse_args()

    context = None
    if args.tls != "none":
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(args.cert, args.key)
    more = {"enable_SMTPUTF8": True, "ident": "a test"}
    if args.tls == "starttls":
        more |= {"tls_context": context, "require_starttls": True}
    if args.user:
        check = authenticator(args.user, args.password)
        more |= {"authenticator": check, "auth_required": True, "auth_require_tls": args.tls == "starttls"}
    handler = Handler(args.letters)
    server = await asyncio.get_running_loop().create_server(
        lambda: SMTP(handler, **more), "127.0.0.1", args.port, ssl=context if args.tls == "implicit" else None
    )
    print("listening", server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


asyncio.run(main())
