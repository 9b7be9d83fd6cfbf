/// Rows on their way from one who reads to several who load: a few pieces at most, so that memory stays bounded and nobody waits for
/// long.
actor RowChannel {
  enum Item: Sendable {
    case rows([UInt8])
    case end
    /// Something has failed: what was loaded is not to be kept.
    case abandoned
  }

  private enum State {
    case open
    case ended
    case abandoned
  }

  private let capacity: Int
  private var pieces: [[UInt8]] = []
  private var state = State.open
  private var takers: [CheckedContinuation<Item, Never>] = []
  private var giver: CheckedContinuation<Void, Never>?

  init(capacity: Int) { self.capacity = capacity }

  /// Hands rows over, and waits while there is no room. False where nobody takes them any more.
  func give(_ rows: [UInt8]) async -> Bool {
    if state == .open, pieces.count >= capacity { await withCheckedContinuation { giver = $0 } }
    guard state == .open else { return false }
    if takers.isEmpty { pieces.append(rows) } else { takers.removeFirst().resume(returning: .rows(rows)) }
    return true
  }

  func take() async -> Item {
    if state == .abandoned { return .abandoned }
    if !pieces.isEmpty {
      let rows = pieces.removeFirst()
      releaseGiver()
      return .rows(rows)
    }
    if state == .ended { return .end }
    return await withCheckedContinuation { takers.append($0) }
  }

  /// No more rows will come.
  func end() { close(.ended, .end) }

  func abandon() {
    pieces = []
    close(.abandoned, .abandoned)
  }

  private func close(_ new: State, _ item: Item) {
    guard state == .open else { return }
    state = new
    // Who waits to take found nothing there.
    for taker in takers { taker.resume(returning: item) }
    takers = []
    releaseGiver()
  }

  private func releaseGiver() {
    giver?.resume()
    giver = nil
  }
}
