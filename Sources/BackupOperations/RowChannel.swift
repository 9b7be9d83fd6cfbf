/// Rows on their way from one reader to several loaders: a few pieces at most, so that memory stays bounded.
///
/// A piece may end inside a row, however long that row is. The next piece then goes to the same loader, and the others
/// wait: each connection's COPY gets whole rows.
actor RowChannel {
  enum Item: Sendable {
    /// With `isUnfinished`, the last row goes on in the next piece: whoever has this one takes that one too.
    case rows([UInt8], isUnfinished: Bool)
    case end
    /// Something has failed: what was loaded is not to be kept.
    case abandoned
  }

  private enum State {
    case open
    case ended
    case abandoned
  }

  private struct Piece {
    let rows: [UInt8]
    let isUnfinished: Bool
  }

  private struct Taker {
    let number: Int
    let continuation: CheckedContinuation<Item, Never>
  }

  private let capacity: Int
  private var pieces: [Piece] = []
  private var state = State.open
  private var takers: [Taker] = []
  private var giver: CheckedContinuation<Void, Never>?
  /// The loader that has the beginning of a row, and gets the rest.
  private var owner: Int?

  init(capacity: Int) { self.capacity = capacity }

  /// Hands a piece over, and waits while there is no room.
  ///
  /// - Parameter isUnfinished: its last row goes on in the next piece.
  /// - Returns: false where no loader takes rows any more.
  func give(_ rows: [UInt8], isUnfinished: Bool) async -> Bool {
    if state == .open, pieces.count >= capacity { await withCheckedContinuation { giver = $0 } }
    guard state == .open else { return false }
    pieces.append(Piece(rows: rows, isUnfinished: isUnfinished))
    serve()
    return true
  }

  /// The next piece for a loader.
  ///
  /// - Parameter number: the loader's own.
  func take(as number: Int) async -> Item {
    if state == .abandoned { return .abandoned }
    if state == .ended, pieces.isEmpty { return .end }
    return await withCheckedContinuation { continuation in
      takers.append(Taker(number: number, continuation: continuation))
      serve()
    }
  }

  /// Gives pieces, in order, to loaders that wait: to the owner of an unfinished row alone.
  private func serve() {
    while let piece = pieces.first, let place = takers.firstIndex(where: { owner == nil || owner == $0.number }) {
      let taker = takers.remove(at: place)
      pieces.removeFirst()
      owner = piece.isUnfinished ? taker.number : nil
      taker.continuation.resume(returning: .rows(piece.rows, isUnfinished: piece.isUnfinished))
      releaseGiver()
    }
    guard state == .ended, pieces.isEmpty else { return }
    release(.end)
  }

  /// No more rows will come.
  func end() {
    guard state == .open else { return }
    state = .ended
    serve()
  }

  func abandon() {
    guard state != .abandoned else { return }
    state = .abandoned
    pieces = []
    release(.abandoned)
    releaseGiver()
  }

  private func release(_ item: Item) {
    for taker in takers { taker.continuation.resume(returning: item) }
    takers = []
  }

  private func releaseGiver() {
    giver?.resume()
    giver = nil
  }
}
