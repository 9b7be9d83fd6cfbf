import Foundation
import Quoting
import Units

/// A text with `{{name}}` in it, each replaced by what a notice says, escaped as the inside of a JSON string.
package struct WebhookTemplate: Sendable, Hashable {
  package let text: String

  package static let names = [
    "id", "kind", "topic", "word", "title", "sentence", "cause", "since", "time", "host", "code", "database", "job",
    "store", "holds", "next", "text",
  ]

  /// The first name in the text that there is none of; nil where all are known.
  package static func unknownName(in text: String) -> String? {
    pieces(text).compactMap { if case .name(let name) = $0 { name } else { nil } }.first { !names.contains($0) }
  }

  package init(_ text: String) { self.text = text }

  package func body(_ notice: Notice) throws -> [UInt8] {
    let words = NoticeText(notice)
    let values: [String: String] = [
      "id": notice.id, "kind": notice.kind.rawValue, "topic": notice.topic.rawValue, "word": words.word,
      "title": words.title, "sentence": notice.sentence, "cause": notice.cause ?? "",
      "since": notice.since?.rfc3339 ?? "", "time": notice.time.rfc3339, "host": notice.host,
      "code": notice.code ?? "", "database": notice.database ?? "", "job": notice.job ?? "",
      "store": notice.store ?? "",
      "holds": notice.holds.joined(separator: "\n"), "next": notice.next ?? "", "text": words.plain,
    ]
    let filled = Self.pieces(text).map { piece in
      switch piece {
      case .text(let text): text
      case .name(let name): JSONText.inside(values[name] ?? "")
      }
    }
    return Array(filled.joined().utf8)
  }

  /// Whether it is JSON when it is filled in.
  package var makesJSON: Bool {
    let notice = Notice(
      id: "1", kind: .test, topic: .failure, time: .distantPast, host: "host", sentence: "A \"sentence\".")
    guard let body = try? body(notice) else { return false }
    return (try? JSONSerialization.jsonObject(with: Data(body), options: .fragmentsAllowed)) != nil
  }

  private enum Piece { case text(String), name(String) }

  private static func pieces(_ text: String) -> [Piece] {
    var pieces: [Piece] = []
    var rest = text[...]
    while let start = rest.range(ofBytes: "{{"), let end = rest[start.upperBound...].range(ofBytes: "}}") {
      pieces.append(.text(String(rest[..<start.lowerBound])))
      pieces.append(.name(String(rest[start.upperBound..<end.lowerBound].withoutBlanks)))
      rest = rest[end.upperBound...]
    }
    return pieces + [.text(String(rest))]
  }
}
