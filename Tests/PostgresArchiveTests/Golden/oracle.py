#!/usr/bin/env python3
"""oracle.py: what a parser of PostgreSQL's custom archives is expected to find in a golden archive.

    oracle.py expect --psql PSQL --pg-dump PG_DUMP ARCHIVE     expectations as JSON, on standard output
    oracle.py describe ARCHIVE                                 the shape of an archive, for people

The expectations have two independent sources, so that a test against them proves something:

  * Rows, bytes and fingerprints come from the SERVER that the archive was dumped from: every table's own COPY
    statement is run the other way round (TO STDOUT), and large objects are read by SQL.  The server must still hold
    exactly what was dumped, and the environment (PGHOST, PGUSER, PGDATABASE, PGOPTIONS...) must be the one that
    pg_dump ran in: settings such as TimeZone change the text of a value.
  * The extent of each data block comes from a plain reading of the archive, after the layout in PostgreSQL's
    pg_backup_archiver.c and pg_backup_custom.c.

The two are then held against each other: an archive whose blocks do not contain what the server says is an error
here, not an expectation.

Needs Python 3.9 or newer and the package "xxhash".
"""

import argparse
import json
import subprocess
import sys
import zlib
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import List, Optional

import xxhash

FORMAT_CUSTOM = 1
BLOCK_DATA = 1
BLOCK_LARGE_OBJECTS = 3
OFFSET_NOT_SET, OFFSET_SET, OFFSET_NO_DATA = 1, 2, 3
COMPRESSION_NAMES = ["none", "gzip", "lz4", "zstd"]

# pg_dump ends a table's COPY data with this; the server's COPY TO does not send it.
COPY_END = b"\\.\n\n\n"


# The archive ----------------------------------------------------------------------------------------------------------


@dataclass
class Entry:
    """One entry of the table of contents."""

    dump_id: int
    has_data: bool
    tag: Optional[str]
    desc: Optional[str]
    copy: Optional[str]
    namespace: Optional[str]
    offset_state: int
    offset: int


@dataclass
class Block:
    """One data block: `parts` holds (large object's oid or None, its chunks)."""

    kind: int
    dump_id: int
    offset: int
    length: int = 0
    parts: list = field(default_factory=list)


@dataclass
class Archive:
    version: tuple
    compression: str
    database: str
    server_version: str
    dump_version: str
    head_bytes: int
    size: int
    entries: List[Entry]
    blocks: List[Block]


class Reader:
    """Reads the primitive values of an archive from front to back."""

    def __init__(self, data: bytes):
        self.data = data
        self.at = 0
        self.int_size = 4
        self.off_size = 8

    def take(self, count: int) -> bytes:
        piece = self.data[self.at : self.at + count]
        if len(piece) != count:
            raise ValueError(f"the archive ends inside a value at {self.at}")
        self.at += count
        return piece

    def byte(self) -> int:
        return self.take(1)[0]

    def int(self) -> int:
        # A sign byte (0 or 1), then the magnitude, least significant byte first.
        sign = self.byte()
        if sign not in (0, 1):
            raise ValueError(f"the sign of an int is {sign} at {self.at - 1}")
        magnitude = int.from_bytes(self.take(self.int_size), "little")
        return -magnitude if sign else magnitude

    def string(self) -> Optional[str]:
        # Length -1 stands for NULL, which is not the empty string.
        length = self.int()
        return None if length < 0 else self.take(length).decode("utf-8")

    def offset(self):
        return self.byte(), int.from_bytes(self.take(self.off_size), "little")


def read_entry(reader: Reader, version: tuple) -> Entry:
    dump_id = reader.int()
    has_data = reader.int() != 0
    reader.string()  # oid of the catalog, as text
    reader.string()  # oid of the object, as text
    tag = reader.string()
    desc = reader.string()
    reader.int()  # section: pre-data, data, post-data
    reader.string()  # definition
    reader.string()  # drop statement
    copy = reader.string()
    namespace = reader.string()
    reader.string()  # tablespace
    reader.string()  # table access method
    if version >= (1, 16, 0):
        reader.int()  # relkind
    reader.string()  # owner
    reader.string()  # "with oids", always "false" by now
    while reader.string() is not None:
        pass  # dependencies, ended by a NULL
    state, offset = reader.offset()
    return Entry(dump_id, has_data, tag, desc, copy, namespace, state, offset)


def read_chunks(reader: Reader) -> list:
    chunks = []
    while (length := reader.int()) != 0:
        chunks.append(reader.take(length))
    return chunks


