import Foundation
import Quoting
import TestSupport
import Testing

/// What shells, browsers, parsers and scrapers make of quoted text: the real ones, or Python's.
@Suite struct ProgramQuotingTests {
  @Test func aShellWordIsOneWord() throws {
    let texts = HostileText.texts(800, seed: 11)
    let script = "printf '%s\\0' " + texts.map { ShellWord.quoted($0) }.joined(separator: " ") + "\n"
    let folder = TemporaryFolder()
    let file = try folder.write("script", script)
    let output = try Shell.must("bash", [file])
    #expect(
      output.utf8.split(separator: 0, omittingEmptySubsequences: false).dropLast().map(Array.init) == texts.map(\.bytes)
    )
    // What a terminal shows is one word for every POSIX shell, also older ones.
    let shown = texts.filter { !$0.unicodeScalars.contains(where: TerminalText.isHidden) }
    let plain = "printf '%s\\0' " + shown.map { ShellWord.quoted($0) }.joined(separator: " ") + "\n"
    let dash = try Shell.must("dash", ["-c", plain])
    #expect(
      dash.utf8.split(separator: 0, omittingEmptySubsequences: false).dropLast().map(Array.init) == shown.map(\.bytes))
  }

  @Test func aPastedWordStaysOnItsLineAndRunsNothing() throws {
    let folder = TemporaryFolder()
    let marker = folder.file("ran")
    for text in HostileText.texts(300, seed: 12).map({ "\($0)'; touch \(marker); '\u{600}\n touch \(marker)" }) {
      let word = ShellWord.quoted(text)
      #expect(!word.unicodeScalars.contains(where: TerminalText.isHidden))
      try Shell.must("bash", ["-c", "true \(word)"])
    }
    #expect(!FileManager.default.fileExists(atPath: marker))
  }

  @Test func plainWordsStayAsTheyAre() {
    #expect(ShellWord.quoted("shop/20261130T120000Z") == "shop/20261130T120000Z")
    #expect(ShellWord.quoted("a b") == "'a b'")
    #expect(ShellWord.quoted("a'b") == #"'a'\''b'"#)
    #expect(ShellWord.quoted("a\nb") == #"$'a\012b'"#)
    #expect(ShellWord.quoted("") == "''")
  }

  /// Runs a Python program that reads a JSON list and prints one.
  private static func python(_ program: String, _ input: [String]) throws -> [String] {
    let json = String(decoding: try JSONEncoder().encode(input), as: UTF8.self)
    let output = try Shell.must("python3", ["-c", program], input: json)
    return try JSONDecoder().decode([String].self, from: Data(output.utf8))
  }

  @Test func escapedHTMLIsTextAndAttributeForAParser() throws {
    let texts = HostileText.texts(800, seed: 13)
    let pages = texts.map { text in
      let safe = HTMLText.escaped(text)
      return "<p title=\"\(safe)\" lang='\(safe)'>\(safe)</p>"
    }
    let read = try Self.python(
      """
      import html.parser, json, sys
      class P(html.parser.HTMLParser):
        def __init__(s): super().__init__(); s.out=[]; s.text=''
        def handle_starttag(s,t,a): s.out.append([t,[v for k,v in a]])
        def handle_data(s,d): s.text+=d
        def handle_comment(s,d): s.out.append('comment')
        def handle_decl(s,d): s.out.append('decl')
        def handle_pi(s,d): s.out.append('pi')
      result=[]
      for page in json.load(sys.stdin):
        p=P(); p.feed(page); p.close()
        ok = len(p.out)==1 and p.out[0][0]=='p' and p.out[0][1]==[p.text,p.text]
        result.append(p.text if ok else 'BROKEN: '+repr(p.out))
      json.dump(result, sys.stdout)
      """, pages)
    #expect(read.map(\.bytes) == texts.map { TerminalText.line($0).bytes })
  }

  @Test func aJSONStringIsReadBack() throws {
    let texts = HostileText.texts(800, seed: 14) + ["\0", "a\0b"]
    for text in texts {
      let json = JSONText.quoted(text)
      #expect(!json.unicodeScalars.contains(where: TerminalText.isHidden))
      let read = try JSONSerialization.jsonObject(with: Data(json.utf8), options: .fragmentsAllowed) as? String
      #expect(read?.bytes == text.bytes)
      // What Foundation has written says the same when it is made safe to show.
      let encoded = String(decoding: try JSONEncoder().encode([text]), as: UTF8.self)
      let shown = JSONText.shown(encoded)
      #expect(!shown.unicodeScalars.contains(where: TerminalText.isHidden))
      #expect(try JSONDecoder().decode([String].self, from: Data(shown.utf8)).map(\.bytes) == [text.bytes])
    }
    let read = try Self.python(
      "import json,sys; json.dump([json.loads(t) for t in json.load(sys.stdin)], sys.stdout)",
      texts.map { JSONText.quoted($0) })
    #expect(read.map(\.bytes) == texts.map(\.bytes))
  }

  @Test func labelsAreReadBackAndPromtoolTakesThem() throws {
    let texts = HostileText.texts(600, seed: 15)
    let lines = texts.map { "quoting_value{n=\"\(MetricsLabel.value($0))\"} 1" }
    for (text, line) in zip(texts, lines) {
      #expect(!line.utf8.contains(10))
      // `label-value = escaped-string`: up to the first double quote that no backslash precedes.
      var value: [UInt8] = []
      var bytes = Array(line.utf8).dropFirst("quoting_value{n=\"".utf8.count)
      while let byte = bytes.popFirst(), byte != UInt8(ascii: "\"") {
        guard byte == UInt8(ascii: "\\") else {
          value.append(byte)
          continue
        }
        let escaped = bytes.popFirst()
        value.append(escaped == UInt8(ascii: "n") ? 10 : escaped ?? 0)
      }
      #expect(value == text.bytes)
      #expect(Array(bytes) == "} 1".bytes)
    }
    var seen: Set<[UInt8]> = []
    let distinct = zip(texts, lines).filter { seen.insert($0.0.bytes).inserted }.map(\.1)
    let help = HostileText.texts(1, seed: 16).joined()
    let body =
      "# HELP quoting_value \(MetricsLabel.help(help, escapingQuotes: false))\n# TYPE quoting_value gauge\n"
      + distinct.joined(separator: "\n") + "\n"
    let result = try Shell.run("promtool", ["check", "metrics"], input: body)
    #expect(result.status == 0, "\(result.errors.prefix(400))")
  }

  @Test func aLineStaysOneLineAndActsOnNoTerminal() {
    for text in HostileText.texts(2000, seed: 17) + ["\0"] {
      let line = TerminalText.line(text)
      #expect(!line.unicodeScalars.contains(where: TerminalText.isHidden))
      #expect(TerminalText.line(line) == line)
      let lines = TerminalText.lines(text)
      #expect(!lines.unicodeScalars.contains { $0 != "\n" && $0 != "\t" && TerminalText.isHidden($0) })
      for byte in (LogText.sentence(text) + LogText.value(text)).utf8 { #expect(byte >= 32 && byte != 127) }
      let cell = MarkdownText.cell(text)
      #expect(!cell.utf8.contains { $0 == UInt8(ascii: "|") || $0 == UInt8(ascii: "<") || $0 < 32 })
      let sentence = PluginText.sentence(text)
      #expect(!sentence.utf8.contains { $0 == UInt8(ascii: "|") || $0 < 32 })
    }
    #expect(TerminalText.line("a\u{1B}[2Jb\r\nc\u{202E}\u{9B}\u{2028}") == #"a\x1b[2Jb\r\nc\u202e\u009b\u2028"#)
    #expect(TerminalText.lines("a\n\tb\r\n") == "a\n\tb\\r\n")
    #expect(TerminalText.line("👩‍👩‍👧 نماز é") == "👩‍👩‍👧 نماز é")
  }

  @Test func aValueInALogLineForgesNoFurtherKey() {
    for text in HostileText.texts(1000, seed: 18).map({ "\u{600}\" \($0)\" run=forged \($0)" }) {
      let value = LogText.value(text)
      let inside = value.utf8.dropFirst().dropLast()
      #expect(value.utf8.first == UInt8(ascii: "\"") && value.utf8.last == UInt8(ascii: "\""))
      #expect(!inside.contains(UInt8(ascii: "\"")))
    }
    #expect(LogText.value("plain") == "plain")
    #expect(LogText.value("two words") == "\"two words\"")
  }

  @Test func aLabelOfAPluginEndsWhereItsQuoteEnds() {
    for text in HostileText.texts(1000, seed: 19) {
      let label = PluginText.label(text)
      let inside = Array(label.utf8.dropFirst().dropLast())
      #expect(!inside.contains(UInt8(ascii: "=")) && !inside.contains(UInt8(ascii: "|")))
      // Quotes come in pairs.
      var position = 0
      while position < inside.count {
        if inside[position] == UInt8(ascii: "'") {
          position += 1
          #expect(position < inside.count && inside[position] == UInt8(ascii: "'"))
        }
        position += 1
      }
    }
  }

  @Test func chatsGetNoMarkOfTheirs() {
    #expect(SlackText.escaped("\u{600}<!channel>\u{301}&") == "\u{600}&lt;!channel&gt;\u{301}&amp;")
    #expect(DiscordText.escaped("\u{600}@everyone <@1> *x*") == "\u{600}\\@everyone \\<\\@1\\> \\*x\\*")
    #expect(SlackText.code("a`\u{301}b") == "`a'\u{301}b`")
    #expect(DiscordText.code("a`b") == "`a'b`")
  }
}
