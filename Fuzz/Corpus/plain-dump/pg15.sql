--
-- PostgreSQL database dump
--

\restrict yy43u1qy0OzYac1Bx4jzcnTC3x6QVhyMdUSORdVY7wb7kY9oaVTKY1m2MlrVwEc

-- Dumped from database version 15.18 (Debian 15.18-0+deb12u1)
-- Dumped by pg_dump version 15.18 (Debian 15.18-0+deb12u1)

SET statement_timeout = 0;
SET lock_timeout = 0;
SET idle_in_transaction_session_timeout = 0;
SET client_encoding = 'UTF8';
SET standard_conforming_strings = on;
SELECT pg_catalog.set_config('search_path', '', false);
SET check_function_bodies = false;
SET xmloption = content;
SET client_min_messages = warning;
SET row_security = off;

--
-- Name: tiny; Type: DATABASE; Schema: -; Owner: postgres
--

CREATE DATABASE tiny WITH TEMPLATE = template0 ENCODING = 'UTF8' LOCALE_PROVIDER = libc LOCALE = 'C.UTF-8';


ALTER DATABASE tiny OWNER TO postgres;

\unrestrict yy43u1qy0OzYac1Bx4jzcnTC3x6QVhyMdUSORdVY7wb7kY9oaVTKY1m2MlrVwEc
\connect tiny
\restrict yy43u1qy0OzYac1Bx4jzcnTC3x6QVhyMdUSORdVY7wb7kY9oaVTKY1m2MlrVwEc

SET statement_timeout = 0;
SET lock_timeout = 0;
SET idle_in_transaction_session_timeout = 0;
SET client_encoding = 'UTF8';
SET standard_conforming_strings = on;
SELECT pg_catalog.set_config('search_path', '', false);
SET check_function_bodies = false;
SET xmloption = content;
SET client_min_messages = warning;
SET row_security = off;

--
-- Name: DATABASE tiny; Type: COMMENT; Schema: -; Owner: postgres
--

COMMENT ON DATABASE tiny IS 'it''s';


--
-- Name: tiny; Type: DATABASE PROPERTIES; Schema: -; Owner: postgres
--

ALTER DATABASE tiny SET work_mem TO '5MB';
ALTER ROLE postgres IN DATABASE tiny SET "DateStyle" TO 'iso';


\unrestrict yy43u1qy0OzYac1Bx4jzcnTC3x6QVhyMdUSORdVY7wb7kY9oaVTKY1m2MlrVwEc
\connect tiny
\restrict yy43u1qy0OzYac1Bx4jzcnTC3x6QVhyMdUSORdVY7wb7kY9oaVTKY1m2MlrVwEc

SET statement_timeout = 0;
SET lock_timeout = 0;
SET idle_in_transaction_session_timeout = 0;
SET client_encoding = 'UTF8';
SET standard_conforming_strings = on;
SELECT pg_catalog.set_config('search_path', '', false);
SET check_function_bodies = false;
SET xmloption = content;
SET client_min_messages = warning;
SET row_security = off;

--
-- Name: s; Type: SCHEMA; Schema: -; Owner: postgres
--

CREATE SCHEMA s;


ALTER SCHEMA s OWNER TO postgres;

--
-- Name: f(); Type: FUNCTION; Schema: public; Owner: postgres
--

CREATE FUNCTION public.f() RETURNS integer
    LANGUAGE sql
    AS $$ SELECT 1; -- ' ; $$;


ALTER FUNCTION public.f() OWNER TO postgres;

SET default_tablespace = '';

SET default_table_access_method = heap;

--
-- Name: t; Type: TABLE; Schema: s; Owner: postgres
--

CREATE TABLE s.t (
    a integer NOT NULL,
    b text DEFAULT 'x''y'::text,
    c bytea
);


ALTER TABLE s.t OWNER TO postgres;

--
-- Name: TABLE t; Type: COMMENT; Schema: s; Owner: postgres
--

COMMENT ON TABLE s.t IS 'it''s';


--
-- Name: m; Type: MATERIALIZED VIEW; Schema: public; Owner: postgres
--

CREATE MATERIALIZED VIEW public.m AS
 SELECT count(*) AS count
   FROM s.t
  WITH NO DATA;


ALTER TABLE public.m OWNER TO postgres;

--
-- Name: p; Type: TABLE; Schema: public; Owner: postgres
--

CREATE TABLE public.p (
    d integer
)
PARTITION BY RANGE (d);


ALTER TABLE public.p OWNER TO postgres;

