package import Dispatch

extension DispatchQueue {
  /// Runs work that blocks on this queue instead of on the cooperative pool, whose few threads must never wait.
  package func blocking<Value: Sendable>(_ work: @escaping @Sendable () throws -> Value) async throws -> Value {
    try await withCheckedThrowingContinuation { continuation in
      self.async { @Sendable in continuation.resume(with: Result { try work() }) }
    }
  }
}
