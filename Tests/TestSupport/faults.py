"""faults.py FOLDER PORT: an HTTPS server on the loopback address, under FOLDER's certificate, that hands each request on to the HTTPS
server at PORT, and does one of them wrong when it is told to. It prints the port that it listens on.

Commands are lines on standard input, each answered by a line on standard output; at its end the proxy ends.

  plan FAULT POSITION PLACE [PATTERN]
                    counts requests anew; the one at POSITION (from 0), of those with PATTERN in their method and path, meets FAULT, at
                    PLACE (0 to 1) of its answer
  requests          those since the plan, as JSON
  release | drop    lets the held request go on, or cuts its line
The first request that is held is told on standard error, and "over" where another plan comes instead.

Faults: refuse (the line is cut before the request reaches the server), lose (it is carried out, and the line is cut before the answer),
truncate (the line is cut in the middle of the answer), slow (503 SlowDown), lie (a bit of the answer's body is another), hold (until it
is told), stall (as hold, and so for every later one with the pattern), drip (the answer comes, after white space for PLACE seconds),
deny (403 AccessDenied, and so for every later one with the pattern), die (as refuse, and so is every later one, and every new
connection), cut (as lose, and every later one as die)."""
import json
import re
import socket
import ssl
import struct
import sys
import threading
import time

folder, target = sys.argv[1], int(sys.argv[2])
to_clients = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
to_clients.load_cert_chain(f"{folder}/server.crt", f"{folder}/server.key")
to_server = ssl.create_default_context(cafile=f"{folder}/ca.crt")
REFUSALS = {
    "slow": (b"503 Slow Down", b"SlowDown", b"Please reduce your request rate."),
    "deny": (b"403 Forbidden", b"AccessDenied", b"Access Denied."),
}


class Plan:
    def __init__(self, fault="none", position=0, place=0.5, pattern=""):
        self.fault, self.position, self.place, self.pattern = fault, position, place, re.compile(pattern)
        self.requests = []
        self.matched = 0
        self.is_dead = False
        self.is_held = False
        self.is_told = False
        # What becomes of the held request.
        self.verdict = threading.Event()
        self.is_dropped = False
        # An end of all waiting for a request that does not come.
        self.end = threading.Timer(300, lambda: self.is_held or tell("no such request came within five minutes"))
        self.end.daemon = True


class Cut(Exception):
    pass


plan = Plan()
lock = threading.Lock()


def tell(line):
    print(line, file=sys.stderr, flush=True)


def next_fault(line):
    """The fault that the request with this first line meets, and its plan."""
    with lock:
        plan.requests.append(line)
        if plan.is_dead:
            return "refuse", plan
        if not plan.pattern.search(line):
            return "none", plan
        plan.matched += 1
        if plan.matched != plan.position + 1 and not (plan.fault in ("deny", "stall") and plan.matched > plan.position):
            return "none", plan
        if plan.fault in ("hold", "stall"):
            plan.is_held = True
        if plan.fault in ("die", "cut"):
            plan.is_dead = True
        return {"die": "refuse", "cut": "lose"}.get(plan.fault, plan.fault), plan


def read_head(file):
    head = []
    while (line := file.readline()) not in (b"\r\n", b""):
        head.append(line)
    return head


def field(head, name):
    for line in head[1:]:
        key, _, value = line.partition(b":")
        if key.strip().lower() == name:
            return value.strip()
    return None


def read_exactly(file, count):
    data = file.read(count)
    if len(data) < count:
        raise Cut
    return data


def read_answer(file, method):
    """The head, with a length in it, and the body."""
    head = read_head(file)
    if not head:
        raise Cut
    status = int(head[0].split()[1])
    if method == b"HEAD" or status in (204, 304):
        return head, b""
    if field(head, b"transfer-encoding") == b"chunked":
        body = b""
        while size := int(file.readline().split(b";")[0], 16):
            body += read_exactly(file, size)
            file.readline()
        read_head(file)
        head = [line for line in head if not line.lower().startswith(b"transfer-encoding")]
        return head + [b"Content-Length: %d\r\n" % len(body)], body
    return head, read_exactly(file, int(field(head, b"content-length") or 0))


