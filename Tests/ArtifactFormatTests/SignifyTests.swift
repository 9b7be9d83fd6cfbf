import ArtifactFormat
import Foundation
import TestSupport
import Testing

/// Against signify itself, both ways.
@Suite(.waits) struct SignifyTests {
  private let message = Array("a manifest\n".utf8)

  @Test func signifyVerifiesOurs() throws {
    let folder = TemporaryFolder()
    let key = SigningKey.generate()
    _ = try folder.write("message", String(decoding: message, as: UTF8.self))
    _ = try folder.write("message.sig", try key.sign(message))
    _ = try folder.write("key.pub", key.publicKey.text)
    _ = try folder.write("key.sec", key.secretText)
    let verify = ["-V", "-p", folder.file("key.pub"), "-x", folder.file("message.sig"), "-m", folder.file("message")]
    try Shell.must("signify-openbsd", verify)
    _ = try folder.write("message", "a manifesto\n")
    #expect(try Shell.run("signify-openbsd", verify).status != 0)
    // Our secret key is one that signify can sign with.
    try Shell.must(
      "signify-openbsd",
      ["-S", "-s", folder.file("key.sec"), "-x", folder.file("theirs.sig"), "-m", folder.file("message")])
    let theirs = try String(contentsOfFile: folder.file("theirs.sig"), encoding: .utf8)
    #expect(key.publicKey.verifies(Array("a manifesto\n".utf8), signature: theirs))
    #expect(!key.publicKey.verifies(message, signature: theirs))
  }

  @Test func weVerifySignifys() throws {
    let folder = TemporaryFolder()
    try Shell.must("signify-openbsd", ["-G", "-n", "-p", folder.file("k.pub"), "-s", folder.file("k.sec")])
    let secret = try #require(SigningKey(parsing: String(contentsOfFile: folder.file("k.sec"), encoding: .utf8)))
    let known = try #require(VerifyingKey(parsing: String(contentsOfFile: folder.file("k.pub"), encoding: .utf8)))
    #expect(secret.publicKey == known)
    #expect(known.verifies(message, signature: try secret.sign(message)))
    #expect(VerifyingKey(parsing: known.description) == known)
    #expect(SigningKey(parsing: secret.secretText) == secret)
  }

  @Test func nothingElseVerifies() throws {
    let key = SigningKey.generate()
    let signature = try key.sign(message)
    #expect(key.publicKey.verifies(message, signature: signature))
    #expect(!SigningKey.generate().publicKey.verifies(message, signature: signature))
    for (position, character) in signature.enumerated() where position > 30 && character != "\n" {
      var changed = Array(signature)
      changed[position] = character == "A" ? "B" : "A"
      // The comment is not signed, as signify has it, and says so: "untrusted".
      if position > signature.split(separator: "\n")[0].count {
        #expect(!key.publicKey.verifies(message, signature: String(changed)), "\(position)")
      }
    }
    for text in ["", "x", signature + "x", String(signature.dropLast()), "untrusted comment: x\nQUJD\n"] {
      #expect(!key.publicKey.verifies(message, signature: text))
      #expect(VerifyingKey(parsing: text) == nil)
      #expect(SigningKey(parsing: text) == nil)
    }
    #expect(!"\(key)".contains(key.secretText.split(separator: "\n")[1]))
  }
}
