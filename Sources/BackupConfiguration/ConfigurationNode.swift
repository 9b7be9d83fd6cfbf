import Faults
import Foundation
import Quoting
import Units
import Yams

/// Collects problems while a file is read: reading goes on after each, so that all are told at once.
final class Diagnostics {
  private(set) var problems: [ConfigurationProblem] = []
  /// What the file may say and should not.
  private(set) var warnings: [Fault] = []
  /// Where secrets stand in the file itself, as paths of keys.
  private(set) var secrets: [String] = []

  func warn(_ fault: Fault) { if !warnings.contains(fault) { warnings.append(fault) } }
  func noteSecret(_ path: String) { if !secrets.contains(path) { secrets.append(path) } }

  func report(_ mark: Mark?, _ path: String, _ message: String) {
    report(line: mark?.line ?? 1, column: mark?.column ?? 1, path, message)
  }

  func report(line: Int, column: Int, _ path: String, _ message: String) {
    problems.append(ConfigurationProblem(line: line, column: column, path: path, message: message))
  }
}

/// A value in the file, with its place. Each reading method gives nil, and has reported why, where the value is not of its
/// kind.
struct ConfigurationNode {
  let node: Node
  let path: String
  let diagnostics: Diagnostics
  let surroundings: ConfigurationSurroundings

  /// Messages reach the journal, `status` and alert channels, and so never quote what may be a secret.
  func report(_ message: String) {
    var message = message
    // What the environment has put in is told by its variable's name.
    if case .scalar(let scalar) = node, scalar.string.contains("${"), let value = expand(scalar.string, isQuiet: true) {
      message = message.replacingBytes(of: "'\(value)'", with: "'\(scalar.string)'")
    }
    guard case .scalar(let scalar) = node, mayBeSecret(scalar.string) else {
      return diagnostics.report(node.mark, path, message)
    }
    diagnostics.report(node.mark, path, message.replacingBytes(of: "'\(scalar.string)'", with: "a text"))
  }

  /// Where secrets are expected, and whatever has a name and a password in front of a host.
  private func mayBeSecret(_ text: String) -> Bool {
    let parts = path.split(separator: ".")
    if text.contains(bytes: "://"), parts.first == "alerts" || text.contains(byte: UInt8(ascii: "@")) { return true }
    guard let last = parts.last, !last.ends(withBytes: "_file") else { return false }
    return parts.first == "alerts" || Self.secretKeys.contains(String(last))
  }

  private static let secretKeys = [
    "password", "restore_password", "passphrase", "access_key", "secret_key", "session_token", "proxy", "connect",
    "restore_connect",
  ]

  private func child(_ node: Node, _ name: String) -> ConfigurationNode {
    let name = shown(name)
    return ConfigurationNode(
      node: node, path: path.isEmpty ? name : "\(path).\(name)", diagnostics: diagnostics, surroundings: surroundings)
  }

  /// A key as messages may tell it: one that was mistaken for its value may be a secret.
  private func shown(_ key: String) -> String {
    guard path.starts(withBytes: "alerts") else { return key }
    return key.utf8.count <= 63 && key.utf8.allSatisfy { $0 > 32 && $0 < 127 && $0 != 58 && $0 != 64 && $0 != 47 }
      ? key : "…"
  }

  /// As libcurl has them (CURLOPT_PROXY): a host and a port, the scheme may be left out.
  func proxy(_ value: Secret?) -> String? {
    guard let text = value?.revealed else { return nil }
    let pattern =
      #"^((https?|socks[45]|socks4a|socks5h)://)?([^@/ #?]+@)?(\[[0-9a-fA-F:]+\]|[A-Za-z0-9._-]+)(:[0-9]{1,5})?/?$"#
    guard text.range(of: pattern, options: .regularExpression) != nil else {
      report("it is no proxy: write http://proxy.example:3128, other characters of a password as %23")
      return nil
    }
    return text
  }

  /// The text as the file has it; nil where some of it comes from the environment.
  var literal: String? {
    guard case .scalar(let scalar) = node, !isNull, !scalar.string.contains(bytes: "${") else { return nil }
    return scalar.string
  }

  /// The text as the file has it, without what comes from the environment.
  var withoutVariables: String? {
    guard case .scalar(let scalar) = node, !isNull else { return nil }
    var (result, rest) = ("", scalar.string[...])
    while let start = rest.range(ofBytes: "${") {
      result += rest[..<start.lowerBound]
      guard let end = rest[start.upperBound...].utf8.firstIndex(of: UInt8(ascii: "}")) else { return result }
      rest = rest[rest.utf8.index(after: end)...]
    }
    return result + rest
  }

  /// A text with `${NAME}` replaced from the environment.
  func text() -> String? {
    guard case .scalar(let scalar) = node, !isNull else {
      report("expected a text, found \(kind)")
      return nil
    }
    return expand(scalar.string)
  }

  func integer(in range: ClosedRange<Int>) -> Int? {
    guard case .scalar(let scalar) = node, scalar.style == .plain || scalar.style == .any,
      let value = Int(scalar.string)
    else {
      report("expected a number, found \(kind)")
      return nil
    }
    guard range.contains(value) else {
      report("\(value) is not within \(range.lowerBound) to \(range.upperBound)")
      return nil
    }
    return value
  }

