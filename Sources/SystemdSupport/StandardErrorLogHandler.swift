import Glibc
package import Logging

/// Log lines on standard error: with the `<N>` priority that journald reads (sd-daemon(3)) where standard error leads to the
/// journal, plain elsewhere. Fields follow the sentence as `key=value`.
package struct StandardErrorLogHandler: LogHandler {
  package var metadata: Logger.Metadata = [:]
  package var logLevel: Logger.Level
  private let withPriority: Bool

  package init(level: Logger.Level) {
    logLevel = level
    withPriority = getenv("JOURNAL_STREAM") != nil
  }

  package subscript(metadataKey key: String) -> Logger.Metadata.Value? {
    get { metadata[key] }
    set { metadata[key] = newValue }
  }

  package func log(event: LogEvent) {
    let fields = metadata.merging(event.metadata ?? [:]) { $1 }.sorted { $0.key < $1.key }
      .map { " \($0.key)=\(Self.quoted("\($0.value)"))" }.joined()
    let prefix = withPriority ? "<\(Self.priority(event.level))>" : "\(event.level.rawValue): "
    // One write(2): lines of several threads don't mix.
    let line = Array("\(prefix)\(event.message)\(fields)\n".utf8)
    _ = write(2, line, line.count)
  }

  /// syslog(3)'s numbers.
  private static func priority(_ level: Logger.Level) -> Int {
    switch level {
    case .trace, .debug: 7
    case .info: 6
    case .notice: 5
    case .warning: 4
    case .error: 3
    case .critical: 2
    }
  }

  private static func quoted(_ text: String) -> String {
    let plain = text.replacing("\n", with: "\\n")
    return plain.contains(" ") ? "\"\(plain.replacing("\"", with: "'"))\"" : plain
  }
}
