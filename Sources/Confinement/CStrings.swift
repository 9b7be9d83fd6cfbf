import Glibc

/// The texts as C has lists of them, ended by a null pointer, for as long as `body` runs.
package func withCStrings<Value>(
  _ texts: [String], _ body: (UnsafePointer<UnsafeMutablePointer<CChar>?>) throws -> Value
) rethrows -> Value {
  let copies = texts.map { strdup($0) } + [nil]
  defer { for copy in copies { free(copy) } }
  return try copies.withUnsafeBufferPointer { list in
    // Never empty: the null pointer is in it.
    guard let base = list.baseAddress else { preconditionFailure("a list of at least one") }
    return try body(base)
  }
}