  func duration(atLeast minimum: Duration = .seconds(1), orOff: Bool = false) -> Duration? {
    guard let text = text() else { return nil }
    guard let value = Duration(parsing: text) else {
      report("'\(text)' is no duration: write 90s, 15m, 36h or 7d" + (orOff ? ", or off" : ""))
      return nil
    }
    guard value >= minimum else {
      report("'\(text)' is shorter than \(minimum.configurationText)" + (orOff ? "; write off for never" : ""))
      return nil
    }
    return value
  }

  func word<Word: RawRepresentable & CaseIterable>(_ type: Word.Type) -> Word? where Word.RawValue == String {
    guard let text = text() else { return nil }
    if let word = Word(rawValue: text) { return word }
    let known = Word.allCases.map(\.rawValue)
    report("'\(text)' is not one of \(known.joined(separator: ", "))" + suggestion(for: text, among: known))
    return nil
  }

  /// What `parse` makes of the text; where that is nothing, `complaint` is said of it.
  func value<Value>(_ parse: (String) -> Value?, _ complaint: String) -> Value? {
    guard let text = text() else { return nil }
    if let value = parse(text) { return value }
    report("'\(text)' \(complaint)")
    return nil
  }

  /// `true` or `false`, as YAML 1.2 writes them.
  func boolean() -> Bool? {
    guard let text = text() else { return nil }
    if text == "true" || text == "false" { return text == "true" }
    report("expected true or false, found '\(text)'")
    return nil
  }

  /// Nil for `off`, else what `read` makes of the value.
  func offOr<Value>(_ read: (ConfigurationNode) -> Value?) -> Value? {
    if case .scalar(let scalar) = node, scalar.string == "off" { return nil }
    return read(self)
  }

  /// A list of texts; a single text is a list of one.
  func texts() -> [ConfigurationNode]? {
    switch node {
    case .sequence(let sequence):
      return sequence.enumerated().map { child($1, "\($0 + 1)") }
    case .scalar where !isNull:
      return [self]
    default:
      report("expected a list, found \(kind)")
      return nil
    }
  }

  /// The entries of a mapping in the file's order.
  func entries() -> [(key: String, value: ConfigurationNode)]? {
    guard case .mapping(let mapping) = node else {
      report("expected a mapping, found \(kind)")
      return nil
    }
    return mapping.compactMap { key, value in
      guard case .scalar(let scalar) = key else {
        diagnostics.report(key.mark, path, "a key must be a text")
        return nil
      }
      return (scalar.string, child(value, scalar.string))
    }
  }

  /// Reads a mapping of known keys: unknown ones are reported, and the known ones handed out by name.
  func section(_ known: [String]) -> [String: ConfigurationNode]? {
    guard let entries = entries() else { return nil }
    var values: [String: ConfigurationNode] = [:]
    for (key, value) in entries {
      if known.contains(key) {
        values[key] = value
      } else {
        diagnostics.report(keyMark(key), path, "unknown key '\(shown(key))'" + suggestion(for: key, among: known))
      }
    }
    return values
  }

  var isMapping: Bool { if case .mapping = node { true } else { false } }

  var isScalar: Bool { if case .scalar = node { !isNull } else { false } }

  var isNull: Bool {
    if case .scalar(let scalar) = node {
      scalar.style == .plain && ["", "~", "null"].contains(scalar.string)
    } else {
      false
    }
  }

  private func keyMark(_ name: String) -> Mark? {
    guard case .mapping(let mapping) = node else { return nil }
    return mapping.first { $0.key.string == name }?.key.mark
  }

  private var kind: String {
    switch node {
    case .scalar(let scalar): isNull ? "nothing" : "'\(scalar.string)'"
    case .mapping: "a mapping"
    case .sequence: "a list"
    case .alias: "an alias"
    }
  }

  private func expand(_ text: String, isQuiet: Bool = false) -> String? {
    var result = ""
    var rest = text[...]
    while let start = rest.firstRange(of: "${") {
      result += rest[..<start.lowerBound]
      guard let end = rest[start.upperBound...].firstIndex(of: "}") else {
        if !isQuiet { report("'${' without '}'") }
        return nil
      }
      let name = String(rest[start.upperBound..<end])
      guard let value = surroundings.variable(name) else {
        let credentials = "; systemd sets it for the service alone, so check with: systemctl reload pgbackupd"
        guard !isQuiet else { return nil }
        report("the environment has no '\(name)'" + (name == "CREDENTIALS_DIRECTORY" ? credentials : ""))
        return nil
      }
      result += value
      rest = rest[rest.index(after: end)...]
    }
    return result + rest
  }
}

/// `; did you mean 'schedule'?` where a known word is close.
func suggestion(for word: String, among known: [String]) -> String {
  let best = known.map { ($0, EditDistance.between(word, $0)) }.min { $0.1 < $1.1 }
  guard let best, best.1 <= max(1, min(word.count, best.0.count) / 3) else { return "" }
  return "; did you mean '\(best.0)'?"
}
