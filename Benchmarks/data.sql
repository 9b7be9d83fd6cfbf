-- Realistic rows for the benchmarks: text of words, jsonb, uuid, timestamps, numbers, NULLs. Deterministic but for the uuids.
-- psql -v rows=N: about 230 bytes of COPY text per row over both tables.
SET synchronous_commit = off;
SET max_parallel_workers_per_gather = 0;
SELECT setseed(0.42) \g /dev/null
-- Sentences are looked up, not made anew for each row: the server builds 500 MB in well under a minute.
CREATE TEMP TABLE sentence AS
  SELECT i AS id, string_agg(substr('baceidofuganerotilumasyx', 1 + (random() * 17)::int, 2 + (random() * 3)::int)
           || substr('lontersavimbrakeduzip', 1 + (random() * 15)::int, 1 + (random() * 4)::int), ' ') AS text
  FROM generate_series(0, 49999) AS i, generate_series(1, 9) GROUP BY i;
ALTER TABLE sentence ADD PRIMARY KEY (id);
ANALYZE sentence;
CREATE TABLE media (
  id bigint NOT NULL, owner uuid NOT NULL, title text NOT NULL, description text, attributes jsonb NOT NULL,
  width int, height int, price numeric(10, 2), created timestamptz NOT NULL, updated timestamptz);
INSERT INTO media
SELECT i, gen_random_uuid(), left(a.text, 24), CASE WHEN i % 9 <> 0 THEN b.text || ' ' || i END,
       ('{"codec": "' || CASE i % 4 WHEN 0 THEN 'h264' WHEN 1 THEN 'hevc' WHEN 2 THEN 'av1' ELSE 'vp9' END || '", "bitrate": '
         || (random() * 20000)::int || ', "duration": ' || (random() * 7200)::int || ', "public": ' || (i % 3 = 0) || '}')::jsonb,
       640 * (1 + i % 4), 360 * (1 + i % 4), (random() * 500)::numeric(10, 2),
       timestamptz '2024-01-01' + i * interval '1 second', CASE WHEN i % 4 = 0 THEN timestamptz '2025-01-01' + i * interval '2 seconds' END
FROM generate_series(1, (:rows / 2)::bigint) AS i
JOIN sentence a ON a.id = (i * 7919) % 50000 JOIN sentence b ON b.id = (i * 104729) % 50000;
CREATE TABLE view_event (
  id bigint NOT NULL, media_id bigint NOT NULL, session uuid NOT NULL, address inet, agent text, seconds real, seen timestamptz NOT NULL);
INSERT INTO view_event
SELECT i, 1 + (random() * :rows / 2)::bigint, gen_random_uuid(), ('10.' || i % 250 || '.' || (i * 7) % 250 || '.' || (i * 13) % 250)::inet,
       'Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/' || 500 + i % 40 || '.' || i % 90 || ' ' || left(a.text, 30),
       (random() * 3600)::real, timestamptz '2025-06-01' + i * interval '700 milliseconds'
FROM generate_series(1, (:rows / 2)::bigint) AS i JOIN sentence a ON a.id = (i * 7919) % 50000;
ALTER TABLE media ADD PRIMARY KEY (id);