def read_block(reader: Reader) -> Block:
    start = reader.at
    kind = reader.byte()
    block = Block(kind, reader.int(), start)
    if kind == BLOCK_DATA:
        block.parts.append((None, read_chunks(reader)))
    elif kind == BLOCK_LARGE_OBJECTS:
        while (oid := reader.int()) != 0:
            block.parts.append((oid, read_chunks(reader)))
    else:
        raise ValueError(f"a block of unknown type {kind} at {start}")
    block.length = reader.at - start
    return block


def read_archive(path: Path) -> Archive:
    reader = Reader(path.read_bytes())
    if reader.take(5) != b"PGDMP":
        raise ValueError("no custom archive: the magic is missing")
    version = tuple(reader.take(3))
    if not (1, 14, 0) <= version < (1, 17, 0):
        raise ValueError(f"unknown archive version {version}")
    reader.int_size = reader.byte()
    reader.off_size = reader.byte()
    if reader.byte() != FORMAT_CUSTOM:
        raise ValueError("an archive, but not in the custom format")
    if version >= (1, 15, 0):
        compression = COMPRESSION_NAMES[reader.byte()]
    else:
        compression = "none" if reader.int() == 0 else "gzip"
    for _ in range(7):
        reader.int()  # second, minute, hour, day, month, year, daylight saving
    database, server_version, dump_version = reader.string(), reader.string(), reader.string()
    entries = [read_entry(reader, version) for _ in range(reader.int())]
    head_bytes = reader.at
    blocks = []
    while reader.at < len(reader.data):
        blocks.append(read_block(reader))
    return Archive(
        version, compression, database, server_version, dump_version, head_bytes, reader.at, entries, blocks
    )


def content(chunks: list, compression: str) -> bytes:
    joined = b"".join(chunks)
    if compression == "none":
        return joined
    if compression == "gzip":
        return zlib.decompress(joined) if joined else b""
    raise ValueError(f"no reader for {compression} here")


# The fingerprint ------------------------------------------------------------------------------------------------------


def digest_sum(pieces) -> str:
    """The sum of the pieces' XXH3 128-bit digests, modulo 2**128.

    A sum, because tables have no order, and not an exclusive or, because equal rows must not cancel out.
    """
    total = sum(xxhash.xxh3_128_intdigest(piece) for piece in pieces)
    return f"{total % 2**128:032x}"


# The server -----------------------------------------------------------------------------------------------------------


class Server:
    def __init__(self, psql: str):
        self.psql = psql

    def run(self, sql: str) -> bytes:
        # No start-up file, no headers and no alignment: standard output is the answer's bytes and nothing else.
        command = [self.psql, "-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-c", sql]
        return subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout

    def setting(self, name: str) -> str:
        return self.run(f"SHOW {name}").decode().strip()

    def copy(self, statement: str) -> bytes:
        # Only the end may be replaced: a table or a column may well be called "... FROM stdin;".
        suffix = " FROM stdin;\n"
        if not statement.endswith(suffix):
            raise ValueError(f"an unexpected COPY statement: {statement!r}")
        return self.run(statement[: -len(suffix)] + " TO STDOUT;")

    def large_objects(self) -> dict:
        sql = "SELECT oid, encode(lo_get(oid), 'hex') FROM pg_largeobject_metadata ORDER BY oid"
        found = {}
        for line in self.run(sql).decode().splitlines():
            oid, digits = line.split("|")
            found[int(oid)] = bytes.fromhex(digits)
        return found


# The commands -----------------------------------------------------------------------------------------------------------


def require(condition: bool, message: str):
    if not condition:
        sys.exit(f"oracle.py: {message}")


