import Foundation
import FoundationXML

/// An element of an XML reply: its text and its children. Namespaces are left out, as every S3 server has its own idea
/// of them.
///
/// A hostile reply costs no more than its own size, which the request has bounded: there is no document type, so no
/// entity that could grow (XML 1.0, section 4) and nothing is fetched from elsewhere; depth and the number of elements
/// are bounded.
struct S3Document {
  let name: String
  private(set) var text: String
  private(set) var children: [S3Document]

  struct Malformed: Error {}

  /// No reply is deeper than five.
  static let deepest = 32
  /// A page has 1000 entries of 15 elements at most; each costs some 100 bytes here, however short it is in the reply.
  static let elements = 100_000

  /// The root element; white space may come before all.
  init(_ bytes: [UInt8]) throws {
    // Foundation's parser ends the process at a name that is no UTF-8, and S3 answers in nothing else.
    guard String(validating: bytes, as: UTF8.self) != nil else { throw Malformed() }
    // A server that takes its time sends white space meanwhile, before which no declaration may stand.
    let body = Array(bytes.drop { [9, 10, 13, 32].contains($0) })
    guard Self.isPlain(body) else { throw Malformed() }
    let parser = XMLParser(data: Data(body))
    parser.shouldProcessNamespaces = true
    parser.shouldResolveExternalEntities = false
    let builder = Builder()
    parser.delegate = builder
    guard parser.parse(), !builder.isRefused, let root = builder.root else { throw Malformed() }
    self = root
  }

  private init(name: String) {
    self.name = name
    text = ""
    children = []
  }

  /// Whether it is XML in UTF-8 (or ASCII) without a document type. Told from the bytes, before any parser: in UTF-8
  /// the only markup that begins with `<!` besides a document type is a comment and CDATA, and another encoding could
  /// hide it.
  private static func isPlain(_ bytes: [UInt8]) -> Bool {
    // UTF-16 and UTF-32 have zeros in their markup.
    if bytes.contains(0) { return false }
    if bytes.starts(with: "<?xml".utf8) {
      // No declaration is longer, and none has other characters: an encoding could hide behind either.
      let text = bytes.prefix(200).prefix { $0 != UInt8(ascii: ">") }
      guard text.count < 200, text.allSatisfy({ $0 < 128 }) else { return false }
      let declaration = String(decoding: text, as: UTF8.self).lowercased()
      if let found = declaration.firstMatch(of: /encoding\s*=\s*["']([^"']*)["']/) {
        guard ["utf-8", "utf8", "us-ascii", "ascii"].contains(found.1) else { return false }
      }
    }
    var position = bytes.startIndex
    while let start = bytes[position...].firstIndex(of: UInt8(ascii: "<")) {
      position = start + 1
      guard position < bytes.count, bytes[position] == UInt8(ascii: "!") else { continue }
      let rest = bytes[(position + 1)...]
      guard rest.starts(with: "--".utf8) || rest.starts(with: "[CDATA[".utf8) else { return false }
    }
    return true
  }

  /// The first child of this name.
  subscript(_ name: String) -> S3Document? { children.first { $0.name == name } }

  func all(_ name: String) -> [S3Document] { children.filter { $0.name == name } }

  private final class Builder: NSObject, XMLParserDelegate {
    var root: S3Document?
    /// It went beyond a bound; what the parser still tells is passed over.
    private(set) var isRefused = false
    private var open: [S3Document] = []
    private var count = 0

    func parser(
      _ parser: XMLParser, didStartElement name: String, namespaceURI: String?, qualifiedName: String?,
      attributes: [String: String]
    ) {
      count += 1
      guard open.count < S3Document.deepest, count <= S3Document.elements, !isRefused else {
        isRefused = true
        open = []
        return parser.abortParsing()
      }
      open.append(S3Document(name: name))
    }

    func parser(_ parser: XMLParser, foundCharacters text: String) {
      if !open.isEmpty { open[open.count - 1].text += text }
    }

    func parser(_ parser: XMLParser, didEndElement name: String, namespaceURI: String?, qualifiedName: String?) {
      guard !isRefused, var element = open.popLast() else { return }
      element.text = element.text.trimmingCharacters(in: .whitespacesAndNewlines)
      if open.isEmpty { root = element } else { open[open.count - 1].children.append(element) }
    }
  }
}
