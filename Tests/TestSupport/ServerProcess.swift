import Foundation
import Glibc
import Synchronization

/// A server program that ends with the process that started it, however that ends: a shell holds it, and waits for the end of its own
/// input, which is a pipe of ours. It prints into `log` of its folder.
final class ServerProcess: Sendable {
  /// It has ended by itself: that may be because somebody else has its port.
  struct HasEnded: Error, CustomStringConvertible {
    let description: String
  }

  private let folder: TemporaryFolder
  private let keeper: ChildProcess
  private let lifeline: Int32
  private let isRunning = Atomic(true)

  /// - Parameters:
  ///   - ending: words of a shell that end it, by its number `$server`. Its folder is `$folder`.
  ///   - after: what is done then; the folder goes last.
  init(
    _ command: [String], in folder: TemporaryFolder, environment: [String: String] = [:],
    ending: String = "kill -KILL $server", after: String = ":"
  ) throws {
    self.folder = folder
    let (reader, writer) = makePipe()
    lifeline = writer
    keeper = try ChildProcess(
      "/bin/sh",
      [
        "-c",
        #"folder=$1; shift; "$@" >"$folder/log" 2>&1 </dev/null & server=$!; echo $server >"$folder/number"; "#
          + #"cat >/dev/null; \#(ending); wait $server; \#(after); rm -rf "$folder""#,
        "sh", folder.path,
      ] + command, environment: environment, input: reader)
    close(reader)
  }

  deinit { stop() }

  /// Waits until it answers.
  ///
  /// - Throws: `HasEnded` where it never will.
  func waitUntilReady(_ name: String, within limit: Duration = .seconds(180), _ isReady: () throws -> Bool) throws {
    try eventually("\(name) answers; its log:\n\(log.suffix(3000))", within: limit) {
      let isReady = try isReady()
      // Else it is another one that answers.
      guard !hasEnded else { throw HasEnded(description: "\(name) has ended; its log:\n\(log.suffix(3000))") }
      return isReady
    }
  }

  private var log: String { (try? String(contentsOfFile: folder.file("log"), encoding: .utf8)) ?? "none" }

  private var hasEnded: Bool {
    guard let text = try? String(contentsOfFile: folder.file("number"), encoding: .utf8),
      let number = Int32(text.filter(\.isNumber))
    else { return false }
    return kill(number, 0) != 0
  }

  func stop() {
    guard isRunning.exchange(false, ordering: .relaxed) else { return }
    close(lifeline)
    keeper.wait()
  }
}
