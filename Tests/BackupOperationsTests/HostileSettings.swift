import Foundation
import TestSupport

/// A database whose owner has set traps for whoever works in it: a schema with functions, operators, types and an
/// aggregate of the names that our SQL uses, in front of pg_catalog in the `search_path`; and presets of all settings
/// that could change what our SQL means.
///
/// What runs of the traps writes a line with `TRAP` into the server's log, which works in a transaction that only reads
/// too, and tries to make the owner a superuser.
struct HostileDatabase {
  /// The owner, and the roles that work in it: a superuser, one that only backs up, and one that restores.
  static let owner = "mallory"

  let cluster: PrivateCluster
  let database = "shop"

  init(major: Int?) throws {
    cluster = try PrivateCluster(major: major)
    try cluster.sql(
      "postgres",
      """
      CREATE ROLE mallory LOGIN CREATEDB; CREATE ROLE boss LOGIN SUPERUSER;
      CREATE ROLE backup LOGIN; GRANT pg_read_all_data TO backup;
      CREATE ROLE mover LOGIN CREATEDB IN ROLE pg_signal_backend, mallory; GRANT pg_read_all_data TO mover;
      CREATE DATABASE shop OWNER mallory TEMPLATE template0;
      """)
    try cluster.sql(database, Self.traps)
    let presets = Self.presets(cluster.majorVersion)
    for (name, value) in presets { try cluster.sql("postgres", "ALTER DATABASE shop SET \(name) = \(value)") }
    for role in ["boss", "backup", "mover"] {
      for (name, value) in presets where name != "role" {
        try cluster.sql("postgres", "ALTER ROLE \(role) SET \(name) = \(value)")
      }
    }
  }

  /// What was caught, by the server's log.
  var caught: [String] {
    get throws {
      try String(contentsOfFile: cluster.folder.file("log"), encoding: .utf8).split(separator: "\n")
        .filter { $0.contains("TRAP") }.map(String.init)
    }
  }

  var isOwnerSuperuser: Bool {
    get throws { try cluster.sql("postgres", "SELECT rolsuper FROM pg_roles WHERE rolname = 'mallory'") == "t\n" }
  }

  /// Runs SQL as the superuser who has preset nothing, under settings of his own.
  func sql(_ text: String) throws -> String {
    try Shell.must(
      "\(cluster.binaries)/psql", ["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-d", cluster.conninfo(database)],
      environment: ["PGOPTIONS": Self.calm + (cluster.majorVersion >= 17 ? " -c transaction_timeout=0" : "")],
      input: text)
  }

  private static let calm =
    "-c role=none -c search_path= -c statement_timeout=0 -c lock_timeout=0 -c local_preload_libraries= "
    + "-c default_transaction_read_only=off -c idle_in_transaction_session_timeout=0 -c idle_session_timeout=0 "
    + "-c client_min_messages=warning -c standard_conforming_strings=on -c default_tablespace="

  private static func presets(_ major: Int) -> [(String, String)] {
    [
      ("search_path", "trap, pg_catalog, public"), ("standard_conforming_strings", "off"),
      ("escape_string_warning", "on"), ("backslash_quote", "on"), ("array_nulls", "off"),
      ("transform_null_equals", "on"), ("DateStyle", "'German, DMY'"), ("IntervalStyle", "sql_standard"),
      ("extra_float_digits", "-15"), ("TimeZone", "'Asia/Kathmandu'"), ("xmloption", "document"),
      ("row_security", "off"), ("check_function_bodies", "on"), ("client_min_messages", "debug5"),
      ("statement_timeout", "'1ms'"), ("lock_timeout", "'1ms'"), ("idle_in_transaction_session_timeout", "'1ms'"),
      ("default_transaction_isolation", "serializable"), ("default_transaction_read_only", "on"),
      ("default_transaction_deferrable", "on"), ("quote_all_identifiers", "on"), ("bytea_output", "escape"),
      ("local_preload_libraries", "nowhere"), ("default_tablespace", "nowhere"), ("temp_tablespaces", "nowhere"),
      ("default_table_access_method", "nothing"), ("role", "mallory"),
    ] + (major >= 14 ? [("idle_session_timeout", "'1ms'")] : [])
      + (major >= 17 ? [("transaction_timeout", "'1ms'")] : [])
  }

