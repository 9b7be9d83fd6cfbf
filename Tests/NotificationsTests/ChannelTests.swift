import Faults
import Foundation
import HTTPTransport
import Notifications
import OutsidePrograms
import TestSupport
import Testing
import Units

/// Every channel against a real counterpart: a mail server with TLS and AUTH, and an HTTP server that fails, redirects and hangs.
@Suite(.serialized, .waits) struct ChannelTests {
  private static func channel(_ kind: ChannelSettings.Kind, name: String = "oncall") -> NoticeChannel {
    NoticeChannel(ChannelSettings(name: name, kind: kind, topics: [.failure], every: nil, databases: nil))
  }

  private static func mail(
    _ sinks: Sinks, port: Int, _ security: MailSubmission.Security, user: String? = "user",
    password: String? = "pass word", trusts: Bool = true, to: [String] = ["dba@example.org"]
  ) -> NoticeChannel {
    channel(
      .email(
        .init(
          from: "pgbackupd@db1.example", to: to,
          route: .smtp(
            host: "localhost", port: port, security, user: user, password: password.map(Secret.init),
            authorityFile: trusts ? sinks.authorityFile : nil))))
  }

  private static func failure(_ channel: NoticeChannel) async -> Fault? {
    do {
      try await channel.deliver(NoticeTests.notice())
      return nil
    } catch {
      return error
    }
  }

  @Test func mailByTLS() async throws {
    let sinks = try Sinks()
    for (port, security, user) in [(sinks.startTLS, MailSubmission.Security.startTLS, "user"), (sinks.tls, .tls, nil)] {
      try await Self.mail(
        sinks, port: port, security, user: user, password: user.map { _ in "pass word" },
        to: ["dba@example.org", "boss@example.org"]
      ).deliver(NoticeTests.notice())
      let item = try sinks.next()
      #expect(item.kind == "mail" && item.sender == "pgbackupd@db1.example")
      #expect(item.to == ["dba@example.org", "boss@example.org"] && item.tls == true && item.user == user)
      let data = try #require(item.data.flatMap { Data(base64Encoded: $0) })
      let text = String(decoding: data, as: UTF8.self)
      #expect(text.contains("Subject: =?UTF-8?B?") && text.contains("X-Pgbackupd-Code: E-STORE-FULL"))
    }
    try await Self.mail(sinks, port: sinks.plain, .off, user: nil, password: nil).deliver(NoticeTests.notice())
    #expect(try sinks.next().tls == false)
  }

