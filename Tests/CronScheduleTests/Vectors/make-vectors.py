#!/usr/bin/env python3
"""Writes the reference vectors next to this file: next.tsv, dst.tsv,
previous.tsv, invalid.tsv and differs.tsv.

Why: the schedule engine is meant to follow Debian's cron, and its own tests
should not be the only witness.  The Python package cronsim is an independent
implementation with the same aim, so its answers make good reference data.

How to run (Python 3.11 or later):

    python3 -m venv venv && venv/bin/pip install cronsim==2.8
    venv/bin/python make-vectors.py [output directory]

The same cronsim, the same time zone data, the same Python and the same seed
give byte-identical files.  The zone data is whatever zoneinfo finds (the
system's, else the tzdata package); its version goes into every header.

How a row earns its place: cronsim's answer is compared with `calendar_walk`
below.  cronsim simulates a clock and skips ahead by whole hours and days,
which goes wrong around a few clock changes (half-hour shifts, a missing
midnight, a missing day).  The walk uses no clock: it lists the wall-clock
times of each matching date and converts them one by one.  It borrows parsing
and date matching from cronsim, so it checks time arithmetic only.  Rows on
which the two agree go into the vectors; the others go to differs.tsv with both
answers, so that nothing is dropped unseen.
"""

import random
import sys
import zoneinfo
from datetime import datetime, timedelta, timezone
from importlib import metadata
from itertools import cycle, islice, product
from pathlib import Path
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

SEED = 20240229
UTC = timezone.utc

NEXT_ROWS, NEXT_COUNT = 1500, 6
DST_ROWS = 600
PREVIOUS_ROWS, PREVIOUS_COUNT = 400, 4

# Zones with something to get wrong: a half-hour shift (Lord Howe), odd offsets
# (St John's, Kathmandu, Chatham), clock changes at midnight (Sao Paulo, Beirut,
# Azores), two extra changes around Ramadan (Casablanca), a date that never
# happened (Apia, 2011-12-30).
ZONES = [
    "UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe",
    "America/St_Johns", "Asia/Kathmandu", "Africa/Casablanca",
    "America/Sao_Paulo", "Asia/Beirut", "Atlantic/Azores", "Pacific/Apia",
    "Pacific/Chatham",
]

# Beyond 2037 zone files hold only a rule, which readers extend differently.
LAST_INSTANT = datetime(2038, 1, 1, tzinfo=UTC)
FIRST_START = datetime(2005, 1, 1, tzinfo=UTC)
LAST_START = datetime(2036, 1, 1, tzinfo=UTC)

# Debian's cron treats a jump of three hours or more as a clock correction and
# then does not make up for the skipped times.
CORRECTION = timedelta(hours=3)


def zone_data_version():
    """The tz database version that zoneinfo reads, e.g. 2025b."""
    for folder in zoneinfo.TZPATH:
        listing = Path(folder) / "tzdata.zi"
        if listing.is_file():
            with listing.open(encoding="utf-8") as text:
                return text.readline().removeprefix("# version").strip()
        if Path(folder, "UTC").is_file():
            return "unknown"
    return metadata.version("tzdata")


# --- The calendar walk ------------------------------------------------------


def local_instant(wall, zone, fold):
    """`wall` in `zone` as UTC, and whether that wall-clock time exists."""
    instant = wall.replace(tzinfo=zone, fold=fold).astimezone(UTC)
    back = instant.astimezone(zone)
    return instant, back.replace(tzinfo=None, fold=0) == wall


def end_of_gap(wall, zone):
    """First instant after the gap that contains `wall`; None if the gap is as
    long as a clock correction.  Inside a gap, fold=1 gives an instant just
    before the change and fold=0 one just after, so bisect between the two."""
    low, _ = local_instant(wall, zone, 1)
    high, _ = local_instant(wall, zone, 0)
    if high - low >= CORRECTION:
        return None
    return bisect_change(low, high, zone)


