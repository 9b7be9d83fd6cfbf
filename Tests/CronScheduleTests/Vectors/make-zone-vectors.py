#!/usr/bin/env python3
"""Writes zones.tsv and zones-differs.tsv next to this file: a decade of due
instants in every time zone, as digests.

Why: the other vectors look closely at a dozen zones.  These look at all of
them, so that no zone's odd change of the clock goes unseen.

How to run (Python 3.11 or later, ten minutes on two idle cores):

    python3 -m venv venv && venv/bin/pip install cronsim==2.8
    nice venv/bin/python make-zone-vectors.py [output directory]

The same cronsim, Python and system time zone data give byte-identical files.

How a row earns its place: cronsim's instants are compared with those of
`minute_walk`.  That one does what cron does: near every change of the clock
it looks at the wall clock once a minute and decides by the rules of Debian's
cron what is due; on all other days, when the wall clock runs evenly, it lists
the wanted times directly.  It reads expressions itself and shares nothing with
cronsim but Python's zoneinfo.  Where the two agree, the row goes to zones.tsv,
else to zones-differs.tsv with both answers and the reason.

Zones whose clocks run alike throughout the decade are computed once.
"""

import hashlib
import sys
import zoneinfo
from bisect import bisect_left, bisect_right
from collections import Counter
from datetime import date, datetime, timedelta, timezone
from importlib import metadata
from multiprocessing import Pool
from pathlib import Path
from zoneinfo import ZoneInfo

from cronsim import CronSim

UTC = timezone.utc
START = datetime(2015, 1, 1, tzinfo=UTC)  # exclusive
END = datetime(2025, 1, 1, tzinfo=UTC)  # inclusive
PROCESSES = 2

EXPRESSIONS = [
    # fixed times: in the hour that most zones skip or repeat, at midnight, on
    # Sundays, once a month, and one that no change between 22:00 and 05:00 misses
    "30 2 * * *", "30 1 * * *", "0 0 * * *", "15 1-3 * * 0", "0 3 1 * *",
    "10,40 0-4,22,23 * * *",
    # wildcards, one of them on Sundays, the usual day of change
    "5 */2 * * *", "*/30 * * * *", "*/20 0,2 * * 0",
]

# Everything below counts in minutes since 1970; "wall" minutes are those of the
# wall clock, as if it showed UTC.
DAY = 24 * 60
# A change of the clock of three hours or more is a correction, no daylight saving.
CORRECTION = 3 * 60


def minutes(instant):
    return int(instant.timestamp()) // 60


FIRST, LAST = minutes(START), minutes(END)


def tzdata():
    """The folder and the version of the system's time zone data."""
    for folder in map(Path, zoneinfo.TZPATH):
        if (folder / "tzdata.zi").is_file():
            with (folder / "tzdata.zi").open(encoding="utf-8") as text:
                return folder, text.readline().removeprefix("# version").strip()
    raise SystemExit("no tzdata.zi in the system's zone folders")


def zone_names(folder):
    """All zones and links of tzdata.zi."""
    names = set()
    for line in (folder / "tzdata.zi").read_text(encoding="utf-8").splitlines():
        words = line.split()
        if words[0] in ("Z", "L"):
            names.add(words[{"Z": 1, "L": 2}[words[0]]])
    return sorted(names - {"Factory"})


# --- The clock --------------------------------------------------------------


def offset(zone, minute):
    """Wall clock minus UTC, in minutes."""
    shift = datetime.fromtimestamp(minute * 60, UTC).astimezone(zone).utcoffset()
    if shift % timedelta(minutes=1):
        raise SystemExit(f"{zone} is not a whole number of minutes off UTC")
    return shift // timedelta(minutes=1)


def offsets(zone):
    """The (minute, offset) pairs from which the clock's course in the decade,
    with some days around it, follows: the beginning and every change."""
    found = [(FIRST - 4 * DAY, offset(zone, FIRST - 4 * DAY))]
    probe = 6 * 60
    for later in range(found[0][0] + probe, LAST + 4 * DAY, probe):
        if offset(zone, later) == found[-1][1]:
            continue
        low, high = later - probe, later
        while high - low > 1:
            middle = (low + high) // 2
            if offset(zone, middle) == found[-1][1]:
                low = middle
            else:
                high = middle
        found.append((high, offset(zone, high)))
    return tuple(found)


def course_of(name):
    return offsets(ZoneInfo(name))


# --- The minute walk --------------------------------------------------------