--
-- Name: p1; Type: TABLE; Schema: public; Owner: postgres
--

CREATE TABLE public.p1 (
    d integer
);


ALTER TABLE public.p1 OWNER TO postgres;

--
-- Name: q; Type: SEQUENCE; Schema: public; Owner: postgres
--

CREATE SEQUENCE public.q
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;


ALTER TABLE public.q OWNER TO postgres;

--
-- Name: q "u; Type: TABLE; Schema: public; Owner: postgres
--

CREATE TABLE public."q ""u" (
    x integer,
    n numeric
);


ALTER TABLE public."q ""u" OWNER TO postgres;

--
-- Name: p1; Type: TABLE ATTACH; Schema: public; Owner: postgres
--

ALTER TABLE ONLY public.p ATTACH PARTITION public.p1 FOR VALUES FROM (0) TO (10);


--
-- Name: 16420; Type: BLOB; Schema: -; Owner: postgres
--

SELECT pg_catalog.lo_create('16420');


ALTER LARGE OBJECT 16420 OWNER TO postgres;

--
-- Name: 16421; Type: BLOB; Schema: -; Owner: postgres
--

SELECT pg_catalog.lo_create('16421');


ALTER LARGE OBJECT 16421 OWNER TO postgres;

--
-- Data for Name: p1; Type: TABLE DATA; Schema: public; Owner: postgres
--

COPY public.p1 (d) FROM stdin;
1
\.


--
-- Data for Name: q "u; Type: TABLE DATA; Schema: public; Owner: postgres
--

COPY public."q ""u" (x, n) FROM stdin;
1	1.5
2	\N
\.


--
-- Data for Name: t; Type: TABLE DATA; Schema: s; Owner: postgres
--

COPY s.t (a, b, c) FROM stdin;
1	row 1	\\x00ff
2	row 2	\\x00ff
3	\N	\\x00ff
4	tab\tnew\nback\\	\\x00ff
5	row 5	\\x00ff
6	row 6	\\x00ff
\.


--
-- Name: q; Type: SEQUENCE SET; Schema: public; Owner: postgres
--

SELECT pg_catalog.setval('public.q', 7, true);


--
-- Data for Name: BLOBS; Type: BLOBS; Schema: -; Owner: -
--

BEGIN;

SELECT pg_catalog.lo_open('16420', 131072);
SELECT pg_catalog.lowrite(0, '\x68656c6c6f');
SELECT pg_catalog.lo_close(0);

SELECT pg_catalog.lo_open('16421', 131072);
SELECT pg_catalog.lo_close(0);

COMMIT;

--
-- Name: t t_pkey; Type: CONSTRAINT; Schema: s; Owner: postgres
--

ALTER TABLE ONLY s.t
    ADD CONSTRAINT t_pkey PRIMARY KEY (a);


--
-- Name: t_b_idx; Type: INDEX; Schema: s; Owner: postgres
--

CREATE INDEX t_b_idx ON s.t USING btree (b);


--
-- Name: q "u q "u_x_fkey; Type: FK CONSTRAINT; Schema: public; Owner: postgres
--

ALTER TABLE ONLY public."q ""u"
    ADD CONSTRAINT "q ""u_x_fkey" FOREIGN KEY (x) REFERENCES s.t(a);


--
-- Name: t pol; Type: POLICY; Schema: s; Owner: postgres
--

CREATE POLICY pol ON s.t FOR SELECT TO postgres, "Mal""lory" USING ((a > 0));


--
-- Name: t; Type: ROW SECURITY; Schema: s; Owner: postgres
--

ALTER TABLE s.t ENABLE ROW LEVEL SECURITY;

--
-- Name: TABLE t; Type: ACL; Schema: s; Owner: postgres
--

GRANT SELECT ON TABLE s.t TO "Mal""lory";


--
-- Name: DEFAULT PRIVILEGES FOR TABLES; Type: DEFAULT ACL; Schema: s; Owner: postgres
--

ALTER DEFAULT PRIVILEGES FOR ROLE postgres IN SCHEMA s GRANT SELECT ON TABLES  TO PUBLIC;


--
-- Name: m; Type: MATERIALIZED VIEW DATA; Schema: public; Owner: postgres
--

REFRESH MATERIALIZED VIEW public.m;


--
-- PostgreSQL database dump complete
--

\unrestrict yy43u1qy0OzYac1Bx4jzcnTC3x6QVhyMdUSORdVY7wb7kY9oaVTKY1m2MlrVwEc

