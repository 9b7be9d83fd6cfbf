import Units

/// Whose signatures count, and for which databases. Everything that asks whether a manifest or a proof is signed asks
/// here: the catalog, and so restores, retention and reconcile; verifications; the client without a daemon.
///
/// Empty means that no key is known: nothing is checked then, and the catalog says `unchecked`.
package struct TrustedKeys: Sendable, Hashable, ExpressibleByArrayLiteral {
  /// What one key may sign.
  package struct Entry: Sendable, Hashable {
    package let key: VerifyingKey
    /// Patterns for names of databases (`Wildcard`); nil for any database.
    package let databases: [String]?

    package init(_ key: VerifyingKey, databases: [String]? = nil) {
      self.key = key
      self.databases = databases
    }

    func covers(_ database: String) -> Bool {
      databases.map { patterns in patterns.contains { Wildcard($0).matches(database) } } ?? true
    }
  }

  /// What a signature file proves for a database.
  package enum Verdict: Sendable, Hashable {
    /// Made by a key that may sign for the database.
    case valid(VerifyingKey)
    /// Made by a key that is trusted, but not for this database: it counts for nothing.
    case outside(VerifyingKey)
    /// By no key that is known here, or the bytes were changed since.
    case invalid
  }

  package private(set) var entries: [Entry]

  package init(_ entries: [Entry]) { self.entries = entries }

  /// Keys that may sign for any database.
  package init(_ keys: [VerifyingKey]) { entries = keys.map { Entry($0) } }

  package init(arrayLiteral keys: VerifyingKey...) { self.init(keys) }

  package static func + (left: TrustedKeys, right: TrustedKeys) -> TrustedKeys {
    TrustedKeys(left.entries + right.entries)
  }

  package var isEmpty: Bool { entries.isEmpty }

  /// Checks a signature file (signify) over `bytes`, which are a record of `database`: a name that the signed bytes
  /// themselves hold.
  ///
  /// A key that is named twice may sign for what either entry allows.
  package func check(_ bytes: [UInt8], signature text: String, of database: String) -> Verdict {
    var outside: VerifyingKey?
    for entry in entries where entry.key.verifies(bytes, signature: text) {
      if entry.covers(database) { return .valid(entry.key) }
      outside = entry.key
    }
    return outside.map { .outside($0) } ?? .invalid
  }

  package func isSigned(_ bytes: [UInt8], signature text: String, of database: String) -> Bool {
    if case .valid = check(bytes, signature: text, of: database) { true } else { false }
  }
}
