package import CronSchedule
import Foundation

extension ZoneRules {
  /// A zone as this machine's tzdata has it.
  package static func system(_ name: String) throws -> ZoneRules {
    try ZoneRules(identifier: name, file: [UInt8](Data(contentsOf: URL(filePath: "/usr/share/zoneinfo/\(name)"))))
  }
}
