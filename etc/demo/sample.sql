-- A small multimedia portal: what `make demo` backs up, and what the integration tests do. It has on purpose what trips
-- backup tools: partitions, quoted and non-ASCII names, large objects, NULLs, backslashes, newlines, tables without columns,
-- identity and generated columns, inheritance, a materialized view. psql -v scale=1 makes about 40 000 rows.
\set ON_ERROR_STOP on
SET client_min_messages = warning;
SELECT setseed(0.5) \g /dev/null

CREATE SCHEMA portal;
CREATE TYPE portal.media_kind AS ENUM ('image', 'video', 'audio');
CREATE DOMAIN portal.email AS text CHECK (VALUE ~ '@');

CREATE TABLE portal.users (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  name text NOT NULL,
  email portal.email UNIQUE,
  settings jsonb NOT NULL DEFAULT '{}',
  joined timestamptz NOT NULL);
INSERT INTO portal.users (name, email, settings, joined)
SELECT 'user ' || i, 'u' || i || '@example.org', jsonb_build_object('theme', CASE i % 2 WHEN 0 THEN 'dark' ELSE 'light' END, 'n', i),
       timestamptz '2024-01-01 00:00+00' + i * interval '37 minutes'
FROM generate_series(1, 2000 * :scale) AS i;

CREATE TABLE portal.media (
  id uuid PRIMARY KEY,
  owner bigint NOT NULL REFERENCES portal.users,
  kind portal.media_kind NOT NULL,
  title text NOT NULL,
  bytes bigint NOT NULL,
  kilobytes bigint GENERATED ALWAYS AS (bytes / 1024) STORED,
  tags text[],
  checksum bytea,
  aspect real,
  price numeric(12, 4));
INSERT INTO portal.media (id, owner, kind, title, bytes, tags, checksum, aspect, price)
SELECT md5('m' || i)::uuid, 1 + i % (2000 * :scale), (ARRAY['image', 'video', 'audio'])[1 + i % 3]::portal.media_kind,
       'Title ' || i || CASE WHEN i % 50 = 0 THEN E' with a tab\t, a newline\n and a backslash \\' ELSE '' END,
       (i * 7919) % 100000000, CASE WHEN i % 7 <> 0 THEN ARRAY['tag' || i % 10, NULL, 'a "quoted", tag'] END,
       decode(md5('c' || i), 'hex'), (i % 160) / 90.0, (i % 10000) / 7.0
FROM generate_series(1, 10000 * :scale) AS i;
CREATE INDEX ON portal.media (owner);

CREATE TABLE portal.views (media uuid NOT NULL, viewer bigint, seconds double precision, seen timestamptz NOT NULL)
  PARTITION BY RANGE (seen);
CREATE TABLE portal.views_2025 PARTITION OF portal.views FOR VALUES FROM ('2025-01-01 00:00+00') TO ('2026-01-01 00:00+00');
CREATE TABLE portal.views_2026 PARTITION OF portal.views FOR VALUES FROM ('2026-01-01 00:00+00') TO ('2027-01-01 00:00+00');
INSERT INTO portal.views
SELECT md5('m' || 1 + i % 10000)::uuid, NULLIF(i % 500, 0), i / 3.0, timestamptz '2025-06-01 00:00+00' + (i % 27000) * interval '17 minutes'
FROM generate_series(1, 27000 * :scale) AS i;

CREATE TABLE portal."Odd ""values"" – Füße" (k int PRIMARY KEY, "mixed Case" text, v text);
INSERT INTO portal."Odd ""values"" – Füße" VALUES
  (1, NULL, ''), (2, '\.', E'\\.'), (3, E'line\nbreak', E'tab\there'), (4, 'Ünïcödé 🐘', repeat('long ', 20000)),
  (5, '\N', E'\\N'), (6, E'\b\f\v\r', E'ends with backslash \\');
CREATE TABLE portal.floats (f4 real, f8 double precision, i interval, d date, t time, ts timestamp);
INSERT INTO portal.floats VALUES
  ('NaN', 'Infinity', '1 year 2 mons -3 days 04:05:06.789', 'infinity', '24:00', '4713-01-01 00:00 BC'),
  (0.1, 0.1 + 0.2, '-1 microsecond', '2000-02-29', '23:59:59.999999', '294276-12-31 23:59:59');
CREATE TABLE portal.no_columns ();
INSERT INTO portal.no_columns SELECT FROM generate_series(1, 3);
CREATE TABLE portal.empty (id int);
CREATE TABLE portal.duplicates (word text);
INSERT INTO portal.duplicates SELECT 'same' FROM generate_series(1, 1000);
CREATE TABLE portal.parent (id int, note text);
CREATE TABLE portal.child (extra int) INHERITS (portal.parent);
INSERT INTO portal.parent VALUES (1, 'parent');
INSERT INTO portal.child VALUES (2, 'child', 3);
CREATE MATERIALIZED VIEW portal.views_by_day AS SELECT date_trunc('day', seen) AS day, count(*) FROM portal.views GROUP BY 1;
CREATE VIEW portal.newest AS SELECT * FROM portal.users ORDER BY joined DESC LIMIT 10;
CREATE FUNCTION portal.title_length(m portal.media) RETURNS int LANGUAGE sql IMMUTABLE AS $$ SELECT length(m.title) $$;
COMMENT ON TABLE portal.users IS 'Who may upload; it''s "quoted".';

SELECT lo_from_bytea(70001, 'a small large object') \g /dev/null
SELECT lo_from_bytea(70002, decode(repeat(md5('lo'), 20000), 'hex')) \g /dev/null
SELECT lo_create(70003) \g /dev/null
