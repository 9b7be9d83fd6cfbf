package import Faults
package import Logging

/// Log lines of a known kind.
extension Logger {
  package func notice(_ event: JournalEvent, _ message: Message, metadata: Metadata = [:]) {
    log(level: .notice, message, metadata: metadata.about(event))
  }

  package func info(_ event: JournalEvent, _ message: Message, metadata: Metadata = [:]) {
    log(level: .info, message, metadata: metadata.about(event))
  }

  package func warning(_ event: JournalEvent, _ message: Message, metadata: Metadata = [:]) {
    log(level: .warning, message, metadata: metadata.about(event))
  }

  package func critical(_ event: JournalEvent, _ message: Message, metadata: Metadata = [:]) {
    log(level: .critical, message, metadata: metadata.about(event))
  }

  package func warning(_ event: JournalEvent, _ fault: Fault, metadata: Metadata = [:]) {
    log(level: .warning, "\(fault.message)", metadata: metadata.about(event).merging(fault.fields) { $1 })
  }

  package func error(_ event: JournalEvent, _ fault: Fault, metadata: Metadata = [:]) {
    log(level: .error, "\(fault.message)", metadata: metadata.about(event).merging(fault.fields) { $1 })
  }
}

extension Logger.Metadata {
  /// The key under which a handler finds the event; it is not shown among the fields.
  static let eventKey = "event"

  fileprivate func about(_ event: JournalEvent) -> Logger.Metadata {
    merging([Self.eventKey: "\(event.messageID)"]) { $1 }
  }
}

extension Fault {
  fileprivate var fields: Logger.Metadata {
    var fields: Logger.Metadata = ["error": "\(code.rawValue)"]
    if let cause, !cause.isEmpty { fields["cause"] = "\(cause)" }
    if let hint { fields["next"] = "\(hint)" }
    return fields
  }
}
