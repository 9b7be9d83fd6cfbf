import Foundation

/// Accounts of this machine by their names (getpwnam_r(3), getgrnam_r(3)): from its files or a name service, as the
/// system has it.
package enum SystemAccounts {
  /// A user's or a group's number; nil where there is none of that name, or the name service does not answer. As for
  /// chown(1), digits that are no name are a number.
  @Sendable package static func number(_ kind: Configuration.Account.Kind, _ name: String) -> UInt32? {
    switch kind {
    case .user: user(named: name)?.uid ?? UInt32(name)
    case .group: group(named: name) ?? UInt32(name)
    }
  }

  /// The user whose own group this is: Debian makes one of the same name with each system account.
  static func user(ofGroup gid: UInt32) -> String? {
    guard let name = groupName(gid), let user = user(named: name), user.gid == gid else { return nil }
    return name
  }

  /// Enough for a group with thousands of members, whose names come along.
  private static let bufferSizes = [4 << 10, 64 << 10, 1 << 20]

  private static func user(named name: String) -> (uid: UInt32, gid: UInt32)? {
    for size in bufferSizes {
      var (entry, found) = (passwd(), nil as UnsafeMutablePointer<passwd>?)
      var buffer = [CChar](repeating: 0, count: size)
      let code = getpwnam_r(name, &entry, &buffer, size, &found)
      if code == ERANGE { continue }
      return code == 0 && found != nil ? (entry.pw_uid, entry.pw_gid) : nil
    }
    return nil
  }

  private static func group(named name: String) -> UInt32? {
    for size in bufferSizes {
      var (entry, found) = (Foundation.group(), nil as UnsafeMutablePointer<Foundation.group>?)
      var buffer = [CChar](repeating: 0, count: size)
      let code = getgrnam_r(name, &entry, &buffer, size, &found)
      if code == ERANGE { continue }
      return code == 0 && found != nil ? entry.gr_gid : nil
    }
    return nil
  }

  private static func groupName(_ gid: UInt32) -> String? {
    for size in bufferSizes {
      var (entry, found) = (Foundation.group(), nil as UnsafeMutablePointer<Foundation.group>?)
      var buffer = [CChar](repeating: 0, count: size)
      // `gr_name` lies in the buffer, and is copied while that lives.
      let name = buffer.withUnsafeMutableBufferPointer { buffer -> (code: Int32, name: String?) in
        let code = getgrgid_r(gid, &entry, buffer.baseAddress, size, &found)
        return (code, code == 0 && found != nil ? entry.gr_name.map { String(cString: $0) } : nil)
      }
      if name.code == ERANGE { continue }
      return name.name
    }
    return nil
  }
}