def reset(connection):
    """Closes so that the other side sees a broken line, and not an end."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


def serve(raw):
    if plan.is_dead:
        return reset(raw)
    raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    client, server = None, None
    try:
        client = to_clients.wrap_socket(raw, server_side=True)
        requests = client.makefile("rb")
        server = to_server.wrap_socket(socket.create_connection(("127.0.0.1", target)), server_hostname="localhost")
        server.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        answers = server.makefile("rb")
        while head := read_head(requests):
            line = b" ".join(head[0].split()[:2]).decode()
            fault, its = next_fault(line)
            if fault == "refuse":
                raise Cut
            body = read_exactly(requests, int(field(head, b"content-length") or 0))
            method = head[0].split()[0]
            if fault in ("hold", "stall"):
                with lock:
                    is_first, its.is_told = not its.is_told, True
                if is_first:
                    tell(f"held {line}")
                its.verdict.wait()
                if its.is_dropped:
                    raise Cut
            if fault in REFUSALS:
                status, code, message = REFUSALS[fault]
                text = b'<?xml version="1.0"?><Error><Code>%b</Code><Message>%b</Message></Error>' % (code, message)
                answer = b"HTTP/1.1 %b\r\nContent-Type: application/xml\r\nContent-Length: %d\r\n\r\n" % (status, len(text))
                client.sendall(answer if method == b"HEAD" else answer + text)
                continue
            server.sendall(b"".join(head) + b"\r\n" + body)
            head, body = read_answer(answers, method)
            if fault == "lose":
                raise Cut
            if fault == "drip":
                head = [line for line in head if not line.lower().startswith(b"content-length")]
                client.sendall(b"".join(head) + b"Transfer-Encoding: chunked\r\n\r\n")
                for _ in range(int(its.place * 10)):
                    time.sleep(0.1)
                    client.sendall(b"1\r\n \r\n")
                client.sendall(b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body))
                continue
            if fault == "lie" and body:
                place = min(len(body) - 1, int(its.place * len(body)))
                body = body[:place] + bytes([body[place] ^ 1]) + body[place + 1 :]
            answer = b"".join(head) + b"\r\n" + body
            if fault == "truncate":
                # Of what has no body, the head.
                client.sendall(answer[: len(answer) - (len(body) or len(answer)) // 2 - 1])
                client.shutdown(socket.SHUT_RDWR)
                raise Cut
            client.sendall(answer)
    except Cut:
        if client:
            reset(client)
    except (OSError, ValueError):
        pass
    finally:
        for connection in (client or raw, server):
            if connection:
                connection.close()


def accept(listener):
    while True:
        connection, _ = listener.accept()
        threading.Thread(target=serve, args=(connection,), daemon=True).start()


def obey(words):
    global plan
    if words[0] == "plan":
        with lock:
            old, plan = plan, Plan(words[1], int(words[2]), float(words[3]), " ".join(words[4:]))
        if plan.fault in ("hold", "stall"):
            plan.end.start()
        old.end.cancel()
        if old.fault in ("hold", "stall"):
            old.is_dropped = not old.verdict.is_set()
            old.verdict.set()
            if not old.is_held:
                tell("over")
        return "done"
    if words[0] == "requests":
        with lock:
            return json.dumps(plan.requests)
    plan.is_dropped = words[0] == "drop"
    plan.verdict.set()
    return "done"


listener = socket.create_server(("127.0.0.1", 0), backlog=64)
threading.Thread(target=accept, args=(listener,), daemon=True).start()
print(listener.getsockname()[1], flush=True)
for line in sys.stdin:
    print(obey(line.split()), flush=True)
