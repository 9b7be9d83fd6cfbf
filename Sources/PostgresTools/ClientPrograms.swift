package import Faults
import Foundation
import Glibc
import Quoting

/// A PostgreSQL client program of a known version.
package struct ClientProgram: Sendable, Hashable {
  package let path: String
  /// What `--version` printed: `pg_dump (PostgreSQL) 15.18 (Debian …)`.
  package let versionText: String
  package let major: Int
}

/// Finds pg_dump and its siblings of the right major version.
///
/// A client must not be older than the server (pg_dump refuses), and one of the same major is best: what it writes loads into
/// that server without surprises. So the lowest major from the server's on is taken.
package struct ClientPrograms: Sendable {
  /// More folders, from the configuration; of two programs of the same major, the one found there is taken.
  package let configured: [String]

  package init(configured: [String] = []) { self.configured = configured }

  /// The folders in order: configured, Debian's and Red Hat's per-version folders, PATH.
  private var folders: [String] {
    let versioned = ["/usr/lib/postgresql", "/usr"].flatMap { root in
      ((try? FileManager.default.contentsOfDirectory(atPath: root)) ?? []).filter {
        root != "/usr" || $0.starts(withBytes: "pgsql-")
      }.sorted().map {
        "\(root)/\($0)/bin"
      }
    }
    let path = getenv("PATH").map { String(cString: $0) } ?? ""
    var seen: Set<String> = []
    return (configured + versioned + path.split(separator: ":").map(String.init)).filter { seen.insert($0).inserted }
  }

  /// The program `name` for a server of `major`.
  package func program(_ name: String, forServer major: Int) async throws(Fault) -> ClientProgram {
    var found: [ClientProgram] = []
    for folder in folders {
      let path = "\(folder)/\(name)"
      guard access(path, X_OK) == 0, let program = await Self.inspect(path) else { continue }
      if program.major == major { return program }
      found.append(program)
    }
    if let best = found.filter({ $0.major > major }).min(by: { $0.major < $1.major }) { return best }
    guard let newest = found.max(by: { $0.major < $1.major }) else {
      throw Fault(
        .toolMissing, "\(name) is not installed.", cause: "looked in " + folders.joined(separator: ", "),
        hint: "apt install postgresql-client-\(major), or set 'programs' in the configuration")
    }
    throw Fault(
      .toolTooOld, "The newest \(name) here is \(newest.major), older than the server's \(major).", cause: newest.path,
      hint: "apt install postgresql-client-\(major), or set 'programs' in the configuration")
  }

  /// The newest there is.
  package func newest(_ name: String) async throws(Fault) -> ClientProgram {
    var best: ClientProgram?
    for folder in folders {
      let path = "\(folder)/\(name)"
      guard access(path, X_OK) == 0, let program = await Self.inspect(path) else { continue }
      if program.major > best?.major ?? 0 { best = program }
    }
    if let best { return best }
    return try await program(name, forServer: 0)
  }

  private static func inspect(_ path: String) async -> ClientProgram? {
    guard let output = try? await ClientProcess(path: path, arguments: ["--version"]).capture(limit: 4096),
      output.status.isSuccess
    else { return nil }
    let text =
      String(decoding: output.standardOutput, as: UTF8.self).split(separator: "\n").first.map(String.init) ?? ""
    // `pg_dump (PostgreSQL) 18beta1`: the digits after the closing parenthesis.
    guard let version = text.split(separator: " ").dropFirst(2).first,
      let major = Int(version.prefix { $0.isNumber })
    else { return nil }
    return ClientProgram(path: path, versionText: text, major: major)
  }
}
