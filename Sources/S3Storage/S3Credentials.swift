package import Foundation
import Quoting
package import Units

/// What signs requests.
package struct S3Credentials: Sendable, Hashable {
  package var accessKey: String
  package var secretKey: Secret
  /// Of temporary credentials.
  package var sessionToken: Secret?
  /// When they end; nil for lasting ones.
  package var expires: Date?

  package init(accessKey: String, secretKey: Secret, sessionToken: Secret? = nil, expires: Date? = nil) {
    self.accessKey = accessKey
    self.secretKey = secretKey
    self.sessionToken = sessionToken
    self.expires = expires
  }
}

/// Where no credentials come from, and why; for people.
package struct CredentialsError: Error, Sendable, Equatable {
  package let reason: String
}

/// The files that hold them, where they are not in the configuration itself.
package struct S3CredentialFiles: Sendable, Hashable {
  package var accessKey: String?
  package var secretKey: String?
  package var sessionToken: String?

  package init(accessKey: String? = nil, secretKey: String? = nil, sessionToken: String? = nil) {
    (self.accessKey, self.secretKey, self.sessionToken) = (accessKey, secretKey, sessionToken)
  }
}

/// The credentials in force: asked for when they are first needed, and again five minutes before they end. Everybody who comes
/// meanwhile waits for the same answer.
actor CredentialKeeper {
  private let sources: [any CredentialSource]
  private var current: S3Credentials?
  /// When the current ones are to be renewed; nil for lasting ones.
  private var renewal: Date?
  private var asking: Task<Result<S3Credentials, CredentialsError>, Never>?

  /// AWS renews instance credentials five minutes before their end at the latest. What lives shorter has half of its life.
  private static let margin: TimeInterval = 300

  init(_ sources: [any CredentialSource]) { self.sources = sources }

  /// - Parameter refused: credentials that the server took for expired; others are looked for.
  func credentials(at now: Date, refused: S3Credentials? = nil) async throws(CredentialsError) -> S3Credentials {
    if let current, current != refused, renewal.map({ now < $0 }) ?? true { return current }
    // Everybody waits for the one answer, and then looks at it: it may be the one that was refused.
    if let asking {
      let found = try await asking.value.get()
      if found != refused { return found }
    }
    let asked = Task { () -> Result<S3Credentials, CredentialsError> in
      do throws(CredentialsError) {
        return .success(try await self.ask(at: now, refused: refused))
      } catch {
        return .failure(error)
      }
    }
    asking = asked
    defer { if asking == asked { asking = nil } }
    return try await asked.value.get()
  }

  private func ask(at now: Date, refused: S3Credentials?) async throws(CredentialsError) -> S3Credentials {
    var reasons: [String] = []
    for source in sources {
      do throws(CredentialsError) {
        guard let found = try await source.credentials(at: now) else { continue }
        current = found
        renewal = found.expires.map { $0.addingTimeInterval(-min(Self.margin, $0.timeIntervalSince(now) / 2)) }
        return found
      } catch {
        reasons.append(error.reason)
      }
    }
    // Those that still hold for a while are better than none.
    if let current, current != refused, current.expires.map({ now < $0 }) ?? true { return current }
    throw CredentialsError(
      reason: reasons.isEmpty
        ? "no credentials: none in the configuration, the environment, a shared profile, or of this machine"
        : reasons.joined(separator: "; "))
  }
}

/// One place where credentials may come from.
protocol CredentialSource: Sendable {
  /// Nil where this place is not set up; throws where it is and gives none.
  func credentials(at now: Date) async throws(CredentialsError) -> S3Credentials?
}

/// Given in the configuration, or in files that it names: those are read anew each time, since somebody may renew them.
struct ConfiguredCredentials: CredentialSource {
  let value: S3Credentials
  let files: S3CredentialFiles
  let readFile: @Sendable (String) throws -> String

  func credentials(at now: Date) async throws(CredentialsError) -> S3Credentials? {
    S3Credentials(
      accessKey: try text(files.accessKey) ?? value.accessKey,
      secretKey: try text(files.secretKey).map(Secret.init) ?? value.secretKey,
      sessionToken: try text(files.sessionToken).map(Secret.init) ?? value.sessionToken)
  }

  private func text(_ path: String?) throws(CredentialsError) -> String? {
    guard let path else { return nil }
    do {
      return try readFile(path).lines.first
        .map(String.init) ?? ""
    } catch {
      throw CredentialsError(reason: "'\(path)' can't be read: \(error.localizedDescription)")
    }
  }
}
