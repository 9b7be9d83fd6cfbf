import BackupDaemon
import Faults
import Foundation
import HTTPTransport
import Notifications
import Testing
import Units

@Suite struct IncidentBookTests {
  private static let start = Date(timeIntervalSince1970: 1_795_000_000)

  private static func channel(
    _ name: String, _ topics: Set<NoticeTopic> = [.failure, .recovered], every: Duration? = .seconds(6 * 3600),
    databases: [String]? = nil
  ) -> ChannelSettings {
    ChannelSettings(name: name, kind: .command(["true"]), topics: topics, every: every, databases: databases)
  }

  private static func failure(
    _ code: FaultCode = .dumpFailed, database: String? = "shop", job: String? = "daily", store: String? = nil,
    aspect: String? = nil
  ) -> Problem {
    Problem(Fault(code, "\(code.rawValue) it is"), database: database, job: job, store: store, aspect: aspect)
  }

  /// What each update says, as `channel kind`, with ids in the order of opening.
  private struct Teller {
    var book = IncidentBook()
    let channels: [ChannelSettings]

    mutating func tell(_ problems: [Problem], hours: Double) -> [String] {
      book.update(problems, channels: channels, at: start.addingTimeInterval(hours * 3600)) { "#\($0)" }
        .map { "\($0.channel) \($0.kind.rawValue) \($0.incident.id)" }
    }
  }

  /// One message for a failure, whatever its tries fail with; one each six hours; one when it is over.
  @Test func oneMessageAnIncident() {
    var teller = Teller(channels: [Self.channel("a")])
    #expect(teller.tell([Self.failure()], hours: 0) == ["a opened #1"])
    #expect(teller.tell([Self.failure(.storeFull)], hours: 0.1) == [], "another reason, the same incident")
    #expect(teller.tell([Self.failure()], hours: 5.9) == [])
    #expect(teller.tell([Self.failure()], hours: 6) == ["a reminder #1"])
    #expect(teller.tell([Self.failure()], hours: 11) == [])
    #expect(teller.tell([], hours: 12) == ["a recovered #1"])
    #expect(teller.tell([], hours: 13) == [])
    #expect(teller.tell([Self.failure()], hours: 14) == ["a opened #2"])
  }

