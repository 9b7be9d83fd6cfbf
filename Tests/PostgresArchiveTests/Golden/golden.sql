-- golden.sql: the sample database behind the golden archives.
--
-- Small, but nasty on purpose: whatever COPY text has to escape, whatever names need quoting, and every kind of
-- relation that pg_dump treats in its own way.  It must load identically in PostgreSQL 14 to 18, and its content is
-- deterministic: no now(), no random(), no sequence values that depend on timing.
-- Run by psql with ON_ERROR_STOP in an empty UTF8 database, as the superuser "postgres"; the roles golden_reader
-- and golden_writer have to exist (make-golden.sh creates them).

SET client_encoding = 'UTF8';
SET standard_conforming_strings = on;
SET timezone = 'UTC';

COMMENT ON DATABASE golden IS 'golden archive sample';

-- Types -------------------------------------------------------------------------------------------------------------

CREATE TYPE mood AS ENUM ('sad', 'ok', 'happy', 'it''s "complicated"');
CREATE DOMAIN positive_int AS integer CONSTRAINT positive CHECK (VALUE > 0);
CREATE TYPE point3 AS (x float8, y float8, label text);

-- A function whose body has several lines, and things that look like other syntax ------------------------------------

CREATE FUNCTION describe(a integer, b text DEFAULT E'x\ty') RETURNS text
LANGUAGE plpgsql IMMUTABLE AS $body$
DECLARE
    -- A comment; with a semicolon, and a line that looks like the end of COPY data:
    result text := '';
BEGIN
    /*
\.
COPY public.fake (a) FROM stdin;
    */
    IF a IS NULL THEN
        RETURN 'none';
    END IF;
    FOR i IN 1 .. least(a, 3) LOOP
        result := result || i::text || '-' || b;
    END LOOP;

    RETURN result;
END;
$body$;
COMMENT ON FUNCTION describe(integer, text) IS E'first line\nsecond line with a \\ and a ''quote''';

-- Every common type, with NULLs ---------------------------------------------------------------------------------------

CREATE TABLE all_types (
    id         integer PRIMARY KEY,
    flag       boolean,
    small      smallint,
    big        bigint,
    real4      real,
    real8      double precision,
    amount     numeric(30, 10),
    anynum     numeric,
    txt        text,
    vc         varchar(20),
    fixed      char(5),
    j          json,
    jb         jsonb,
    u          uuid,
    d          date,
    t          time,
    ts         timestamp,
    tz         timestamptz,
    iv         interval,
    raw        bytea,
    ints       integer[],
    texts      text[],
    grid       integer[][],
    feeling    mood,
    pos        positive_int,
    p3         point3,
    addr       inet,
    bits       bit varying(12),
    span       int4range
);
INSERT INTO all_types VALUES
(1, true, 1, 1, 1.5, 1.5, 1.5, 1.5, 'plain', 'vc', 'ab', '{"a": 1}', '{"b": [1, 2, {"c": null}]}',
 '00000000-0000-0000-0000-000000000001', '2024-02-29', '12:34:56.789', '2024-02-29 12:34:56.789',
 '2024-02-29 12:34:56.789+05:30', '1 year 2 mons 3 days 04:05:06.789', '\x00010203ff5c0a09', '{1,2,3}',
 ARRAY['a', 'b c', 'd"e', E'f\\g', E'h\ni', '', NULL, 'NULL'], '{{1,2},{3,4}}', 'happy', 7, ROW(1, 2.5, 'a "b", c'),
 '192.168.0.1/24', B'10101', '[1,10)'),
(2, false, -32768, -9223372036854775808, '-Infinity', 'NaN', -99999999999999999999.9999999999, 'NaN', '', '', '',
 'null', 'null', 'ffffffff-ffff-ffff-ffff-ffffffffffff', '-infinity', '00:00:00', '-infinity', '-infinity',
 '-1 year -2 mons +3 days -04:05:06', '', '{}', '{}', '{}', 'sad', 1, ROW(NULL, NULL, NULL), '::1', B'', 'empty'),
(3, NULL, 32767, 9223372036854775807, 'Infinity', 0.1::float8 + 0.2::float8, 99999999999999999999.9999999999,
 12345678901234567890123456789012345678901234567890.123456789, E'tab\there', E'nl\nhere', 'é', '"\\u00e9\n"',
 '"\u00e9\n\\"', '12345678-9abc-def0-1234-56789abcdef0', 'infinity', '24:00:00', 'infinity', 'infinity', '0',
 '\x5c2e0a', '{NULL,1,NULL}', ARRAY[E'\\.', E'\t', '{}', ','], '[2:3][0:1]={{1,2},{3,4}}', 'it''s "complicated"',
 2147483647, ROW('NaN', '-0', E'line\nline'), '10.0.0.0/8', B'111111111111', '(,)'),
(4, true, 0, 0, 1e-37, 2.2250738585072014e-308, 0, 0.000000000000000000000000000001, E'\\N', E'\\', '\', '[]', '{}',
 NULL, '4713-01-01 BC', '23:59:59.999999', '0044-03-15 00:00:00 BC', '294276-12-31 23:59:59.999999+00',
 '178000000 years', decode(repeat('00ff', 50), 'hex'), '[5:6]={1,2}', NULL, NULL, 'ok', NULL, NULL, NULL, NULL, NULL),
