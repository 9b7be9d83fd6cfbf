import Foundation

/// A program's run in a test.
package struct Shell {
  package struct Result: Sendable {
    package let status: Int32
    package let output: String
    package let errors: String
  }

  package struct Failure: Error, CustomStringConvertible {
    package let description: String
  }

  /// Runs a program to its end. Output goes through files, so that no pipe can fill up.
  @discardableResult
  package static func run(
    _ program: String, _ arguments: [String], environment: [String: String] = [:], input: String? = nil
  ) throws -> Result {
    let folder = TemporaryFolder()
    let process = Process()
    process.executableURL = URL(filePath: "/usr/bin/env")
    process.arguments = [program] + arguments
    process.environment = ProcessInfo.processInfo.environment.merging(environment) { $1 }
    _ = FileManager.default.createFile(atPath: folder.file("out"), contents: nil)
    _ = FileManager.default.createFile(atPath: folder.file("err"), contents: nil)
    process.standardOutput = FileHandle(forWritingAtPath: folder.file("out"))
    process.standardError = FileHandle(forWritingAtPath: folder.file("err"))
    process.standardInput = FileHandle(forReadingAtPath: try folder.write("in", input ?? ""))
    try process.run()
    process.waitUntilExit()
    return Result(
      status: process.terminationReason == .exit ? process.terminationStatus : -process.terminationStatus,
      output: try String(contentsOfFile: folder.file("out"), encoding: .utf8),
      errors: try String(contentsOfFile: folder.file("err"), encoding: .utf8))
  }

  /// Runs a program that must succeed.
  @discardableResult
  package static func must(
    _ program: String, _ arguments: [String], environment: [String: String] = [:], input: String? = nil
  ) throws -> String {
    let result = try run(program, arguments, environment: environment, input: input)
    guard result.status == 0 else {
      throw Failure(description: "\(program) \(arguments.joined(separator: " ")) ended with \(result.status): \(result.errors)")
    }
    return result.output
  }
}
