import Faults
import Foundation
import Quoting
import Units

/// A notice as Slack's incoming webhooks take it: blocks in a coloured attachment, and a text for notifications.
enum SlackBody {
  /// Limits of Block Kit: 3000 characters in a section, 2000 in a field, 10 fields.
  static func make(_ notice: Notice) throws -> [UInt8] {
    let text = NoticeText(notice)
    var blocks: [[String: Any]] = [
      ["type": "section", "text": mark("*\(text.word)*\n\(SlackText.escaped(text.sentence))", 3000)]
    ]
    for fact in text.facts where fact.name != "Host" {
      let value =
        fact.name == "Next" && Hint.isCommand(fact.value) ? SlackText.code(fact.value) : SlackText.escaped(fact.value)
      blocks.append(["type": "section", "text": mark("*\(fact.name)*\n\(value)", 3000)])
    }
    blocks.append([
      "type": "context", "elements": [mark(SlackText.escaped(text.facts.last?.value ?? notice.host), 2000)],
    ])
    return try bytes([
      "text": SlackText.escaped(text.subject),
      "attachments": [["color": text.color, "fallback": SlackText.escaped(text.subject), "blocks": blocks]],
    ])
  }

  private static func mark(_ text: String, _ limit: Int) -> [String: Any] {
    ["type": "mrkdwn", "text": NoticeText.cut(text, limit)]
  }
}

/// A notice as Discord's webhooks take it: one embed. Nobody is pinged by a name in a table.
enum DiscordBody {
  /// Limits of embeds: 256 characters in a title, 4096 in the description, 1024 in a field's value.
  static func make(_ notice: Notice) throws -> [UInt8] {
    let text = NoticeText(notice)
    let fields = text.facts.filter { $0.name != "Host" }.map { fact -> [String: Any] in
      let value =
        fact.name == "Next" && Hint.isCommand(fact.value)
        ? DiscordText.code(fact.value) : DiscordText.escaped(fact.value)
      return ["name": fact.name, "value": NoticeText.cut(value, 1024), "inline": false]
    }
    return try bytes([
      "username": "pgbackupd", "allowed_mentions": ["parse": [String]()],
      "embeds": [
        [
          "title": NoticeText.cut("\(text.word): \(line: notice.host)", 256),
          "description": NoticeText.cut(DiscordText.escaped(text.sentence), 4096),
          "color": Int(text.color.dropFirst(), radix: 16) ?? 0, "fields": fields, "timestamp": notice.time.rfc3339,
          "footer": ["text": "pgbackupd on \(notice.host)"],
        ]
      ],
    ])
  }
}

private func bytes(_ value: [String: Any]) throws -> [UInt8] {
  Array(try JSONSerialization.data(withJSONObject: value, options: [.sortedKeys, .withoutEscapingSlashes]))
}