def bisect_change(low, high, zone):
    """The first whole minute at which the offset differs from that at `low`."""
    before = low.astimezone(zone).utcoffset()
    while high - low > timedelta(minutes=1):
        middle = low + timedelta(minutes=(high - low) // timedelta(minutes=2))
        if middle.astimezone(zone).utcoffset() == before:
            low = middle
        else:
            high = middle
    return high


def instants_on(day, job, zone, fixed):
    """All instants at which `job` fires for wall-clock times of `day`."""
    if day.month not in job.months or not job.match_day(day):
        return []
    found = set()
    for hour, minute in product(job.hours, job.minutes):
        wall = datetime(day.year, day.month, day.day, hour, minute)
        first, exists = local_instant(wall, zone, 0)
        if not exists:
            # Skipped: a fixed job runs when the gap is over, others do not.
            made_up = end_of_gap(wall, zone) if fixed else None
            if made_up:
                found.add(made_up)
            continue
        found.add(first)
        if not fixed:
            # Repeated: only jobs with a star run the second time as well.
            found.add(local_instant(wall, zone, 1)[0])
    return sorted(found)


def calendar_walk(expression, zone, start, count, step=1):
    """`count` instants strictly after `start` (before it for step=-1)."""
    job = CronSim(expression, datetime(2000, 1, 1))
    minute, hour = expression.split()[:2]
    fixed = not minute.startswith("*") and not hour.startswith("*")
    # Start a day early: a job skipped before midnight can run after it.
    day = start.astimezone(zone).date() - timedelta(days=step)
    answer = []
    while len(answer) < count and abs(day.year - start.year) < 60:
        for instant in instants_on(day, job, zone, fixed)[::step]:
            beyond = answer[-1] if answer else start
            if (instant - beyond) * step > timedelta(0):
                answer.append(instant)
        day += timedelta(days=step)
    return answer[:count]


# --- cronsim ----------------------------------------------------------------


def simulate(expression, zone, start, count, step=1):
    """cronsim's answer in UTC; shorter than `count` when it gives up."""
    job = CronSim(expression, start.astimezone(zone), reverse=step < 0)
    return [found.astimezone(UTC) for found in islice(job, count)]


class Rows:
    """Collects agreeing rows of one file, and the disagreeing ones apart."""

    def __init__(self, name, differs):
        self.name, self.differs = name, differs
        self.lines, self.seen = [], set()

    def offer(self, expression, zone_name, start, count, step=1, accept=None):
        """Whether the row was usable; it then stands in this file or in differs."""
        key = (expression, zone_name, start)
        if key in self.seen:
            return False
        zone = ZoneInfo(zone_name)
        answer = simulate(expression, zone, start, count, step)
        if len(answer) < count or not all(
            datetime(1990, 1, 1, tzinfo=UTC) < found < LAST_INSTANT for found in answer
        ):
            return False
        if accept and not accept(answer):
            return False
        self.seen.add(key)
        walk = calendar_walk(expression, zone, start, count, step)
        row = [expression, zone_name, iso(start), " ".join(map(iso, answer))]
        if walk != answer:
            self.differs.append([self.name, *row, " ".join(map(iso, walk))])
        else:
            self.lines.append(row)
        return True


def iso(instant):
    return instant.strftime("%Y-%m-%dT%H:%M:%SZ")


# --- Random expressions -----------------------------------------------------

MONTH_NAMES = "JAN FEB MAR APR MAY JUN JUL AUG SEP OCT NOV DEC".split()
DAY_NAMES = "SUN MON TUE WED THU FRI SAT".split()


def any_case(rng, name):
    return rng.choice([name, name.lower(), name.capitalize()])


def term(rng, low, high, names=()):
    """One list element: a value, a range, or a range or star with a step.

    Left out on purpose: `5/15` and `5-5/10`, which cronsim reads as "from 5 to
    the end" and Debian does not.
    """

    def spell(value):
        index = value - low
        if names and index < len(names) and rng.random() < 0.4:
            return any_case(rng, names[index])
        return str(value)

    kind = rng.random()
    if kind < 0.5:
        return spell(rng.randint(low, high))
    if kind < 0.62:
        return f"*/{rng.randint(2, max(2, (high - low) // 2))}"
    first, last = sorted(rng.sample(range(low, high + 1), 2))
    text = f"{spell(first)}-{spell(last)}"
    return text if kind < 0.82 else f"{text}/{rng.randint(1, max(2, (last - first)))}"


def field(rng, low, high, star, names=()):
    if rng.random() < star:
        return "*"
    return ",".join(term(rng, low, high, names) for _ in range(rng.choice([1, 1, 1, 2, 3])))


def day_of_month(rng):
    kind = rng.random()
    if kind < 0.07:
        return "L"
    if kind < 0.13:
        return "LW"
    if kind < 0.16:
        return f"{rng.randint(1, 27)},L"
    if kind < 0.24:
        return f"*/{rng.randint(2, 10)}"
    return field(rng, 1, 31, 0.45)


def day_of_week(rng):
    kind = rng.random()
    if kind < 0.06:
        return f"{rng.randint(0, 7)}L"
    if kind < 0.12:
        return f"{rng.choice([*map(str, range(8)), *DAY_NAMES])}#{rng.randint(1, 5)}"
    if kind < 0.15:
        return rng.choice(["MON#1,WED#3", "1#2,5L", "0#1,7#3", "fri#5,1"])
    if kind < 0.20:
        return rng.choice(["7", "5-7", "0,7", "FRI-7", "1-7/2"])
    if kind < 0.25:
        return rng.choice(["MON-FRI", "mon-fri", "TUE,THU,SAT", "SUN", "Mon-Sat/2"])
    if kind < 0.31:
        return f"*/{rng.randint(2, 4)}"
    return field(rng, 0, 7, 0.5, DAY_NAMES)


def random_expression(rng):
    return " ".join([
        field(rng, 0, 59, 0.12),
        field(rng, 0, 23, 0.25),
        day_of_month(rng),
        field(rng, 1, 12, 0.65, MONTH_NAMES),
        day_of_week(rng),
    ])


def random_start(rng):
    seconds = rng.randrange(int((LAST_START - FIRST_START).total_seconds()))
    start = FIRST_START + timedelta(seconds=seconds)
    # Mostly whole minutes, sometimes any second.
    return start if rng.random() < 0.3 else start.replace(second=0)


# --- The files --------------------------------------------------------------


def make_next(rng, rows):
    zones = cycle(ZONES)
    while len(rows.lines) < NEXT_ROWS:
        zone = next(zones)
        while not rows.offer(random_expression(rng), zone, random_start(rng), NEXT_COUNT):
            pass
        # One row in eight starts exactly on a match, which must not be repeated.
        if rng.random() < 0.125 and len(rows.lines) < NEXT_ROWS:
            expression, zone, _, found = rows.lines[-1]
            on_match = datetime.fromisoformat(found.split()[0])
            rows.offer(expression, zone, on_match, NEXT_COUNT)


# Expressions that hit the skipped or the repeated time in at least one of the
# zones: changes fall at 00:00, 01:00, 02:00, 02:45 and 03:00 local time, shifts
# are 30 or 60 minutes.
DST_EXPRESSIONS = [
    # fixed hour and minute: made up for after a gap, not repeated
    "30 2 * * *", "0 2 * * *", "0 3 * * *", "15 1-3 * * *", "30 1,2,3 * * 0",
    "0 0 * * *", "5 0 * * *", "30 0 * * *", "45 1 * * *", "15 2 * * *", "50 2 * * *",
    "0,30 2 * * *", "0,15,30,45 1-3 * * *", "10 0-23 * * *", "0-59 2 * * *",
    "30 23 * * *", "59 23 * * SUN", "0 0-6/2 * * 6,7", "20 1,3 1-31 * *",
    "0 0 * * 0L", "30 2 * * SUN#1", "30 1 * 3,10 7#2",
    "45 1,* * * *", "20 0-23 * * SAT,SUN",
    # a leading star in minute or hour: plain wall-clock matching
    "*/15 * * * *", "0 */2 * * *", "* 2 * * *", "* 0 * * *", "* 1 * * *",
    "30 * * * *", "0 * * * *", "40 * * * *", "15 */3 * * *", "*/20 1-3 * * *",
    "*/30 0 * * *", "*/10 2,3 * * SUN", "*/25 23 * * *", "45 *,1 * * *", "* * * * *",
    "*/20 0 * * SUN", "0 * * * SUN", "*/30 */6 * * SAT,SUN",
]


def clock_changes(zone_name, first, last):
    zone = ZoneInfo(zone_name)
    moment, found = first, []
    while moment < last:
        later = moment + timedelta(days=1)
        if moment.astimezone(zone).utcoffset() != later.astimezone(zone).utcoffset():
            found.append(bisect_change(moment, later, zone))
        moment = later
    return found


def make_dst(rng, rows):
    first, last = datetime(2015, 1, 1, tzinfo=UTC), datetime(2031, 1, 1, tzinfo=UTC)
    changes = [(zone, at) for zone in ZONES for at in clock_changes(zone, first, last)]
    rng.shuffle(changes)
    expressions = DST_EXPRESSIONS[:]
    rng.shuffle(expressions)
    expressions = cycle(expressions)
    for zone, change in cycle(changes):
        if len(rows.lines) >= DST_ROWS:
            return
        expression = next(expressions)
        # Dense expressions need a late start, or six instants end too soon.
        for attempt in range(30):
            longest = 360 if attempt < 5 else 75 if attempt < 15 else 5
            start = change - timedelta(minutes=rng.randint(1, longest))
            if rows.offer(expression, zone, start, NEXT_COUNT,
                          accept=lambda found: found[-1] >= change):
                break


def near_change(instant, zone):
    """Whether the offset changes within a day of `instant`."""
    day = timedelta(days=1)
    return (instant - day).astimezone(zone).utcoffset() != (instant + day).astimezone(zone).utcoffset()


def make_previous(rng, rows):
    # Every other row in UTC; elsewhere the start and all instants keep a day's
    # distance from any clock change, as the backward direction is not defined
    # by cron itself.
    zones = cycle(name for zone in ZONES[1:] for name in ("UTC", zone))
    while len(rows.lines) < PREVIOUS_ROWS:
        name = next(zones)
        zone = ZoneInfo(name)
        while True:
            start = random_start(rng)
            if not near_change(start, zone) and rows.offer(
                random_expression(rng), name, start, PREVIOUS_COUNT, -1,
                accept=lambda found: not any(near_change(at, zone) for at in found),
            ):
                break


INVALID = [
    # number of fields
    ("", "no fields"), (" ", "no fields"), ("*", "one field"), ("* * * *", "four fields"),
    ("* * * * * * *", "seven fields"), ("0 0 1 1", "four fields"),
    # out of range
    ("60 * * * *", "minute above 59"), ("-1 * * * *", "negative"),
    ("* 24 * * *", "hour above 23"), ("* * 0 * *", "day 0"), ("* * 32 * *", "day above 31"),
    ("* * * 0 *", "month 0"), ("* * * 13 *", "month above 12"),
    ("0 0 * * 8", "weekday above 7"), ("0-60 * * * *", "range end above 59"),
    ("0 20-24 * * *", "range end above 23"), ("0 0 1-32 * *", "range end above 31"),
    ("0 0 * 1-13 *", "range end above 12"), ("0 0 * * 5-8", "range end above 7"),
    ("5,61 * * * *", "list element above 59"), ("999999999999999999999 * * * *", "huge number"),
    # reversed ranges
    ("5-1 * * * *", "reversed range"), ("0 22-2 * * *", "reversed range"),
    ("0 0 * * FRI-MON", "reversed range of names"), ("0 0 * NOV-FEB *", "reversed range of names"),
    ("0 0 * * SAT-SUN", "reversed range: SUN is 0"),
    # steps
    ("*/0 * * * *", "step 0"), ("1-10/0 * * * *", "step 0"), ("*/ * * * *", "step missing"),
    ("/5 * * * *", "range before step missing"), ("*/a * * * *", "step not a number"),
    ("*/-5 * * * *", "negative step"), ("*/2/3 * * * *", "two steps"), ("0 0 * * */MON", "name as step"),
    # lists and ranges cut short
    (", * * * *", "empty list"), ("1, * * * *", "empty list element"),
    ("1,,2 * * * *", "empty list element"), (",1 * * * *", "empty list element"),
    ("1- * * * *", "range end missing"), ("1-2-3 * * * *", "two dashes"),
    ("*-5 * * * *", "star as range start"), ("*5 * * * *", "text after star"), ("** * * * *", "two stars"),
    # words and signs
    ("a b c d e", "not numbers"), ("1.5 * * * *", "decimal point"), ("+1 * * * *", "sign"),
    ("0x5 * * * *", "hexadecimal"), ("\u0665 * * * *", "digit outside ASCII"), ("? * * * *", "question mark"),
    ("0 0 ? * MON", "question mark"), ("JAN * * * *", "month name as minute"),
    ("0 0 MON * *", "weekday name as day of month"), ("0 0 * MON *", "weekday name as month"),
    ("0 0 * JANUARY *", "full month name"), ("0 0 * * MONDAY", "full weekday name"),
    # the last-day and nth-weekday extensions
    ("L * * * *", "L as minute"), ("0 0 * L *", "L as month"), ("0 0 * * L", "L without weekday"),
    ("0 0 * * 8L", "weekday above 7"), ("0 0 * * FRIL", "L after a name"),
    ("0 0 15W * *", "nearest weekday"), ("0 0 L-3 * *", "days before the last"),
    ("0 0 5L * *", "number before L in day of month"), ("0 0 * * LW", "LW as weekday"),
    ("0 0 * * MON#0", "0th weekday"), ("0 0 * * MON#6", "6th weekday"),
    ("0 0 * * MON#", "number after # missing"), ("0 0 * * #2", "weekday before # missing"),
    ("0 0 * * 8#1", "weekday above 7"), ("0 0 1#2 * *", "# in day of month"),
    # dates that never come (Debian's cron takes these and never runs them)
    ("0 0 30 2 *", "no 30 February"), ("0 0 31 2 *", "no 31 February"),
    ("0 0 30,31 2 *", "no 30 February"), ("0 0 31 4,6,9,11 *", "months of 30 days"),
    ("0 0 31 2 */2", "no 31 February; a leading star makes both day fields count"),
]

# Wrong for five-field cron, yet accepted by cronsim as seconds plus five fields.
SIX_FIELDS = "* * * * * *"


def make_invalid():
    lines = []
    for expression, reason in INVALID:
        try:
            CronSim(expression, datetime(2020, 1, 1))
        except CronSimError as error:
            lines.append([expression, f"{error}: {reason}"])
        else:
            raise SystemExit(f"cronsim accepts {expression!r}")
    CronSim(SIX_FIELDS, datetime(2020, 1, 1))
    lines.append([SIX_FIELDS, "NOT refused by cronsim (reads a leading seconds field): six fields"])
    return lines


def write(folder, name, about, columns, lines):
    header = [
        f"# {about}",
        f"# cronsim {metadata.version('cronsim')}, tzdata {zone_data_version()}, "
        f"seed {SEED}; written by make-vectors.py, do not edit.",
        f"# Tab-separated columns: {columns}",
    ]
    text = "\n".join(header + ["\t".join(line) for line in lines]) + "\n"
    (folder / name).write_text(text, encoding="utf-8", newline="\n")
    print(f"{name}: {len(lines)} rows")


def main():
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent
    differs = []
    following, dst, previous = (Rows(name, differs) for name in ("next", "dst", "previous"))
    # A generator of its own for each file, so that one can change without the others.
    make_next(random.Random(SEED), following)
    make_dst(random.Random(SEED + 1), dst)
    make_previous(random.Random(SEED + 2), previous)

    columns = "expression, zone, start (exclusive, UTC), the {} instants {} it (UTC, space separated)"
    after = columns.format(NEXT_COUNT, "after")
    write(folder, "next.tsv", "Next instants of random expressions.", after, following.lines)
    write(folder, "dst.tsv", "Next instants across a clock change.", after, dst.lines)
    write(folder, "previous.tsv", "Previous instants, latest first, away from clock changes.",
          columns.format(PREVIOUS_COUNT, "before"), previous.lines)
    write(folder, "invalid.tsv", "Refused expressions; the first two are empty and a single space.",
          "expression, reason (cronsim's message: what is wrong)", make_invalid())
    write(folder, "differs.tsv",
          "Rows left out of the other files: cronsim and the calendar walk of make-vectors.py disagree.",
          "file, expression, zone, start (UTC), cronsim's instants, the walk's instants", differs)


if __name__ == "__main__":
    main()
