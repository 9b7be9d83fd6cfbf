import Foundation
import Notifications
import TestSupport
import Testing
import Units

/// What messages say, and how they look on the wire: judged by other programs' parsers.
@Suite(.waits) struct NoticeTests {
  static let time = Date(timeIntervalSince1970: 1_795_000_000)

  static func notice(_ kind: Notice.Kind = .opened, _ topic: NoticeTopic = .failure) -> Notice {
    Notice(
      id: "4f2a91c0", kind: kind, topic: topic, time: time, host: "db1.example", code: "E-STORE-FULL",
      sentence: "daily of 'größe': store \"off<site>\" is full & closed.",
      cause: "No space left on device\n\tat 17 MiB {{host}} \\ `x` *y*", since: time.addingTimeInterval(-7200),
      database: "größe", job: "daily", holds: ["größe: newest good backup größe/20261122T020000Z, 9h old"],
      more: ["weekly of 'größe': the same."], next: "pgbackupctl status")
  }

  @Test(arguments: [
    (Notice.Kind.opened, NoticeTopic.failure, "FAILED"), (.reminder, .failure, "STILL FAILING"),
    (.recovered, .recovered, "RECOVERED"), (.opened, .warning, "WARNING"), (.opened, .objective, "AT RISK"),
    (.event, .success, "SUCCEEDED"), (.event, .reload, "RELOADED"), (.test, .failure, "TEST"),
    (.event, .failure, "FAILED"),
  ])
  func words(_ kind: Notice.Kind, _ topic: NoticeTopic, _ word: String) {
    let text = NoticeText(Self.notice(kind, topic))
    #expect(text.word == word)
    #expect(text.subject.hasPrefix("[pgbackupd db1.example] \(word): "))
  }

  @Test func thePlainText() {
    let text = NoticeText(Self.notice(.reminder)).plain
    for part in [
      "STILL FAILING: daily of 'größe'", "Cause:", "Also: weekly", "Since: ", ", 2h",
      "What still holds: größe: newest good backup", "Next: pgbackupctl status", "Code: E-STORE-FULL",
    ] { #expect(text.contains(part), "\(part) in \(text)") }
  }

  /// Python's email package reads back what was said, in both parts; on the wire is nothing but short lines of ASCII.
  @Test func aMailIsWhatItSays() throws {
    var notice = Self.notice()
    notice.sentence += String(repeating: " größer", count: 30)
    let bytes = MailMessage(from: "pgbackupd@db1.example", to: ["a@example.org", "b@example.org"], notice: notice).bytes
    #expect(bytes.allSatisfy { $0 < 128 })
    #expect(bytes.split(separator: 10).allSatisfy { $0.last == 13 && $0.count <= 100 })
    let script = """
      import email, email.policy, json, sys
      m = email.message_from_bytes(sys.stdin.buffer.read(), policy=email.policy.default)
      print(json.dumps({"subject": m["subject"], "to": m["to"], "date": m["date"].datetime.timestamp(), "type": m.get_content_type(),
        "plain": m.get_body(("plain",)).get_content(), "html": m.get_body(("html",)).get_content(), "defects": len(m.defects)}))
      """
    let output = try Shell.must("python3", ["-c", script], input: String(decoding: bytes, as: UTF8.self))
    let read = try #require(try JSONSerialization.jsonObject(with: Data(output.utf8)) as? [String: Any])
    let text = NoticeText(notice)
    #expect(read["subject"] as? String == text.subject)
    #expect(read["to"] as? String == "a@example.org, b@example.org")
    #expect(read["date"] as? Double == Self.time.timeIntervalSince1970)
    #expect(read["type"] as? String == "multipart/alternative" && read["defects"] as? Int == 0)
    #expect((read["plain"] as? String)?.replacing("\r\n", with: "\n") == text.plain)
    let html = try #require(read["html"] as? String)
    #expect(html.contains("off&lt;site&gt;&quot; is full &amp; closed") || html.contains("&quot;off&lt;site&gt;&quot;"))
    for outside in ["http", "<script", "<img", "src="] { #expect(!html.contains(outside)) }
  }

  /// Whatever a message says, a template that is JSON stays JSON, and says it.
  @Test func aTemplateStaysJSON() throws {
    let template = WebhookTemplate(
      #"{"alarm": "{{title}}", "why": "{{ cause }}", "n": "{{next}}{{job}}", "t": "{{text}}"}"#)
    let notice = Self.notice()
    let read = try #require(
      try JSONSerialization.jsonObject(with: Data(try template.body(notice))) as? [String: String])
    #expect(read["alarm"] == NoticeText(notice).title && read["why"] == notice.cause)
    #expect(read["n"] == "pgbackupctl statusdaily" && read["t"] == NoticeText(notice).plain)
    #expect(WebhookTemplate.unknownName(in: "{{title}} {{tilte}}") == "tilte")
    #expect(WebhookTemplate.unknownName(in: "{{title}} {{") == nil)
  }
}