  /// No TLS, no message; a wrong authority, none either; what a server says reaches the operator, a password does not.
  @Test func mailThatIsRefused() async throws {
    let sinks = try Sinks()
    let stripped = try #require(await Self.failure(Self.mail(sinks, port: sinks.plain, .startTLS)))
    #expect(stripped.code == .alertUndelivered && stripped.message.contains("'oncall' (email)"))
    let unknown = try #require(await Self.failure(Self.mail(sinks, port: sinks.startTLS, .startTLS, trusts: false)))
    #expect(unknown.cause?.contains("certificate") == true, "\(unknown)")
    let wrong = try #require(
      await Self.failure(Self.mail(sinks, port: sinks.startTLS, .startTLS, password: "hunter2xyz")))
    #expect(!wrong.description.contains("hunter2xyz") && wrong.cause?.isEmpty == false)
    let nobody = try #require(
      await Self.failure(Self.mail(sinks, port: sinks.startTLS, .startTLS, to: ["reject@example.org"])))
    #expect(nobody.cause?.contains("550") == true, "\(nobody)")
    // One of several keeps the others from nothing.
    let mixed = Self.mail(sinks, port: sinks.startTLS, .startTLS, to: ["reject@example.org", "dba@example.org"])
    // And is told all the same.
    let remark = try await mixed.deliver(NoticeTests.notice())
    #expect(
      remark?.cause?.hasPrefix("550") == true && remark?.message.contains("some addresses") == true,
      "\(String(describing: remark))")
    #expect(try sinks.next().to == ["dba@example.org"])
    let silent = try #require(await Self.failure(Self.mail(sinks, port: 1, .startTLS)))
    #expect(silent.cause?.isEmpty == false)
  }

  @Test func chats() async throws {
    let sinks = try Sinks()
    let notice = NoticeTests.notice()
    try await Self.channel(.slack(.init(url: Secret(sinks.url("ok"))))).deliver(notice)
    let slack = try #require(try Self.json(sinks.next()))
    let attachment = try #require((slack["attachments"] as? [[String: Any]])?.first)
    #expect(
      (slack["text"] as? String)?.contains("off&lt;site&gt;") == true && attachment["color"] as? String == "#b3261e")
    let blocks = try #require(attachment["blocks"] as? [[String: Any]])
    #expect(blocks.count >= 5 && blocks.allSatisfy { $0["type"] != nil })

    try await Self.channel(.discord(.init(url: Secret(sinks.url("ok"))))).deliver(notice)
    let discord = try #require(try Self.json(sinks.next()))
    #expect((discord["allowed_mentions"] as? [String: [String]])?["parse"] == [])
    let embed = try #require((discord["embeds"] as? [[String: Any]])?.first)
    #expect(embed["color"] as? Int == 0xb3261e && (embed["fields"] as? [[String: Any]])?.isEmpty == false)
    #expect((embed["description"] as? String)?.contains("off\\<site\\>") == true)
  }

  /// The signature is what Python's hmac makes of the same bytes.
  @Test func aSignedWebhook() async throws {
    let sinks = try Sinks()
    var webhook = ChannelSettings.Webhook(address: .init(url: Secret(sinks.url("ok"))))
    webhook.secret = Secret("geheim")
    webhook.headers = ["X-Team": Secret("dba")]
    try await Self.channel(.webhook(webhook)).deliver(NoticeTests.notice())
    let item = try sinks.next()
    let (headers, body) = (try #require(item.headers), try #require(item.body))
    let oracle = try Shell.must(
      "python3",
      [
        "-c",
        "import hmac, sys; print(hmac.new(b'geheim', sys.argv[1].encode() + b'.' + sys.stdin.buffer.read(), 'sha256').hexdigest())",
        try #require(headers["x-pgbackupd-timestamp"]),
      ], input: body)
    #expect(headers["x-pgbackupd-signature"] == "sha256=" + oracle.split(separator: "\n")[0])
    #expect(headers["x-team"] == "dba" && headers["idempotency-key"]?.hasPrefix("4f2a91c0-opened-") == true)
    let read = try #require(try JSONSerialization.jsonObject(with: Data(body.utf8)) as? [String: Any])
    #expect(read["code"] as? String == "E-STORE-FULL" && read["next"] as? String == "pgbackupctl status")
  }

  @Test func pings() async throws {
    let sinks = try Sinks()
    let ping = Self.channel(.ping(.init(address: .init(url: Secret(sinks.url("ok", "uuid?a=b"))), jobs: nil)))
    for (kind, path) in [(Notice.Kind.runBegan, "/start"), (.runSucceeded, ""), (.runFailed, "/fail")] {
      var notice = NoticeTests.notice(kind)
      notice.log = ["rows: 7"]
      try await ping.deliver(notice)
      let item = try sinks.next()
      #expect(item.path == "/ok/uuid\(path)?a=b")
      #expect(item.body?.contains("rows: 7") == true)
    }
  }

  /// A server that fails or redirects is told of without the URL's secret, even where the answer repeats it.
  @Test func answersThatAreNone() async throws {
    let sinks = try Sinks()
    for (mode, words) in [("fail", "500"), ("redirect", "302")] {
      let fault = try #require(await Self.failure(Self.channel(.slack(.init(url: Secret(sinks.url(mode)))))))
      #expect(fault.cause?.contains(words) == true, "\(fault)")
      #expect(!fault.description.contains("T0KEN"), "\(fault)")
    }
  }

  /// Whoever stops waiting is let go, however the server behaves.
  @Test(arguments: ["hang", "drip"])
  func aServerThatHangs(_ mode: String) async throws {
    let sinks = try Sinks()
    let channel = Self.channel(.slack(.init(url: Secret(sinks.url(mode)))))
    let delivery = Task { await Self.failure(channel) }
    _ = try sinks.next()
    delivery.cancel()
    #expect(await delivery.value?.code == .alertUndelivered)
  }

  @Test func commands() async throws {
    let folder = TemporaryFolder()
    let out = folder.file("out")
    try await Self.channel(
      .command(["/bin/sh", "-c", "cat > \(out); echo \"$PGBACKUPD_CODE $PGBACKUPD_KIND\" >> \(out)"])
    )
    .deliver(NoticeTests.notice())
    let text = try String(contentsOfFile: out, encoding: .utf8)
    #expect(text.contains("\"sentence\":\"daily of") && text.hasSuffix("E-STORE-FULL opened\n"))
    let failed = try #require(await Self.failure(Self.channel(.command(["/bin/sh", "-c", "echo oh no >&2; exit 3"]))))
    #expect(failed.cause?.contains("oh no") == true)
    #expect(await Self.failure(Self.channel(.command(["/no/such/program"]))) != nil)
    do {
      _ = try await OutsideCommand(["/bin/sh", "-c", "echo so far; exec sleep 600"], timeout: .seconds(5)).run()
      Issue.record("it was not stopped")
    } catch {
      #expect(error.code == .hookFailed && error.message.contains("did not end") && error.cause == "so far")
    }
  }

  /// A hook that prints much is no failure; who needs the whole of what is printed is told where it is too much.
  @Test func muchIsPrinted() async throws {
    let words = ["/bin/sh", "-c", "head -c 3000000 /dev/zero | tr '\\0' x >&2; seq 400000; echo the end"]
    #expect(try await OutsideCommand(words, timeout: .seconds(60)).run().contains("the end"))
    await #expect(
      throws: Fault(.hookFailed, "'/bin/sh' printed more than 1 MiB.", hint: "run it by hand, as the daemon's user")
    ) {
      try await OutsideCommand(words, timeout: .seconds(60)).output()
    }
  }

  private static func json(_ item: Sinks.Item) throws -> [String: Any]? {
    try JSONSerialization.jsonObject(with: Data((item.body ?? "").utf8)) as? [String: Any]
  }
}
