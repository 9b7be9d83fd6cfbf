"""tunnels.py USER:PASSWORD: an HTTP proxy on the loopback address that makes tunnels (CONNECT, RFC 9110 section 9.3.6) for who knows the
password, and nothing else. It prints its port, then a line for each request: the method, where to, and the status of its answer. It ends
when its standard input does."""
import base64
import os
import socket
import sys
import threading

wanted = b"basic " + base64.b64encode(sys.argv[1].encode()).lower()


def pump(source, target):
    try:
        while data := source.recv(65536):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)
    except OSError:
        pass


def serve(client):
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        piece = client.recv(1)
        if not piece:
            return
        head += piece
    lines = head.split(b"\r\n")
    method, place = (word.decode() for word in lines[0].split()[:2])
    given = [line.split(b":", 1)[1].strip().lower() for line in lines if line.lower().startswith(b"proxy-authorization:")]
    if method != "CONNECT":
        status = "405 Method Not Allowed"
    elif given != [wanted]:
        status = "407 Proxy Authentication Required"
    else:
        status = "200 Connection established"
    print(method, place, status.split()[0], flush=True)
    more = "" if status.startswith("200") else 'Proxy-Authenticate: Basic realm="test"\r\nContent-Length: 0\r\n'
    client.sendall(f"HTTP/1.1 {status}\r\n{more}\r\n".encode())
    if status.startswith("200"):
        host, port = place.rsplit(":", 1)
        server = socket.create_connection((host, int(port)))
        threading.Thread(target=pump, args=(server, client), daemon=True).start()
        pump(client, server)


def accept():
    while True:
        threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()


listener = socket.create_server(("127.0.0.1", 0), backlog=64)
print(listener.getsockname()[1], flush=True)
threading.Thread(target=accept, daemon=True).start()
sys.stdin.read()
os._exit(0)
