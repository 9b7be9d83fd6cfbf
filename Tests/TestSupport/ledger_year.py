"""Writes a ledger of one year for databases that have run every night, with some failures: for pages that show a year."""
import datetime, hashlib, json, math, sys

path, databases = sys.argv[1], sys.argv[2:]
now = datetime.datetime.now(datetime.timezone.utc).replace(microsecond=0)
previous, number = "0" * 64, 0
with open(path, "w") as out:
    def write(time, kind, **fields):
        global previous, number
        number += 1
        record = dict(fields, kind=kind, sequence=number, previous=previous, time=time.strftime("%Y-%m-%dT%H:%M:%S.000Z"))
        line = json.dumps(record, sort_keys=True, separators=(",", ":"))
        out.write(line + "\n")
        previous = hashlib.sha256(line.encode()).hexdigest()

    for ago in range(365, 0, -1):
        for position, database in enumerate(databases):
            begun = now - datetime.timedelta(days=ago, hours=3, minutes=-position)
            rows = int(2_000_000 + (365 - ago) * 2_500 + 40_000 * math.sin(ago / 7))
            took = 60 + rows // 40_000
            common = dict(job="daily", database=database, run=f"{ago:04d}{position:04d}", reason="schedule")
            write(begun, "run.started", **common)
            ended = begun + datetime.timedelta(seconds=took)
            if (ago * 7 + position * 31) % 61 == 0:
                fault = dict(code="E-STORE-FULL", message="The store is full.")
                write(ended, "run.finished", result="failed", fault=fault, **common)
                if ago % 2:
                    continue
                common["run"] += "b"
                write(ended, "run.started", **common)
                ended += datetime.timedelta(seconds=took)
            backup = f"{database}/{begun.strftime('%Y%m%dT%H%M%SZ')}"
            write(ended, "run.finished", result="succeeded", backup=backup, **common,
                  detail=dict(archive_bytes=str(rows * 220), stored_bytes=str(rows * 70), rows=str(rows), stores="local"))
