"""A server that speaks enough of PostgreSQL's protocol to ask for a password in plain text.

It listens on PostgreSQL's own port, on a loopback address of its own. Prints that address, then what clients send.
"""
import random
import socket
import struct
import sys

address = "127." + ".".join(str(random.randint(1, 254)) for _ in range(3))
listener = socket.create_server((address, 5432))
print(address, flush=True)


def exactly(connection, count):
    data = b""
    while len(data) < count:
        piece = connection.recv(count - len(data))
        if not piece:
            return None
        data += piece
    return data


def message(connection):
    head = exactly(connection, 4)
    return head and exactly(connection, struct.unpack("!i", head)[0] - 4)


while True:
    connection, _ = listener.accept()
    print("connected", flush=True)
    with connection:
        body = message(connection)
        # SSLRequest and GSSENCRequest: neither is spoken here.
        while body is not None and len(body) == 4 and struct.unpack("!i", body)[0] in (80877103, 80877104):
            connection.sendall(b"N")
            body = message(connection)
        if body is None:
            continue
        connection.sendall(b"R" + struct.pack("!ii", 8, 3))
        kind = exactly(connection, 1)
        if kind == b"p":
            print("password " + (message(connection) or b"").rstrip(b"\0").decode(), flush=True)
sys.exit(0)
