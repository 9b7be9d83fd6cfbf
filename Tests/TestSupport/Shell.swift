import Foundation
import Glibc

/// A program's run in a test.
package struct Shell {
  package struct Result: Sendable {
    package let status: Int32
    package let output: String
    package let errors: String
  }

  package struct Failure: Error, CustomStringConvertible {
    package let description: String
    package init(description: String) { self.description = description }
  }

  /// Runs a program to its end. Output goes through files, so that no pipe can fill up.
  @discardableResult
  package static func run(
    _ program: String, _ arguments: [String], environment: [String: String] = [:], input: String? = nil
  ) throws -> Result {
    let folder = TemporaryFolder()
    _ = try folder.write("in", input ?? "")
    let descriptors = [
      open(folder.file("in"), O_RDONLY | O_CLOEXEC), open(folder.file("out"), O_RDWR | O_CREAT | O_CLOEXEC, 0o600),
      open(folder.file("err"), O_RDWR | O_CREAT | O_CLOEXEC, 0o600),
    ]
    defer { descriptors.forEach { _ = close($0) } }
    let child = try ChildProcess(
      program, arguments, environment: environment, input: descriptors[0], output: descriptors[1],
      errors: descriptors[2])
    return Result(
      status: child.wait(), output: try String(contentsOfFile: folder.file("out"), encoding: .utf8),
      errors: try String(contentsOfFile: folder.file("err"), encoding: .utf8))
  }

  /// Runs a program that must succeed.
  @discardableResult
  package static func must(
    _ program: String, _ arguments: [String], environment: [String: String] = [:], input: String? = nil
  ) throws -> String {
    let result = try run(program, arguments, environment: environment, input: input)
    guard result.status == 0 else {
      throw Failure(
        description: "\(program) \(arguments.joined(separator: " ")) ended with \(result.status): \(result.errors)")
    }
    return result.output
  }
}
