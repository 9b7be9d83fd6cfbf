import Foundation
import FoundationXML

/// An element of an XML reply: its text and its children. Namespaces are left out, as every S3 server has its own idea of them.
struct S3Document {
  let name: String
  private(set) var text: String
  private(set) var children: [S3Document]

  struct Malformed: Error {}

  /// The root element; white space may come before all.
  init(_ bytes: [UInt8]) throws {
    // A server that takes its time sends white space meanwhile, before which no declaration may stand.
    let parser = XMLParser(data: Data(bytes.drop { [9, 10, 13, 32].contains($0) }))
    parser.shouldProcessNamespaces = true
    let builder = Builder()
    parser.delegate = builder
    guard parser.parse(), let root = builder.root else { throw Malformed() }
    self = root
  }

  private init(name: String) {
    self.name = name
    text = ""
    children = []
  }

  /// The first child of this name.
  subscript(_ name: String) -> S3Document? { children.first { $0.name == name } }

  func all(_ name: String) -> [S3Document] { children.filter { $0.name == name } }

  private final class Builder: NSObject, XMLParserDelegate {
    var root: S3Document?
    private var open: [S3Document] = []

    func parser(
      _ parser: XMLParser, didStartElement name: String, namespaceURI: String?, qualifiedName: String?,
      attributes: [String: String]
    ) {
      // No reply is deeper than five; the bound is for hostile ones.
      if open.count > 32 { parser.abortParsing() }
      open.append(S3Document(name: name))
    }

    func parser(_ parser: XMLParser, foundCharacters text: String) {
      if !open.isEmpty { open[open.count - 1].text += text }
    }

    func parser(_ parser: XMLParser, didEndElement name: String, namespaceURI: String?, qualifiedName: String?) {
      guard var element = open.popLast() else { return }
      element.text = element.text.trimmingCharacters(in: .whitespacesAndNewlines)
      if open.isEmpty { root = element } else { open[open.count - 1].children.append(element) }
    }
  }
}
