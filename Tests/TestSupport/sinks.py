"""A mail server and an HTTP server that take what pgbackupd sends, and say so line by line on standard output as JSON.

Mail (aiosmtpd): STARTTLS and AUTH are required on the first port, TLS from the first byte on the second, nothing on the third.
HTTP: the path's first part says what happens: /ok, /fail (500, repeats the path), /redirect, /hang, /drip, /flaky-N (fails N times),
/picky-WORD (400 for what has WORD in it).
"""
import asyncio, base64, collections, http.server, json, ssl, sys, threading

from aiosmtpd.smtp import SMTP, AuthResult

certificate, key = sys.argv[1:3]
lock = threading.Lock()
failures = collections.Counter()


def say(**item):
    with lock:
        print(json.dumps(item), flush=True)


class Requests(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        say(kind="http", method=self.command, path=self.path, headers={k.lower(): v for k, v in self.headers.items()},
            body=body.decode())
        mode = self.path.split("/")[1]
        if mode == "hang":
            threading.Event().wait()
        if mode == "drip":
            self.send_response(200)
            self.send_header("Content-Length", "1000000")
            self.end_headers()
            threading.Event().wait()
        status, answer = 200, b"ok"
        if mode.startswith("flaky-"):
            with lock:
                failures[self.path] += 1
                status = 503 if failures[self.path] <= int(mode[6:]) else 200
        elif mode.startswith("picky-") and mode[6:] in body.decode():
            status, answer = 400, b"invalid_payload"
        elif mode == "fail":
            status, answer = 500, f"no such hook {self.path}".encode()
        self.send_response(302 if mode == "redirect" else status)
        if mode == "redirect":
            self.send_header("Location", "http://127.0.0.1:1/elsewhere")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    do_GET = do_POST


class Mails:
    async def handle_RCPT(self, server, session, envelope, address, options):
        if address.startswith("reject@"):
            return "550 no such user"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server, session, envelope):
        say(kind="mail", sender=envelope.mail_from, to=envelope.rcpt_tos, tls=server.transport.get_extra_info("ssl_object") is not None,
            user=session.auth_data.login.decode() if session.auth_data else None,
            data=base64.b64encode(envelope.content).decode())
        return "250 stored"


def authenticate(server, session, envelope, mechanism, data):
    return AuthResult(success=data.login == b"user" and data.password == b"pass word", auth_data=data)


async def main():
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(certificate, key)
    web = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Requests)
    web.daemon_threads = True
    threading.Thread(target=web.serve_forever, daemon=True).start()
    loop = asyncio.get_running_loop()
    ports = []
    for options in (
        dict(tls_context=tls, require_starttls=True, auth_required=True, authenticator=authenticate),
        dict(), dict()
    ):
        server = await loop.create_server(
            lambda options=options: SMTP(Mails(), hostname="localhost", **options), "127.0.0.1", 0,
            ssl=tls if len(ports) == 1 else None)
        ports.append(server.sockets[0].getsockname()[1])
    say(kind="listening", http=web.server_address[1], starttls=ports[0], tls=ports[1], plain=ports[2])
    await asyncio.Event().wait()


asyncio.run(main())
