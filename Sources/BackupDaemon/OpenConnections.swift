import NIOCore
import Synchronization

/// The connections of a socket. There is a bound; who comes beyond it pushes out another one: of the user who has the most, the one that
/// has idled longest, or else the one whose request has taken longest. A client that hangs, floods or never reads can't keep the others
/// out.
final class OpenConnections: Sendable {
  private struct Connection {
    let channel: any Channel
    let uid: UInt32?
    /// Counts up: when it came, or when its last request began or ended.
    var number: Int
    var requests = 0
  }

  private struct State {
    var connections: [ObjectIdentifier: Connection] = [:]
    var last = 0
    /// The most at once since there was none.
    var peak = 0

    mutating func next() -> Int {
      last += 1
      return last
    }
  }

  /// More than operators and monitors need, and few enough to cost nothing.
  private static let limit = 64
  private static let many = 8

  private let state = Mutex(State())

  /// - Parameter uid: who is at the other end, as the kernel knows it.
  func add(_ channel: any Channel, of uid: UInt32?) {
    let victim: (any Channel)? = state.withLock { state in
      let own = ObjectIdentifier(channel)
      state.connections[own] = Connection(channel: channel, uid: uid, number: state.next())
      state.peak = max(state.peak, state.connections.count)
      guard state.connections.count > Self.limit else { return nil }
      let most = Dictionary(grouping: state.connections.values, by: \.uid).max {
        ($0.value.count, $0.key ?? 0) < ($1.value.count, $1.key ?? 0)
      }?.key
      let victim = state.connections.filter { $0.key != own && $0.value.uid == most }
        .min { ($0.value.requests > 0 ? 1 : 0, $0.value.number) < ($1.value.requests > 0 ? 1 : 0, $1.value.number) }
      return victim.flatMap { state.connections.removeValue(forKey: $0.key) }?.channel
    }
    victim?.close(promise: nil)
  }

  /// Returns whether that was the last of many.
  func remove(_ channel: any Channel) -> Bool {
    state.withLock { state in
      state.connections[ObjectIdentifier(channel)] = nil
      guard state.connections.isEmpty else { return false }
      defer { state.peak = 0 }
      return state.peak > Self.many
    }
  }

  func beginRequest(_ channel: any Channel) { count(channel, 1) }
  func endRequest(_ channel: any Channel) { count(channel, -1) }

  private func count(_ channel: any Channel, _ change: Int) {
    state.withLock { state in
      let number = state.next()
      state.connections[ObjectIdentifier(channel)]?.requests += change
      state.connections[ObjectIdentifier(channel)]?.number = number
    }
  }
}