  private static let traps = """
    SET ROLE mallory;
    CREATE TABLE public.orders (id int PRIMARY KEY, at timestamptz, note text, spent float8, data bytea, wait interval);
    INSERT INTO public.orders SELECT i, '2026-01-02 03:04:05+00', E'a\\\\b''c', 1.0 / 3, '\\x00ff', '1 day 2 hours'
      FROM generate_series(1, 100) i;
    CREATE SEQUENCE public.numbers; ALTER SEQUENCE public.numbers OWNED BY public.orders.id;
    ALTER TABLE public.orders ALTER id SET DEFAULT nextval('public.numbers');
    CREATE SCHEMA trap; GRANT USAGE ON SCHEMA trap TO PUBLIC;
    CREATE FUNCTION trap.hit(name pg_catalog.text) RETURNS void LANGUAGE plpgsql AS $$
    BEGIN
      RAISE LOG 'TRAP % as %', name, session_user;
      BEGIN
        EXECUTE 'ALTER ROLE mallory SUPERUSER';
      EXCEPTION WHEN OTHERS THEN NULL;
      END;
    END $$;

    DO $do$
    DECLARE one record; list text; number int := 0;
    BEGIN
      FOR one IN SELECT p.proname, p.pronargs, oidvectortypes(p.proargtypes) AS types, format_type(p.prorettype, NULL) AS result
        FROM pg_catalog.pg_proc p
        WHERE p.pronamespace = 'pg_catalog'::regnamespace AND p.prokind = 'f' AND p.provariadic = 0 AND NOT p.proretset
          AND p.proname IN ('current_setting', 'current_database', 'pg_encoding_to_char', 'pg_database_size',
            'pg_is_in_recovery', 'has_table_privilege', 'has_function_privilege', 'has_schema_privilege',
            'has_sequence_privilege', 'has_database_privilege', 'row_security_active', 'quote_ident', 'format_type',
            'pg_has_role', 'pg_get_userbyid', 'shobj_description', 'pg_backend_pid', 'pg_export_snapshot', 'age',
            'pg_blocking_pids', 'clock_timestamp', 'starts_with', 'to_regclass', 'set_config', 'trunc', 'sign')
          AND p.prorettype NOT IN (SELECT oid FROM pg_catalog.pg_type WHERE typtype = 'p')
          AND NOT EXISTS (SELECT FROM pg_catalog.pg_type t WHERE t.typtype = 'p' AND t.oid = ANY (p.proargtypes))
      LOOP
        SELECT coalesce(string_agg('$' || i, ', '), '') INTO list FROM generate_series(1, one.pronargs) i;
        EXECUTE format(
          'CREATE FUNCTION trap.%I(%s) RETURNS %s LANGUAGE plpgsql AS %L', one.proname, one.types, one.result,
          format('BEGIN PERFORM trap.hit(%L); RETURN pg_catalog.%I(%s); END', one.proname, one.proname, list));
      END LOOP;
      FOR one IN SELECT o.oprname, format_type(o.oprleft, NULL) AS l, format_type(o.oprright, NULL) AS r,
          format_type(o.oprresult, NULL) AS result
        FROM pg_catalog.pg_operator o
        WHERE o.oprnamespace = 'pg_catalog'::regnamespace AND o.oprleft <> 0
          AND o.oprname IN ('=', '<>', '~', '!~', '~~', '!~~', '||', '>', '<', '>=', '<=', '-', '*', '&&')
          AND o.oprleft IN (SELECT unnest(ARRAY['name','text','oid','"char"','int4','int8','bool','xid','numeric','timestamptz','int4[]']::regtype[]))
          AND o.oprright IN (SELECT unnest(ARRAY['name','text','oid','"char"','int4','int8','bool','xid','numeric','timestamptz','int4[]']::regtype[]))
      LOOP
        number := number + 1;
        EXECUTE format(
          'CREATE FUNCTION trap.operator_%s(%s, %s) RETURNS %s LANGUAGE plpgsql AS %L', number, one.l, one.r, one.result,
          format('BEGIN PERFORM trap.hit(%L); RETURN $1 OPERATOR(pg_catalog.%s) $2; END', one.oprname, one.oprname));
        EXECUTE format(
          'CREATE OPERATOR trap.%s (FUNCTION = trap.operator_%s, LEFTARG = %s, RIGHTARG = %s)', one.oprname, number,
          one.l, one.r);
      END LOOP;
    END $do$;

    -- An exact match, where pg_catalog has none.
    CREATE FUNCTION trap.unlike(name, name) RETURNS bool LANGUAGE plpgsql AS
      $$ BEGIN PERFORM trap.hit('!~(name,name)'); RETURN $1 OPERATOR(pg_catalog.!~) $2::pg_catalog.text; END $$;
    CREATE OPERATOR trap.!~ (FUNCTION = trap.unlike, LEFTARG = name, RIGHTARG = name);
    CREATE FUNCTION trap.format(pg_catalog.text, name, name) RETURNS pg_catalog.text LANGUAGE plpgsql AS
      $$ BEGIN PERFORM trap.hit('format'); RETURN pg_catalog.format($1, $2, $3); END $$;
    CREATE FUNCTION trap.one_more(int8) RETURNS int8 LANGUAGE plpgsql AS
      $$ BEGIN PERFORM trap.hit('count'); RETURN $1 OPERATOR(pg_catalog.+) 1; END $$;
    CREATE AGGREGATE trap.count(*) (SFUNC = trap.one_more, STYPE = int8, INITCOND = '0');
    CREATE FUNCTION trap.caught(pg_catalog.text) RETURNS bool LANGUAGE plpgsql AS
      $$ BEGIN PERFORM trap.hit('type'); RETURN true; END $$;
    CREATE DOMAIN trap.text AS pg_catalog.text CHECK (trap.caught(VALUE));
    CREATE DOMAIN trap.oid AS pg_catalog.oid CHECK (trap.caught(VALUE::pg_catalog.text));
    CREATE DOMAIN trap.regclass AS pg_catalog.regclass CHECK (trap.caught(VALUE::pg_catalog.text));
    CREATE VIEW trap.pg_database AS SELECT * FROM pg_catalog.pg_database WHERE trap.caught(datname::pg_catalog.text);
    """
}
