"""lying_s3.py: an HTTP server on the loopback address that speaks as much S3 as a listing needs, and lies. It prints the port that it
listens on; each line that comes on standard input is answered with the number of requests so far; at its end the server ends.

The bucket's name says how it lies; `?uploads`, `?versions` and `?uploadId=` lie the same way as the list of objects.

  honest            three objects on two pages
  same-token        every page goes on, with the same token
  two-tokens        every page goes on, with one of two tokens in turn
  no-token          the page goes on, and no token says where
  empty-pages       every page is empty, and goes on with a new token
  many-keys         every page has 1000 entries, and goes on with a new token
  huge-page         a page of 64 MiB
  many-elements     a page of 7 MiB that is nothing but empty elements
  deep              elements 10,000 deep
  laughs            an internal entity that grows to gigabytes ("billion laughs")
  laughs-utf16      the same in UTF-16
  laughs-utf7       the same in UTF-7
  external          an external entity: a file of this machine
  lost-page         says that it is whole after the first page (which nobody can see)
"""
import http.server
import sys
import threading
import urllib.parse

requests = 0


def element(name, *children):
    return f"<{name}>{''.join(children)}</{name}>"


def entry(kind, number):
    key = element("Key", f"a/{number:09}")
    date = "2026-11-20T14:00:00.000Z"
    if kind == "uploads":
        return element("Upload", key, element("UploadId", f"u{number}"), element("Initiated", date))
    if kind == "versions":
        # All of one key: what is listed is what has to be deleted.
        return element("Version", element("Key", "a/1"), element("VersionId", f"v{number}"))
    if kind == "uploadId":
        return element("Part", element("PartNumber", str(number)), element("Size", "1"), element("ETag", "e"))
    return element("Contents", key, element("Size", "1"), element("LastModified", date))


ROOTS = {
    "list-type": ("ListBucketResult", ["NextContinuationToken"]),
    "uploads": ("ListMultipartUploadsResult", ["NextKeyMarker", "NextUploadIdMarker"]),
    "versions": ("ListVersionsResult", ["NextKeyMarker", "NextVersionIdMarker"]),
    "uploadId": ("ListPartsResult", ["NextPartNumberMarker"]),
}


def page(kind, entries, token=None, goes_on=False):
    root, markers = ROOTS[kind]
    if kind == "versions" and token is not None:
        # The key stays ours: else the listing is over.
        values = ["a/1", token]
    else:
        values = [token] * len(markers)
    parts = [element("IsTruncated", "true" if goes_on else "false")]
    if token is not None:
        parts += [element(name, value) for name, value in zip(markers, values)]
    return f'<?xml version="1.0" encoding="UTF-8"?>{element(root, *parts, *entries)}'.encode()


def laughs(encoding, name):
    entities = ['<!ENTITY a0 "ha">']
    for number in range(1, 31):
        entities.append(f'<!ENTITY a{number} "{f"&a{number - 1};" * 10}">')
    text = f'<?xml version="1.0" encoding="{name}"?><!DOCTYPE x [{"".join(entities)}]>'
    text += "<ListBucketResult><IsTruncated>false</IsTruncated><Contents><Key>&a30;</Key></Contents></ListBucketResult>"
    return text.encode(encoding)


def answer(bucket, kind, query):
    token = (query.get("continuation-token") or query.get("key-marker") or query.get("part-number-marker") or [""])[0]
    if kind == "versions":
        token = (query.get("version-id-marker") or [""])[0]
    if bucket == "honest":
        if not token:
            return page(kind, [entry(kind, 1), entry(kind, 2)], "2", True)
        return page(kind, [entry(kind, 3)])
    if bucket == "lost-page":
        return page(kind, [entry(kind, 1), entry(kind, 2)])
    if bucket == "same-token":
        return page(kind, [entry(kind, 1)], "7", True)
    if bucket == "two-tokens":
        return page(kind, [entry(kind, 1)], "8" if token == "7" else "7", True)
    if bucket == "no-token":
        return page(kind, [entry(kind, 1)], None, True)
    number = int(token or "0") + 1
    if bucket == "empty-pages":
        return page(kind, [], str(number), True)
    if bucket == "many-keys":
        return page(kind, [entry(kind, number * 1000 + one) for one in range(1000)], str(number), True)
    if bucket == "huge-page":
        return page(kind, [element("Contents", element("Key", "a" * (64 << 20)))])
    if bucket == "many-elements":
        return page(kind, ["<a/>" * ((7 << 20) // 4)])
    if bucket == "deep":
        return page(kind, ["<a>" * 10_000 + "</a>" * 10_000])
    if bucket == "laughs":
        return laughs("utf-8", "UTF-8")
    if bucket == "laughs-utf16":
        return laughs("utf-16", "UTF-16")
    if bucket == "laughs-utf7":
        return laughs("ascii", "UTF-7").replace(b"<!", b"<+ACE-")
    if bucket == "external":
        return (
            b'<?xml version="1.0"?><!DOCTYPE x [<!ENTITY e SYSTEM "file:///etc/passwd">]>'
            b"<ListBucketResult><IsTruncated>false</IsTruncated><Contents><Key>a/&e;</Key><Size>1</Size>"
            b"<LastModified>2026-11-20T14:00:00.000Z</LastModified></Contents></ListBucketResult>"
        )
    return None


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        global requests
        requests += 1
        parts = urllib.parse.urlsplit(self.path)
        query = urllib.parse.parse_qs(parts.query, keep_blank_values=True)
        kind = next((name for name in ROOTS if name in query), None)
        body = answer(parts.path.strip("/").split("/")[0], kind, query) if kind else None
        self.send_response(200 if body is not None else 404)
        self.send_header("Content-Length", str(len(body or b"")))
        self.end_headers()
        try:
            self.wfile.write(body or b"")
        except OSError:
            # It had enough, and is right.
            self.close_connection = True

    def log_message(self, *arguments):
        pass


server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
threading.Thread(target=server.serve_forever, daemon=True).start()
print(server.server_address[1], flush=True)
for _ in sys.stdin:
    print(requests, flush=True)