def values(field, low, high):
    """The numbers that a field of lists, ranges, stars and steps stands for."""
    found = set()
    for term in field.split(","):
        span, _, step = term.partition("/")
        first, _, last = (f"{low}-{high}" if span == "*" else span).partition("-")
        found.update(range(int(first), int(last or first) + 1, int(step or 1)))
    return found


def wanted_walls(expression):
    """All wall minutes that match, some days beyond the decade included, sorted."""
    minute, hour, day, month, weekday = expression.split()
    times = sorted(h * 60 + m for h in values(hour, 0, 23) for m in values(minute, 0, 59))
    days, months = values(day, 1, 31), values(month, 1, 12)
    weekdays = {number % 7 for number in values(weekday, 0, 7)}
    both = day.startswith("*") or weekday.startswith("*")
    found = []
    for number in range(FIRST // DAY - 6, LAST // DAY + 6):
        when = date(1970, 1, 1) + timedelta(days=number)
        matches = [when.day in days, (number + 4) % 7 in weekdays]
        if when.month in months and (all(matches) if both else any(matches)):
            found.extend(number * DAY + time for time in times)
    return found


def is_fixed(expression):
    return not any(field.startswith("*") for field in expression.split()[:2])


def watch(clock, wanted, fixed):
    """What is due while the clock is looked at minute by minute; `clock` lists
    (minute, wall minute) pairs."""
    previous = latest = clock[0][1] - 1
    due = []
    for minute, wall in clock:
        shift = wall - previous - 1
        if abs(shift) >= CORRECTION:
            latest = wall - 1  # starts afresh
        # Fixed times: what daylight saving skips is due now, and what it repeats
        # was due before.
        skipped = range(latest + 1, wall) if fixed else ()
        repeated = fixed and wall <= latest
        if (wall in wanted and not repeated) or any(one in wanted for one in skipped):
            due.append(minute)
        previous, latest = wall, max(latest, wall)
    return due


def clocks(zone, course):
    """For the days around every change, the clock minute by minute."""
    return [
        [(minute, minute + offset(zone, minute)) for minute in range(change - DAY, change + DAY)]
        for change, _ in course[1:]
    ]


def minute_walk(expression, walls, course, watched):
    """All due minutes of the decade."""
    fixed = is_fixed(expression)
    wanted = set(walls)
    due, position = [], course[0][0]

    def run_evenly(end, shift):
        due.extend(wall - shift for wall in
                   walls[bisect_left(walls, position + shift):bisect_left(walls, end + shift)])

    for (_, before), (change, _), clock in zip(course, course[1:], watched):
        if change - DAY < position:
            raise SystemExit("changes of the clock within two days of each other")
        run_evenly(change - DAY, before)
        due.extend(watch(clock, wanted, fixed))
        position = change + DAY
    run_evenly(LAST + 1, course[-1][1])
    return due[bisect_right(due, FIRST):bisect_right(due, LAST)]


# --- cronsim ----------------------------------------------------------------


def simulate(expression, zone):
    """cronsim's due minutes of the decade.  Several times made up for at one
    instant are one due instant."""
    due = []
    for found in CronSim(expression, START.astimezone(zone)):
        minute = minutes(found)
        if minute > LAST:
            return due
        if not due or minute != due[-1]:
            due.append(minute)


# --- Comparison -------------------------------------------------------------


# The same for all zones.
WALLS = {expression: wanted_walls(expression) for expression in EXPRESSIONS}


def digest(due):
    text = "".join(f"{minute * 60}\n" for minute in due)
    return hashlib.sha256(text.encode("ascii")).hexdigest()[:16]


REASONS = {
    "correction-skip": "fixed times. The clock went forward by three hours, a correction, so what it "
    "skipped stays skipped; cronsim knows no corrections and makes up for it right after the change.",
    "correction-repeat": "fixed times. The clock went back by three hours, a correction, so the "
    "repeated times are due both times; cronsim takes the first only. (cron.c itself draws the line a "
    "minute apart in the two directions: it corrects from exactly three hours on going forward, from "
    "three hours and one minute on going back, and so would side with cronsim here.)",
    "midnight": "wildcards. The clock skipped midnight, where cronsim enters a new day when only some "
    "days are wanted; it answers with that midnight, which is the instant after the gap, "
    "though the wall clock then shows a time that is not wanted.",
    "whole-hours": "wildcards. cronsim looks for the hour in steps of 60 minutes from minute 0; a "
    "change by half an hour, or at an uneven minute, leaves it in the middle of an hour, and it "
    "misses wanted times before that.",
}


def reason(minute, extra, fixed, course):
    """Why cronsim has (`extra`) or lacks one instant; None if unknown."""
    number = bisect_right([change for change, _ in course], minute) - 1
    if not number:
        return None
    (_, before), (change, after) = course[number - 1:number + 1]
    shift, wall = after - before, change + after
    if fixed and extra and minute == change and shift >= CORRECTION:
        return "correction-skip"
    if fixed and not extra and minute - change < -shift and -shift >= CORRECTION:
        return "correction-repeat"
    skips_midnight = 0 < shift and (wall - shift - 1) // DAY < (wall - 1) // DAY
    if not fixed and extra and minute == change and skips_midnight:
        return "midnight"
    uneven = shift % 60 or wall % 60
    if not fixed and not extra and minute - change < 4 * 60 and uneven:
        return "whole-hours"
    return None


def reasons(expression, course, walk, simulated):
    """The reasons and their numbers of instants, e.g. "midnight:4"."""
    fixed = is_fixed(expression)
    counts = Counter(
        [reason(minute, False, fixed, course) for minute in set(walk) - set(simulated)]
        + [reason(minute, True, fixed, course) for minute in set(simulated) - set(walk)]
    )
    if not counts or None in counts:
        raise SystemExit(f"{expression} in {course} differs for an unknown reason")
    return " ".join(f"{name}:{counts[name]}" for name in REASONS if counts[name])


def compare(course, name):
    """For every expression the columns after it: count and digest, and if
    cronsim differs, its count and digest and the reasons."""
    zone = ZoneInfo(name)
    watched = clocks(zone, course)
    answers = []
    for expression in EXPRESSIONS:
        walk = minute_walk(expression, WALLS[expression], course, watched)
        simulated = simulate(expression, zone)
        answer = [str(len(walk)), digest(walk)]
        if walk != simulated:
            answer += [str(len(simulated)), digest(simulated),
                       reasons(expression, course, walk, simulated)]
        answers.append(answer)
    return answers


def write(folder, name, about, lines):
    text = "\n".join(f"# {line}" for line in about) + "\n"
    text += "".join("\t".join(line) + "\n" for line in lines)
    (folder / name).write_text(text, encoding="utf-8", newline="\n")
    print(f"{name}: {len(lines)} rows, {len(text)} bytes")


def main():
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent
    folder, version = tzdata()
    names = zone_names(folder)
    with Pool(PROCESSES) as pool:
        courses = dict(zip(names, pool.map(course_of, names)))
        representatives = {}
        for name in names:
            representatives.setdefault(courses[name], name)
        computed = pool.starmap(compare, representatives.items(), chunksize=1)
    answers = dict(zip(representatives, computed))

    agreed, differs = [], []
    for name in names:
        for expression, answer in zip(EXPRESSIONS, answers[courses[name]]):
            (agreed if len(answer) == 2 else differs).append([name, expression, *answer])

    origin = [
        f"cronsim {metadata.version('cronsim')}, tzdata {version} (the system's); "
        "written by make-zone-vectors.py, do not edit.",
    ]
    span = f"{START:%Y-%m-%dT%H:%M:%SZ} (exclusive) and {END:%Y-%m-%dT%H:%M:%SZ} (inclusive)"
    contents = [
        f"An answer is the number of due instants between {span}, and the first 16 hex",
        "digits of the SHA-256 of these instants as decimal Unix seconds, each followed by a newline.",
    ]
    write(target, "zones.tsv", [
        "Every time zone, a decade of due instants: cronsim and a walk by the minute agree on them.",
        *origin, *contents, "Tab-separated columns: zone, expression, count, digest",
    ], agreed)
    write(target, "zones-differs.tsv", [
        "Rows left out of zones.tsv: cronsim and the walk by the minute in make-zone-vectors.py disagree.",
        *origin, *contents,
        "Tab-separated columns: zone, expression, the walk's count and digest, cronsim's count and digest,",
        "why (how many instants only one of them has, by reason). The walk keeps the rules that",
        "ZonedSchedule.swift states; it is right where they differ. The reasons:",
        *(f"{name}: {words}" for name, words in REASONS.items()),
    ], differs)
    print(f"{len(names)} zones in {len(representatives)} groups of like clocks")


if __name__ == "__main__":
    main()
