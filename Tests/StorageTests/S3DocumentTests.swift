import Testing

@testable import S3Storage

/// Replies of a server that may be anything.
@Suite struct S3DocumentTests {
  @Test func aReplyIsReadWithoutItsNamespace() throws {
    let document = try S3Document(
      Array(" \n<L xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"><C><Key>a &amp; b</Key></C><C/></L>".utf8))
    #expect(document.name == "L")
    #expect(document.all("C").count == 2)
    #expect(document["C"]?["Key"]?.text == "a & b")
  }

  /// A name with such a byte ended the process in Foundation's parser.
  @Test(arguments: ["<a><b\u{fffd}\u{fffd}c>x</b></a>", "<a b\u{fffd}=\"x\"/>", "<a>\u{fffd}</a>"])
  func bytesThatAreNoTextAreRefused(_ text: String) {
    // The replacement's three bytes become two of which none is UTF-8.
    let bytes = Array(text.utf8).split(separator: 0xEF).reduce(into: [UInt8]()) { result, part in
      result += part.first == 0xBF ? [0xC2, 0xC2] + part.dropFirst(2) : Array(part)
    }
    #expect(throws: S3Document.Malformed.self) { try S3Document(bytes) }
  }

  @Test func whatIsDeepOrCutOffIsRefused() {
    let deep = String(repeating: "<a>", count: 1000) + String(repeating: "</a>", count: 1000)
    for text in [deep, "<a><b></a>", "", "no markup"] {
      #expect(throws: S3Document.Malformed.self) { try S3Document(Array(text.utf8)) }
    }
  }
}
