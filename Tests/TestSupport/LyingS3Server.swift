import Foundation
import Glibc

/// An S3 server that lies in its listings, as the bucket's name says (`lying_s3.py`). It ends with the process that
/// started it.
package final class LyingS3Server: Sendable {
  package let port: Int
  private let process: ChildProcess
  private let questions: Int32
  private let answers = LinePipe()

  package var endpoint: String { "http://127.0.0.1:\(port)" }

  package init() throws {
    let (reader, writer) = makePipe()
    questions = writer
    process = try ChildProcess(
      "python3", ["\(repositoryRoot)/Tests/TestSupport/lying_s3.py"], input: reader, output: answers.writer)
    close(reader)
    answers.closeWriter()
    guard let line = answers.next(), let number = Int(line) else {
      throw Shell.Failure(description: "the lying server did not start")
    }
    port = number
  }

  deinit {
    close(questions)
    _ = process.wait()
  }

  /// Requests so far.
  package func requests() throws -> Int {
    var newline: UInt8 = 10
    guard write(questions, &newline, 1) == 1, let line = answers.next(), let number = Int(line) else {
      throw Shell.Failure(description: "the lying server has ended")
    }
    return number
  }
}
