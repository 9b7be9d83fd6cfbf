package import CronSchedule
package import Faults
import Foundation
import Glibc
import Quoting
import Synchronization

/// The zone files of this machine (tzdata, tzfile(5)). What was read is kept until its file changes, so that asking again costs
/// one stat(2).
package final class SystemZones: Sendable {
  private struct Stamp: Equatable {
    var inode: UInt64
    var size: UInt64
    var changed: Date

    init?(_ attributes: [FileAttributeKey: Any]) {
      guard let inode = attributes[.systemFileNumber] as? NSNumber, let size = attributes[.size] as? NSNumber,
        let changed = attributes[.modificationDate] as? Date
      else { return nil }
      (self.inode, self.size, self.changed) = (inode.uint64Value, size.uint64Value, changed)
    }
  }

  private let directory: String
  private let localTime: String
  private let variable: String?
  private let cache = Mutex<[String: (stamp: Stamp, rules: ZoneRules)]>([:])

  package static let standard = SystemZones(
    directory: "/usr/share/zoneinfo", localTime: "/etc/localtime", variable: ProcessInfo.processInfo.environment["TZ"])

  /// - Parameter variable: the environment's `TZ`, which names the local zone before `localTime` does.
  package init(directory: String, localTime: String, variable: String?) {
    self.directory = directory
    self.localTime = localTime
    self.variable = variable
  }

  /// The zone of a name such as `Europe/Berlin`, as its file says now.
  package func zone(_ identifier: String) throws(Fault) -> ZoneRules {
    // `Etc/UTC` and the like are files too; this one must not depend on any.
    if identifier == "UTC" { return .utc }
    let parts = identifier.split(separator: "/", omittingEmptySubsequences: false)
    guard parts.allSatisfy({ !$0.isEmpty && !$0.starts(withBytes: ".") }), identifier.utf8.count < 100 else {
      throw Self.missing(identifier)
    }
    guard let path = Self.realPath("\(directory)/\(identifier)") else { throw Self.missing(identifier) }
    return try read(path, as: identifier)
  }

  /// The zone that this machine's clock shows: `TZ`, `/etc/localtime`, or UTC where neither says.
  package func local() -> ZoneRules {
    let name = variable.map { $0.starts(withBytes: ":") ? String($0.dropFirst()) : $0 }
    if let name, !name.isEmpty {
      // localtime(3) takes a TZ that it can't read for UTC, too.
      return (try? zone(name)) ?? .utc
    }
    guard let path = Self.realPath(localTime) else { return .utc }
    let root = (Self.realPath(directory) ?? directory) + "/"
    let identifier = path.rest(after: root).map(String.init) ?? "localtime"
    return (try? read(path, as: identifier)) ?? .utc
  }

  /// realpath(3): a zone may be a link to another one, and /etc/localtime is one to its zone.
  private static func realPath(_ path: String) -> String? {
    guard let target = realpath(path, nil) else { return nil }
    defer { free(target) }
    return String(cString: target)
  }

  private func read(_ path: String, as identifier: String) throws(Fault) -> ZoneRules {
    guard let attributes = try? FileManager.default.attributesOfItem(atPath: path),
      attributes[.type] as? FileAttributeType == .typeRegular,
      let stamp = Stamp(attributes)
    else { throw Self.missing(identifier) }
    if let known = cache.withLock({ $0[path] }), known.stamp == stamp, known.rules.identifier == identifier {
      return known.rules
    }
    guard stamp.size < 1 << 20, let data = FileManager.default.contents(atPath: path) else {
      throw Self.missing(identifier)
    }
    let rules: ZoneRules
    do throws(ZoneFileError) {
      rules = try ZoneRules(identifier: identifier, file: [UInt8](data))
    } catch {
      throw Fault(
        .configInvalid, "The zone file '\(path)' can't be used: \(error).", hint: "reinstall the package tzdata")
    }
    cache.withLock { $0[path] = (stamp, rules) }
    return rules
  }

  private static func missing(_ identifier: String) -> Fault {
    Fault(.configInvalid, "'\(identifier)' is no time zone", hint: "timedatectl list-timezones")
  }
}
