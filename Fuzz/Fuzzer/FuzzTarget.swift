import Foundation
import Glibc

/// One parser of bytes that come from outside, and what must hold for all of them. `Fuzz/Corpus/NAME` has its seeds.
struct FuzzTarget: Sendable {
  let name: String
  private let body: @Sendable ([UInt8]) -> Void

  init(_ name: String, _ body: @escaping @Sendable ([UInt8]) -> Void) {
    (self.name, self.body) = (name, body)
  }

  /// Takes an input as text; bytes that are no UTF-8 are repaired, as they are where files are read.
  init(text name: String, _ body: @escaping @Sendable (String) -> Void) {
    self.init(name) { body(String(decoding: $0, as: UTF8.self)) }
  }

  static let all: [FuzzTarget] =
    archiveTargets + sqlTargets + ageTargets + recordTargets + scheduleTargets + edgeTargets + frameTargets

  // Written once, before libFuzzer's only thread runs the first input.
  nonisolated(unsafe) static var selected: FuzzTarget?

  func run(_ input: [UInt8]) { body(Self.amplified(input)) }

  /// What begins with this repeats itself.
  private static let mark: [UInt8] = [0xFF, 0x52, 0x50, 0x54]

  /// Two bytes behind the mark say where the repetition begins, and the rest from there on is repeated up to 128 KiB. So work that grows with the
  /// square of the input's length is seen as a hang, although inputs are small.
  private static func amplified(_ input: [UInt8]) -> [UInt8] {
    guard input.count > 6, input.starts(with: mark) else { return input }
    let rest = input[6...]
    let start = rest.startIndex + (Int(input[4]) << 8 | Int(input[5])) % rest.count
    var result = Array(rest)
    while result.count < 128 << 10 { result += rest[start...] }
    return result
  }

  /// Ends the process where a property does not hold: libFuzzer keeps the input.
  static func require(_ holds: Bool, _ property: String) {
    guard !holds else { return }
    let line = Array("VIOLATED: \(property)\n".utf8)
    _ = write(STDERR_FILENO, line, line.count)
    abort()
  }

  /// A size of pieces that depends on the input alone.
  static func pieceSize(_ input: [UInt8]) -> Int {
    let sizes = [1, 2, 3, 5, 7, 13, 64, 1000]
    let size = sizes[(Int(input.last ?? 0) + input.count) % sizes.count]
    return input.count > 10_000 ? max(size, 64) : size
  }
}

/// libFuzzer's own main function is linked, never called, and wants this name. Nothing in Swift may refer to it, or the optimiser makes a second
/// one of it.
@_cdecl("LLVMFuzzerTestOneInput")
func unusedTest(_ start: UnsafePointer<UInt8>?, _ count: Int) -> CInt { 0 }