def expect(path: Path, psql: str, pg_dump: str):
    archive = read_archive(path)
    server = Server(psql)
    blocks = {block.dump_id: block for block in archive.blocks}
    require(len(blocks) == len(archive.blocks), "two blocks with the same dump id")

    tables = []
    for entry in archive.entries:
        if entry.desc != "TABLE DATA":
            continue
        block = blocks[entry.dump_id]
        name = f"{entry.namespace}.{entry.tag}"
        if entry.offset_state == OFFSET_SET:
            require(entry.offset == block.offset, f"{name}: the contents and the blocks disagree on the offset")
        text = server.copy(entry.copy)
        require(text == b"" or text.endswith(b"\n"), f"{name}: the last row has no newline")
        require(content(block.parts[0][1], archive.compression) == text + COPY_END, f"{name}: not what the server has")
        rows = text.split(b"\n")[:-1]  # COPY escapes newlines inside values, so each one ends a row
        tables.append(
            {
                "schema": entry.namespace,
                "name": entry.tag,
                "rows": len(rows),
                "bytes": len(text),
                "fingerprint": digest_sum(rows),
                "offset": block.offset,
                "length": block.length,
            }
        )
    tables.sort(key=lambda table: table["offset"])

    objects = server.large_objects()
    archived = {
        oid: content(chunks, archive.compression)
        for block in archive.blocks
        if block.kind == BLOCK_LARGE_OBJECTS
        for oid, chunks in block.parts
    }
    require(archived == objects, "the large objects are not what the server has")

    # The versions, too, are asked of the programs and only compared with the archive.
    server_version = server.setting("server_version")
    printed = subprocess.run([pg_dump, "--version"], check=True, stdout=subprocess.PIPE).stdout.decode()
    dump_version = printed.strip().removeprefix("pg_dump (PostgreSQL) ")
    database = server.run("SELECT current_database()").decode().strip()
    said = (archive.server_version, archive.dump_version, archive.database)
    require(said == (server_version, dump_version, database), f"the header says {said}")

    print_json(
        {
            "archiveVersion": ".".join(map(str, archive.version)),
            "serverVersion": server_version,
            "dumpVersion": dump_version,
            "database": database,
            "headBytes": archive.head_bytes,
            "tables": tables,
            "largeObjects": {
                "count": len(objects),
                "bytes": sum(map(len, objects.values())),
                "fingerprint": digest_sum(oid.to_bytes(4, "little") + data for oid, data in objects.items()),
            },
        }
    )


def print_json(expectation: dict):
    """JSON with one table a line, so that a difference between two versions can be read."""
    lines = []
    for key, value in expectation.items():
        if key == "tables":
            rows = ",\n".join("    " + json.dumps(table, ensure_ascii=False) for table in value)
            lines.append(f'  "tables": [\n{rows}\n  ]')
        else:
            lines.append(f"  {json.dumps(key)}: {json.dumps(value, ensure_ascii=False)}")
    print("{\n" + ",\n".join(lines) + "\n}")


def describe(path: Path):
    archive = read_archive(path)
    entries = {entry.dump_id: entry for entry in archive.entries}
    print(
        f"{path.name}: {archive.size} bytes, version {'.'.join(map(str, archive.version))}, {archive.compression}, "
        f"server {archive.server_version}, pg_dump {archive.dump_version}, database {archive.database}"
    )
    print(f"  {len(archive.entries)} entries in {archive.head_bytes} bytes of header and contents")
    print(f"  entries: {dict(sorted(Counter(entry.desc for entry in archive.entries).items()))}")
    states = {OFFSET_NOT_SET: "not set", OFFSET_SET: "set", OFFSET_NO_DATA: "no data"}
    print(f"  offsets: {dict(Counter(states.get(entry.offset_state, '?') for entry in archive.entries))}")
    for block in archive.blocks:
        entry = entries[block.dump_id]
        name = f"{entry.namespace}.{entry.tag}" if entry.namespace else entry.tag
        print(f"  {block.offset:>7} +{block.length:<7} {entry.desc} {name} (id {block.dump_id})")
        for oid, chunks in block.parts:
            sizes = list(map(len, chunks))
            some = sizes if len(sizes) <= 8 else sizes[:4] + ["..."] + sizes[-3:]
            owner = f"large object {oid}: " if oid is not None else ""
            print(f"{'':19}{owner}{len(sizes)} chunks, {sum(sizes)} bytes: {' '.join(map(str, some))}")


def main():
    parser = argparse.ArgumentParser(description="What to expect of a golden archive.")
    commands = parser.add_subparsers(dest="command", required=True)
    one = commands.add_parser("expect", help="expectations as JSON")
    one.add_argument("--psql", required=True, help="the psql to ask the server with")
    one.add_argument("--pg-dump", required=True, help="the pg_dump that wrote the archive")
    one.add_argument("archive", type=Path)
    two = commands.add_parser("describe", help="the shape of an archive")
    two.add_argument("archive", type=Path)
    arguments = parser.parse_args()
    if arguments.command == "expect":
        expect(arguments.archive, arguments.psql, arguments.pg_dump)
    else:
        describe(arguments.archive)


if __name__ == "__main__":
    main()
