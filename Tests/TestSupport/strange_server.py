"""A server that speaks enough of PostgreSQL's protocol to be connected to, and answers queries as no PostgreSQL does.

  strange_server.py SOCKET KIND [VERSION]

KIND: narrow (every answer has one column), wide (a hundred), none (no row), null (one row of a NULL), numbers (the largest ones), copy (a COPY
that nobody has asked for), endless (rows without end), hangs (no answer). It prints a line when it listens, and ends with its standard input.
"""
import os
import socket
import struct
import sys
import threading

path, kind, version = (sys.argv[1:] + ["15.18"])[:3]
listener = socket.socket(socket.AF_UNIX)
listener.bind(path)
listener.listen(64)
print("ready", flush=True)
threading.Thread(target=lambda: (sys.stdin.read(), os._exit(0)), daemon=True).start()


def message(letter, body=b""):
    return letter + struct.pack("!i", len(body) + 4) + body


def row(values):
    parts = [struct.pack("!i", -1) if value is None else struct.pack("!i", len(value)) + value for value in values]
    return message(b"D", struct.pack("!h", len(values)) + b"".join(parts))


def description(count):
    field = b"c\0" + struct.pack("!ihihih", 0, 0, 25, -1, -1, 0)
    return message(b"T", struct.pack("!h", count) + field * count)


def answers():
    if kind == "narrow":
        yield description(1) + row([b"on"])
    elif kind == "wide":
        yield description(100) + row([b"t"] * 100)
    elif kind == "none":
        yield description(1)
    elif kind == "null":
        yield description(1) + row([None])
    elif kind == "numbers":
        yield description(30) + row([b"9223372036854775807"] * 30) * 3
    elif kind == "copy":
        yield message(b"G", b"\0" + struct.pack("!h", 0))
    elif kind == "endless":
        yield description(1)
        rows = row([b"x" * 65000]) * 16
        while True:
            yield rows
    yield message(b"C", b"SELECT 1\0")


def exactly(connection, count):
    data = b""
    while len(data) < count:
        piece = connection.recv(count - len(data))
        if not piece:
            raise EOFError
        data += piece
    return data


def serve(connection):
    try:
        while True:
            size, code = struct.unpack("!ii", exactly(connection, 8))
            exactly(connection, size - 8)
            if code == 80877102:
                return
            if code in (80877103, 80877104):
                connection.sendall(b"N")
                continue
            break
        status = {b"server_version": version.encode(), b"client_encoding": b"UTF8", b"standard_conforming_strings": b"on",
                  b"integer_datetimes": b"on", b"is_superuser": b"on", b"session_authorization": b"postgres"}
        ready = message(b"Z", b"I")
        connection.sendall(
            message(b"R", struct.pack("!i", 0))
            + b"".join(message(b"S", name + b"\0" + value + b"\0") for name, value in status.items())
            + message(b"K", struct.pack("!ii", 1, 1)) + ready)
        while True:
            letter = exactly(connection, 1)
            size = struct.unpack("!i", exactly(connection, 4))[0]
            exactly(connection, size - 4)
            if letter == b"X":
                return
            if kind == "hangs":
                continue
            if letter == b"P":
                connection.sendall(message(b"1"))
            elif letter == b"B":
                connection.sendall(message(b"2"))
            elif letter in (b"E", b"Q"):
                for part in answers():
                    connection.sendall(part)
                if letter == b"Q":
                    connection.sendall(ready)
            elif letter == b"S":
                connection.sendall(ready)
    except (EOFError, OSError):
        pass
    finally:
        connection.close()


while True:
    threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()