(5, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL,
 NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL),
(6, true, 1, 1, 3.4028235e38, 1.7976931348623157e308, 1, 1e400, 'x', 'x', 'x', '1', '1', NULL, '2000-01-01', '01:00',
 '1999-12-31 23:59:59.9', '1969-12-31 23:59:59.999999+00', '1 microsecond', '\x', NULL, NULL, NULL, NULL, NULL, NULL,
 'ffff::/16', B'0', '[5,6)');
COMMENT ON TABLE all_types IS 'one column of every common type';
COMMENT ON COLUMN all_types.tz IS E'with a zone\n\\.\n';

-- Text that COPY has to escape, or that looks like COPY's own markers ---------------------------------------------------

CREATE TABLE nasty_text (v text, note text NOT NULL);
INSERT INTO nasty_text VALUES
(E'\\.', 'the end-of-data marker as a value'),
(E'\\.\n', 'the marker and a newline'),
(E'\n\\.\n', 'the marker on a line of its own'),
(E'a\nb\nc', 'newlines'),
(E'\n', 'one newline'),
(E'\r\n\r', 'carriage returns'),
(E'\t\t', 'tabs'),
(E'\b\f\x0b', 'backspace, form feed, vertical tab'),
(E'\x01\x02\x1b\x7f', 'control characters'),
(E'\\', 'one backslash'),
(E'\\\\n\\t', 'backslashes before letters'),
(E'\\N', 'looks like NULL'),
(NULL, 'is NULL'),
('NULL', 'the word NULL'),
('', 'empty'),
(' ', 'one space'),
('  trailing and leading  ', 'spaces'),
('"quoted", ''quoted''', 'quotes'),
('$$dollar$body$', 'dollar quotes'),
('-- comment; /* comment */', 'comments'),
('COPY public.t (a) FROM stdin;', 'looks like COPY'),
('PGDMP', 'looks like the magic'),
('Ünïcödé', 'latin letters'),
('日本語テキスト', 'three-byte characters'),
('🐘🇫🇷👩‍👩‍👧', 'four-byte characters and joiners'),
(U&'e\0301', 'a combining accent'),
(U&'\FEFFbom', 'a byte order mark'),
(U&'\2028\2029\0085', 'unicode line separators'),
(U&'\0645\0631\062D\0628\0627', 'right to left'),
(repeat('x', 4000), 'longer than some buffers'),
(repeat(E'\\', 700), 'doubles in size'),
(repeat(E'\n', 500), 'doubles in size as well');

-- The marker alone on a line: a single text column, so that nothing but escaping tells it from the real end.
CREATE TABLE marker_only (v text);
INSERT INTO marker_only VALUES (E'\\.'), (''), (NULL), (E'\\.'), (E'\\N'), (''), (E'.'), (E'\\');

-- Relations without rows, without columns, with equal rows -----------------------------------------------------------------

CREATE TABLE empty_table (id integer, v text);
CREATE TABLE no_columns ();
INSERT INTO no_columns DEFAULT VALUES;
INSERT INTO no_columns DEFAULT VALUES;
INSERT INTO no_columns DEFAULT VALUES;
CREATE TABLE no_columns_empty ();
CREATE TABLE duplicates (a integer, b text);
INSERT INTO duplicates SELECT i % 3, 'same' FROM generate_series(1, 12) AS i;
INSERT INTO duplicates SELECT NULL, NULL FROM generate_series(1, 4);

-- Columns that pg_dump leaves out, or that come from sequences --------------------------------------------------------------

CREATE TABLE generated (
    id    integer GENERATED ALWAYS AS IDENTITY (START WITH 100 INCREMENT BY 5) PRIMARY KEY,
    a     integer NOT NULL,
    twice integer GENERATED ALWAYS AS (a * 2) STORED,
    b     text DEFAULT 'def'
);
INSERT INTO generated (a, b) SELECT i, 'row ' || i FROM generate_series(1, 10) AS i;

-- Only generated columns: COPY would have an empty column list.
CREATE TABLE only_generated (one integer GENERATED ALWAYS AS (1) STORED);
INSERT INTO only_generated DEFAULT VALUES;
INSERT INTO only_generated DEFAULT VALUES;

CREATE TABLE serials (id serial PRIMARY KEY, gone text, kept text, other bigint GENERATED BY DEFAULT AS IDENTITY);
INSERT INTO serials (gone, kept) SELECT 'x', chr(64 + i) FROM generate_series(1, 15) AS i;
ALTER TABLE serials DROP COLUMN gone;
DELETE FROM serials WHERE id IN (3, 5, 7);
CREATE SEQUENCE standalone_seq START WITH 1000 INCREMENT BY -1 MAXVALUE 1000 MINVALUE -1000 CYCLE;
SELECT nextval('standalone_seq'), nextval('standalone_seq');

-- Partitions and inheritance ---------------------------------------------------------------------------------------------

