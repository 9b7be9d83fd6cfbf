import Quoting

/// Who may dump: one run at a time per database, and so many in all. The first to ask is the first served, except that a
/// busy database holds up only its own runs. A pure value; `DumpSlots` is its shell.
package struct SlotTable: Sendable {
  package var limit: Int
  private var busy: Set<ExactText> = []
  private var waiting: [(ticket: Int, database: String)] = []
  private var lastTicket = 0

  package init(limit: Int) { self.limit = limit }

  /// Queues up; the ticket is granted by `grant`.
  package mutating func enter(_ database: String) -> Int {
    lastTicket += 1
    waiting.append((lastTicket, database))
    return lastTicket
  }

  /// The tickets whose turn has come.
  package mutating func grant() -> [Int] {
    var granted: [Int] = []
    var position = 0
    while position < waiting.count, busy.count < limit {
      let (ticket, database) = waiting[position]
      if busy.insert(ExactText(database)).inserted {
        granted.append(ticket)
        waiting.remove(at: position)
      } else {
        position += 1
      }
    }
    return granted
  }

  /// Gives up waiting; false where the ticket is not waiting (any more).
  package mutating func leave(_ ticket: Int) -> Bool {
    guard let position = waiting.firstIndex(where: { $0.ticket == ticket }) else { return false }
    waiting.remove(at: position)
    return true
  }

  package mutating func release(_ database: String) { busy.remove(ExactText(database)) }
}

/// The slots as something that can be waited for.
actor DumpSlots {
  private var table: SlotTable
  private var continuations: [Int: CheckedContinuation<Void, any Error>] = [:]
  /// Tickets whose turn came before anybody waited for them.
  private var granted: Set<Int> = []

  init(limit: Int) { table = SlotTable(limit: limit) }

  func setLimit(_ limit: Int) {
    table.limit = limit
    grant()
  }

  /// Queues up, in the order of the calls; what follows is `wait` with the ticket.
  func enter(_ database: String) -> Int {
    let ticket = table.enter(database)
    grant()
    return ticket
  }

  /// Waits for the ticket's turn; every return without a throw needs one `release`. Throws on cancellation.
  func wait(_ ticket: Int) async throws {
    if granted.remove(ticket) != nil { return }
    try await withTaskCancellationHandler {
      try await withCheckedThrowingContinuation { (continuation: CheckedContinuation<Void, any Error>) in
        if Task.isCancelled {
          _ = table.leave(ticket)
          continuation.resume(throwing: CancellationError())
        } else {
          continuations[ticket] = continuation
        }
      }
    } onCancel: {
      Task { await self.giveUp(ticket) }
    }
  }

  func release(_ database: String) {
    table.release(database)
    grant()
  }

  private func giveUp(_ ticket: Int) {
    guard table.leave(ticket) else { return }
    continuations.removeValue(forKey: ticket)?.resume(throwing: CancellationError())
  }

  private func grant() {
    for ticket in table.grant() {
      if let continuation = continuations.removeValue(forKey: ticket) {
        continuation.resume()
      } else {
        granted.insert(ticket)
      }
    }
  }
}
