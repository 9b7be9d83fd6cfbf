import NIOCore
import Synchronization

/// The connections of a socket. There is a bound, and who comes beyond it pushes out the one that has idled longest: a client that
/// hangs or floods can't keep the others out.
final class OpenConnections: Sendable {
  private struct Connection {
    let channel: any Channel
    let number: Int
    var requests = 0
  }

  private struct State {
    var connections: [ObjectIdentifier: Connection] = [:]
    var last = 0
  }

  /// More than operators and monitors need, and few enough to cost nothing.
  private static let limit = 64

  private let state = Mutex(State())

  func add(_ channel: any Channel) {
    let victim: (any Channel)? = state.withLock { state in
      state.last += 1
      state.connections[ObjectIdentifier(channel)] = Connection(channel: channel, number: state.last)
      guard state.connections.count > Self.limit else { return nil }
      let idle = state.connections.filter { $0.value.requests == 0 }.min { $0.value.number < $1.value.number }
      return idle.flatMap { state.connections.removeValue(forKey: $0.key) }?.channel ?? channel
    }
    victim?.close(promise: nil)
  }

  func remove(_ channel: any Channel) {
    state.withLock { _ = $0.connections.removeValue(forKey: ObjectIdentifier(channel)) }
  }

  func beginRequest(_ channel: any Channel) {
    state.withLock { $0.connections[ObjectIdentifier(channel)]?.requests += 1 }
  }

  func endRequest(_ channel: any Channel) {
    state.withLock { $0.connections[ObjectIdentifier(channel)]?.requests -= 1 }
  }
}
