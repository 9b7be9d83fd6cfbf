import Foundation
import Quoting

/// A mail with a text and an HTML part (RFC 5322, RFC 2046 multipart/alternative).
package struct MailMessage: Sendable {
  package var from: String
  package var to: [String]
  package var notice: Notice

  package init(from: String, to: [String], notice: Notice) {
    self.from = from
    self.to = to
    self.notice = notice
  }

  /// Lines end with CR LF; nothing but ASCII is on the wire, and no line is longer than 78.
  package var bytes: [UInt8] {
    let text = NoticeText(notice)
    let boundary = "=_pgbackupd_\(Self.token(notice.id))"
    var lines = [
      "From: pgbackupd <\(from)>", "To: \(to.map { "<\($0)>" }.joined(separator: ",\r\n "))",
      "Subject: \(Self.encodedHeader(text.subject))", "Date: \(Self.date(notice.time))",
      "Message-ID: <\(Self.token(notice.id)).\(notice.kind.rawValue).\(Int(notice.time.timeIntervalSince1970))@\(Self.domain(from))>",
    ]
    // Mail programs show an incident's messages as one conversation.
    let thread = "<\(Self.token(notice.id)).incident@\(Self.domain(from))>"
    lines += [
      "References: \(thread)", "Auto-Submitted: auto-generated", "X-Pgbackupd-Host: \(Self.plain(notice.host))",
    ]
    if let code = notice.code { lines.append("X-Pgbackupd-Code: \(Self.plain(code))") }
    lines += ["MIME-Version: 1.0", "Content-Type: multipart/alternative; boundary=\"\(boundary)\"", ""]
    for (type, body) in [("plain", text.plain), ("html", text.html)] {
      lines += [
        "--\(boundary)", "Content-Type: text/\(type); charset=utf-8", "Content-Transfer-Encoding: base64", "",
        Data(body.utf8).base64EncodedString(options: [
          .lineLength76Characters, .endLineWithCarriageReturn, .endLineWithLineFeed,
        ]),
      ]
    }
    lines += ["--\(boundary)--", ""]
    return Array(lines.joined(separator: "\r\n").utf8)
  }

  /// RFC 2047 encoded words where the text is not plain ASCII or too long for a line; each holds whole code points.
  static func encodedHeader(_ text: String) -> String {
    let text = TerminalText.line(text)
    if text.utf8.count <= 66, text.utf8.allSatisfy({ $0 >= 32 && $0 < 127 }), !text.contains(bytes: "=?") {
      return text
    }
    var words: [String] = []
    var part = ""
    for scalar in text.unicodeScalars {
      // 42 bytes are 56 of base64, and an encoded word takes 75 at most.
      if part.utf8.count + String(scalar).utf8.count > 42 {
        words.append(part)
        part = ""
      }
      part.unicodeScalars.append(scalar)
    }
    words.append(part)
    return words.map { "=?UTF-8?B?\(Data($0.utf8).base64EncodedString())?=" }.joined(separator: "\r\n ")
  }

  /// Letters and digits alone.
  private static func token(_ text: String) -> String {
    String(
      decoding: text.utf8.filter { ($0 >= 48 && $0 <= 57) || ($0 >= 65 && $0 <= 90) || ($0 >= 97 && $0 <= 122) },
      as: UTF8.self)
  }

  private static func domain(_ address: String) -> String {
    address.split(atByte: UInt8(ascii: "@")).last.map(String.init) ?? "localhost"
  }

  private static func plain(_ text: String) -> String {
    String(decoding: text.utf8.filter { $0 >= 32 && $0 < 127 }, as: UTF8.self)
  }

  /// `Mon, 23 Nov 2026 10:00:00 +0000` (RFC 5322, 3.3).
  private static func date(_ time: Date) -> String {
    let formatter = DateFormatter()
    formatter.locale = Locale(identifier: "en_US_POSIX")
    formatter.timeZone = TimeZone(secondsFromGMT: 0)
    formatter.dateFormat = "EEE, dd MMM yyyy HH:mm:ss '+0000'"
    return formatter.string(from: time)
  }
}
