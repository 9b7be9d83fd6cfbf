package import ControlAPI
package import Faults
import Foundation

/// The rights of an account on the control socket. Each includes those before it: a restorer may do what an operator
/// may, and an operator what a reader may.
package enum Role: String, Sendable, CaseIterable, Comparable {
  /// Looks at states, backups, the ledger and plans. Sees names of tables, and no rows.
  case reader
  /// Makes backups and proofs, keeps backups longer, and takes nothing away.
  case `operator`
  /// Reads rows, changes databases, and takes backups away.
  case restorer

  package static func < (left: Role, right: Role) -> Bool { left.rank < right.rank }

  private var rank: Int { Self.allCases.firstIndex(of: self) ?? 0 }
}

/// The process at the other end of the control socket, as the kernel knows it.
package struct Peer: Sendable, Equatable {
  package var uid: UInt32
  package var pid: Int32
  package var gid: UInt32
  /// Supplementary groups, as they were when it connected.
  package var groups: Set<UInt32>

  package init(uid: UInt32, pid: Int32, gid: UInt32, groups: Set<UInt32>) {
    (self.uid, self.pid, self.gid, self.groups) = (uid, pid, gid, groups)
  }

  package var caller: Caller { Caller(uid: uid, pid: pid) }
}

/// Who has which role: a pure value, replaced whole by a reload.
///
/// Groups are the peer's own, from the kernel (SO_PEERCRED and SO_PEERGROUPS of socket(7)), and not asked for by its
/// uid (getgrouplist(3)): these are the groups by which the kernel has just let it open the socket; a name service that
/// hangs holds up no request; and a process that gave up a group has given up the role. So whoever is put into a group
/// has its role from the next login on, as with every file. Names become numbers when the configuration is read.
package struct AccessRules: Sendable, Hashable {
  /// One entry of a role's list.
  package struct Holder: Sendable, Hashable {
    package enum Account: Sendable, Hashable {
      case user(UInt32)
      case group(UInt32)
      /// No such account when the configuration was read: nobody.
      case unknown
    }

    /// As messages name it: `user alice`, `group dba`.
    package var name: String
    package var account: Account

    package init(name: String, account: Account) { (self.name, self.account) = (name, account) }

    fileprivate func covers(_ peer: Peer) -> Bool {
      switch account {
      case .user(let uid): uid == peer.uid
      case .group(let gid): gid == peer.gid || peer.groups.contains(gid)
      case .unknown: false
      }
    }
  }

  /// By role. Nil: everyone who can open the socket has all rights.
  private let holders: [Role: [Holder]]?
  private let ownUser: UInt32

  /// - Parameter ownUser: the daemon's, this process's where nil; it and root may do everything in any case.
  package init(_ holders: [Role: [Holder]]?, ownUser: UInt32? = nil) {
    (self.holders, self.ownUser) = (holders, ownUser ?? geteuid())
  }

  /// Nil where the peer has none.
  package func role(of peer: Peer?) -> Role? {
    guard let holders else { return .restorer }
    // A peer whose credentials can't be read has no role.
    guard let peer else { return nil }
    if peer.uid == 0 || peer.uid == ownUser { return .restorer }
    return Role.allCases.last { role in holders[role]?.contains { $0.covers(peer) } ?? false }
  }

  /// Refuses what a peer's role does not cover: throws `E-NOT-ALLOWED`, which names who may.
  ///
  /// - Parameter deed: what it takes the role for, as a sentence's subject: `Deleting a backup`.
  package func check(_ peer: Peer?, may deed: String, needing needed: Role) throws(Fault) {
    if let role = role(of: peer), role >= needed { return }
    throw Fault(
      .notAllowed, "\(deed) needs the role '\(needed.rawValue)': \(names(of: needed)).",
      hint: "ask one of them, or name yourself in 'daemon: roles:' and reload")
  }

  /// Who has a role, by this or a higher one's list; a few of them.
  private func names(of needed: Role) -> String {
    var names: [String] = []
    for role in Role.allCases.reversed() where role >= needed {
      for holder in holders?[role] ?? [] where !names.contains(holder.name) { names.append(holder.name) }
    }
    guard !names.isEmpty else { return "root and the daemon's own user alone" }
    return names.prefix(6).joined(separator: ", ") + (names.count > 6 ? " and \(names.count - 6) more" : "")
  }

  /// In words, for a reload's report.
  package var text: String {
    guard let holders else { return "off" }
    return Role.allCases.map { role in
      let names = holders[role, default: []].map(\.name).joined(separator: ", ")
      return "\(role.rawValue) \(names.isEmpty ? "nobody" : names)"
    }.joined(separator: "; ")
  }
}

extension Peer {
  /// - Parameter socket: a connected Unix socket, open for the length of the call.
  init(socket: Int32) throws(Fault) {
    var credentials = Credentials()
    var length = socklen_t(MemoryLayout<Credentials>.size)
    guard getsockopt(socket, SOL_SOCKET, SO_PEERCRED, &credentials, &length) == 0 else {
      throw Fault(.internal, "The other end of the socket is not known.", cause: String(cString: strerror(errno)))
    }
    self.init(
      uid: credentials.uid, pid: credentials.pid, gid: credentials.gid, groups: Set(Self.groups(of: socket)))
  }

  /// SO_PEERGROUPS of asm-generic/socket.h (Linux 4.13), by its number: C libraries name it only lately.
  private static let peerGroups: Int32 = 59

  /// None where the kernel does not tell them: fewer rights, and never more.
  private static func groups(of socket: Int32) -> [UInt32] {
    var groups = [UInt32](repeating: 0, count: 64)
    // Twice at most: the kernel says how many there are where there is no room for them (ERANGE).
    for _ in 0..<2 {
      var length = socklen_t(groups.count * MemoryLayout<UInt32>.size)
      if getsockopt(socket, SOL_SOCKET, peerGroups, &groups, &length) == 0 {
        return Array(groups.prefix(Int(length) / MemoryLayout<UInt32>.size))
      }
      // NGROUPS_MAX of linux/limits.h.
      guard errno == ERANGE, length <= 65_536 * 4 else { return [] }
      groups = [UInt32](repeating: 0, count: Int(length) / MemoryLayout<UInt32>.size)
    }
    return []
  }

  /// `struct ucred` of <sys/socket.h>, field by field.
  private struct Credentials {
    var pid: Int32 = 0
    var uid: UInt32 = 0
    var gid: UInt32 = 0
  }
}
