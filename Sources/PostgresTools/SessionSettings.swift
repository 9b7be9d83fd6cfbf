import Quoting

/// The settings under which every session of ours runs, and every program that we run.
///
/// Whoever owns a database can preset most settings for all sessions in it (`ALTER DATABASE … SET`), a role's own among
/// them (`ALTER ROLE … SET`). A `search_path` of theirs would decide which functions and operators our SQL calls, and a
/// `standard_conforming_strings` how our constants read. Options of the startup packet win over all such presets
/// (`process_startup_options` of postinit.c; `GucSource` of guc.h).
///
/// Only settings that every role may set, in every supported version, are here: one that the role may not set ends the
/// connection. What only superusers can preset (`session_preload_libraries`, `session_replication_role`,
/// `event_triggers`) is no way to become one.
package enum SessionSettings {
  private static let all: [(name: String, value: String)] = [
    // Functions and operators come from pg_catalog, which is searched in any case, and from nowhere else.
    ("search_path", ""),
    // How text is read.
    ("standard_conforming_strings", "on"), ("escape_string_warning", "off"), ("backslash_quote", "safe_encoding"),
    ("array_nulls", "on"), ("transform_null_equals", "off"), ("DateStyle", "ISO,MDY"), ("IntervalStyle", "postgres"),
    ("TimeZone", "UTC"), ("xmloption", "content"),
    // How values are written.
    ("extra_float_digits", "3"), ("bytea_output", "hex"), ("quote_all_identifiers", "off"), ("xmlbinary", "base64"),
    ("client_min_messages", "warning"),
    // How long statements take is ours to bound, and where we write we mean it.
    ("statement_timeout", "0"), ("lock_timeout", "0"), ("idle_in_transaction_session_timeout", "0"),
    ("default_transaction_isolation", "read\\ committed"), ("default_transaction_read_only", "off"),
    ("default_transaction_deferrable", "off"),
    // What is seen and made.
    ("row_security", "on"), ("check_function_bodies", "off"), ("default_tablespace", ""), ("temp_tablespaces", ""),
    ("default_table_access_method", "heap"), ("local_preload_libraries", ""),
  ]

  package static var names: [String] { all.map(\.name) }

  /// By the major version that brought them; an older server refuses a connection that names one.
  private static let later: [(major: Int, name: String, value: String)] = [
    (14, "idle_session_timeout", "0"), (17, "transaction_timeout", "0"),
  ]

  /// Of those, the names that a server knows.
  static func timeouts(ofMajor major: Int) -> [String] { later.filter { $0.major <= major }.map(\.name) }

  /// For sessions that run SQL of the user's own: what a database or a role has preset stays, but for what would end
  /// them.
  static func plainOptions(after existing: String?, major: Int? = nil) -> String {
    let bounds = ["statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout"].map { ($0, "0") }
    return join([existing, words(bounds + [("default_transaction_read_only", "off")]), laterWords(major)])
  }

  /// For libpq's `options` parameter.
  ///
  /// - Parameters:
  ///   - existing: what the user has set there. A `role` of theirs stays; all else is ours.
  ///   - major: of the server, where it is known.
  package static func options(after existing: String?, major: Int? = nil) -> String {
    let fixed = words(all.map { ($0.name, $0.value) })
    var options = existing ?? ""
    // What was made here before is made once.
    if !options.contains(bytes: fixed) { options = join(["-c role=none", options, fixed]) }
    let rest = laterWords(major)
    return rest.isEmpty || options.contains(bytes: rest) ? options : join([options, rest])
  }

  /// The same as statements, for a pooler between us and the server that has kept the options for itself.
  package static func statements(major: Int) -> String {
    (all.filter { $0.name != "local_preload_libraries" }.map { ($0.name, $0.value) }
      + later.filter { $0.major <= major }.map { ($0.name, $0.value) })
      // A list of one empty name is an empty path. Only the options' words need a backslash.
      .map { name, value in "SET \(name) = '\(value.filter { $0 != "\\" })'" }.joined(separator: "; ")
  }

  private static func laterWords(_ major: Int?) -> String {
    words(later.filter { $0.major <= major ?? 0 }.map { ($0.name, $0.value) })
  }

  private static func words(_ settings: [(String, String)]) -> String {
    settings.map { "-c \($0.0)=\($0.1)" }.joined(separator: " ")
  }

  private static func join(_ parts: [String?]) -> String {
    parts.compactMap { $0 }.filter { !$0.isEmpty }.joined(separator: " ")
  }
}