CREATE TABLE measurements (day date NOT NULL, sensor integer NOT NULL, value double precision) PARTITION BY RANGE (day);
CREATE TABLE measurements_2023 PARTITION OF measurements FOR VALUES FROM ('2023-01-01') TO ('2024-01-01');
CREATE TABLE measurements_2024 PARTITION OF measurements FOR VALUES FROM ('2024-01-01') TO ('2025-01-01')
    PARTITION BY LIST (sensor);
CREATE TABLE measurements_2024_a PARTITION OF measurements_2024 FOR VALUES IN (0, 1);
CREATE TABLE measurements_rest PARTITION OF measurements_2024 DEFAULT;
INSERT INTO measurements
SELECT date '2023-07-01' + i * 9, i % 4, i * 0.1::float8 FROM generate_series(0, 45) AS i;

CREATE TABLE parent (id integer NOT NULL, v text);
CREATE TABLE child (extra numeric) INHERITS (parent);
INSERT INTO parent SELECT i, 'parent ' || i FROM generate_series(1, 5) AS i;
INSERT INTO child SELECT i, 'child ' || i, i / 7.0 FROM generate_series(1, 7) AS i;

-- Names that need quoting ------------------------------------------------------------------------------------------------

CREATE SCHEMA "Mixed Case";
CREATE SCHEMA "схема-données";
COMMENT ON SCHEMA "Mixed Case" IS 'a name with a space';
CREATE TABLE "Mixed Case"."CamelCase" ("Id" integer, "order" text, "With Space" text);
INSERT INTO "Mixed Case"."CamelCase" SELECT i, 'o' || i, NULL FROM generate_series(1, 6) AS i;
CREATE TABLE "Mixed Case"."quote""inside" ("col""umn" text, "semi;colon" integer);
INSERT INTO "Mixed Case"."quote""inside" VALUES ('a', 1), ('"', 2), (NULL, NULL);
CREATE TABLE "Mixed Case"."has space (and) FROM stdin;" ("a FROM stdin; b" text);
INSERT INTO "Mixed Case"."has space (and) FROM stdin;" VALUES ('x'), ('y');
CREATE TABLE "схема-données"."таблица" ("número" integer, "名前" text);
INSERT INTO "схема-données"."таблица" VALUES (1, 'один'), (2, 'deux'), (3, '三'), (4, NULL);
CREATE TABLE "схема-données"."select" ("from" integer);
INSERT INTO "схема-données"."select" VALUES (1), (2);
-- The same table name in two schemas.
CREATE TABLE "Mixed Case".duplicates (a integer);
INSERT INTO "Mixed Case".duplicates VALUES (42);

-- One long row: 300 kB of text in lines of differing content, so it spans many of pg_dump's chunks --------------------------

CREATE TABLE long_row (id integer, v text);
INSERT INTO long_row VALUES (1, 'short before');
INSERT INTO long_row
SELECT 2, left(string_agg(md5(i::text) || CASE i % 3 WHEN 0 THEN E'\n' WHEN 1 THEN E'\t' ELSE 'é' END, '' ORDER BY i), 300000)
FROM generate_series(1, 9200) AS i;
INSERT INTO long_row VALUES (3, 'short after');

-- Large objects: empty, about 5 kB, 100 kB ------------------------------------------------------------------------------------

SELECT lo_from_bytea(424201, ''::bytea);
SELECT lo_from_bytea(424202, decode((SELECT string_agg(md5('lo' || i), '' ORDER BY i) FROM generate_series(1, 313) AS i), 'hex'));
SELECT lo_from_bytea(424203, decode((SELECT string_agg(md5('LO' || i), '' ORDER BY i) FROM generate_series(1, 6250) AS i), 'hex'));
COMMENT ON LARGE OBJECT 424202 IS 'five kilobytes';
GRANT SELECT ON LARGE OBJECT 424203 TO golden_reader;

-- Objects without data of their own --------------------------------------------------------------------------------------

CREATE VIEW happy_people AS SELECT id, txt FROM all_types WHERE feeling = 'happy';
CREATE MATERIALIZED VIEW sensor_totals AS
    SELECT sensor, count(*) AS n, sum(value) AS total FROM measurements GROUP BY sensor;
CREATE UNIQUE INDEX ON sensor_totals (sensor);
CREATE UNLOGGED TABLE unlogged_table (id integer);
INSERT INTO unlogged_table VALUES (1), (2);
CREATE INDEX nasty_text_hash ON nasty_text USING hash (v);
CREATE TABLE self_reference (id integer PRIMARY KEY, up integer REFERENCES self_reference);
INSERT INTO self_reference VALUES (1, NULL), (2, 1), (3, 1), (4, 4);

GRANT USAGE ON SCHEMA "Mixed Case" TO golden_reader;
GRANT SELECT ON all_types, "Mixed Case"."quote""inside" TO golden_reader;
GRANT SELECT (id), UPDATE (b) ON generated TO golden_writer WITH GRANT OPTION;
ALTER TABLE duplicates OWNER TO golden_writer;
ALTER DEFAULT PRIVILEGES IN SCHEMA "Mixed Case" GRANT SELECT ON TABLES TO golden_reader;