  @Test func whoWantsWhat() {
    var teller = Teller(channels: [
      Self.channel("failures", [.failure], every: nil), Self.channel("doubts", [.warning, .recovered]),
      Self.channel("shop", databases: ["shop", "main"]), Self.channel("goals", [.objective]),
    ])
    let doubt = Self.failure(.backupDoubtful, job: nil)
    #expect(teller.tell([doubt], hours: 0) == ["doubts opened #1"])
    #expect(teller.tell([doubt, Self.failure(database: "other")], hours: 1) == ["failures opened #2"])
    // A pattern's databases are its own.
    #expect(
      teller.tell([doubt, Self.failure(database: "main.app")], hours: 2) == ["failures opened #3", "shop opened #3"])
    #expect(teller.tell([], hours: 100) == ["doubts recovered #1", "shop recovered #3"])
    // A store's failure is no database's: all hear of it.
    #expect(
      teller.tell([Self.failure(.storeUnreachable, database: nil, job: nil, store: "offsite")], hours: 101)
        == ["failures opened #4", "shop opened #4"])
  }

  /// An objective that is about to break and then breaks is one incident; who wants failures hears of it when it is one.
  @Test func fromRiskToFailure() {
    var teller = Teller(channels: [Self.channel("failures", [.failure]), Self.channel("goals", [.objective])])
    let risk = Self.failure(.objectiveAtRisk, job: nil, aspect: "rpo")
    #expect(teller.tell([risk], hours: 0) == ["goals opened #1"])
    let missed = Self.failure(.objectiveMissed, job: nil, aspect: "rpo")
    #expect(teller.tell([missed], hours: 1).sorted() == ["failures opened #1", "goals opened #1"])
    #expect(teller.tell([missed], hours: 1.5) == [])
    #expect(
      teller.tell([Self.failure(.objectiveMissed, job: nil, aspect: "proved")], hours: 2).sorted()
        == ["failures opened #2", "goals opened #2"])
  }

  /// A run that somebody has ended opens nothing, and ends nothing either.
  @Test func anEndedRun() {
    var teller = Teller(channels: [Self.channel("a")])
    var ended = Self.failure(.runAborted)
    ended.opensNothing = true
    #expect(teller.tell([ended], hours: 0) == [])
    #expect(teller.tell([Self.failure()], hours: 1) == ["a opened #1"])
    #expect(teller.tell([ended], hours: 2) == [])
    #expect(teller.book.open.values.first?.fault.code == .dumpFailed)
    #expect(teller.tell([], hours: 3) == ["a recovered #1"])
  }

  /// Shown, and nobody is called before its time.
  @Test func aGracePeriod() {
    var teller = Teller(channels: [Self.channel("a")])
    var unproved = Self.failure(.objectiveMissed, job: nil, aspect: "proved")
    unproved.quietUntil = Self.start.addingTimeInterval(7 * 3600)
    #expect(teller.tell([unproved], hours: 1) == [])
    #expect(teller.tell([unproved], hours: 6.9) == [])
    #expect(teller.tell([unproved], hours: 7) == ["a opened #1"])
    #expect(teller.tell([], hours: 8) == ["a recovered #1"])
  }

  /// A channel that takes nothing is not told so; the others are.
  @Test func aDeadChannel() {
    var teller = Teller(channels: [Self.channel("mail"), Self.channel("chat")])
    var dead = Self.failure(.alertUndelivered, database: nil, job: nil)
    dead.channel = "mail"
    #expect(teller.tell([dead], hours: 0) == ["chat opened #1"])
    #expect(teller.tell([], hours: 1) == ["chat recovered #1"])
  }

  /// What is read back from disk goes on where it was; several problems of one scope are one incident.
  @Test func aRestartRepeatsNothing() throws {
    var teller = Teller(channels: [Self.channel("a")])
    let forged = (1...300).map { _ in Self.failure(.signatureInvalid, job: nil) }
    #expect(teller.tell(forged, hours: 0) == ["a opened #1"])
    #expect(teller.book.open.values.first?.more.count == 299)
    teller.book = try JSONDecoder().decode(IncidentBook.self, from: JSONEncoder().encode(teller.book))
    #expect(teller.tell(forged, hours: 1) == [])
    #expect(teller.tell([], hours: 2) == ["a recovered #1"])
  }

  /// Any history: no channel hears twice of one opening, nor of an end without a beginning, and whatever is open was told.
  @Test func randomHistories() {
    var generator = SystemRandomNumberGenerator()
    let seed = UInt64.random(in: 0...UInt64.max, using: &generator)
    var random = SplitMix(state: seed)
    for _ in 0..<300 {
      var teller = Teller(channels: [Self.channel("a"), Self.channel("b", every: nil)])
      var open: [String: Set<String>] = ["a": [], "b": []]
      var hours = 0.0
      for _ in 0..<40 {
        hours += Double(random.next() % 400) / 100
        let problems = ["x", "y", "z"].filter { _ in random.next() % 2 == 0 }.map { Self.failure(database: $0) }
        for message in teller.tell(problems, hours: hours) {
          let words = message.split(separator: " ").map(String.init)
          switch words[1] {
          case "opened": #expect(open[words[0]]?.insert(words[2]).inserted == true, "seed \(seed)")
          case "reminder": #expect(words[0] == "a" && open["a"]?.contains(words[2]) == true, "seed \(seed)")
          default: #expect(open[words[0]]?.remove(words[2]) != nil, "seed \(seed)")
          }
        }
        #expect(open["a"]?.count == problems.count && open["b"]?.count == problems.count, "seed \(seed)")
      }
    }
  }

  private struct SplitMix {
    var state: UInt64
    mutating func next() -> UInt64 {
      state &+= 0x9e37_79b9_7f4a_7c15
      var word = state
      word = (word ^ (word >> 30)) &* 0xbf58_476d_1ce4_e5b9
      word = (word ^ (word >> 27)) &* 0x94d0_49bb_1331_11eb
      return word ^ (word >> 31)
    }
  }
}
