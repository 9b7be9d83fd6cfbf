package import Faults

/// What a store can fail with, in the terms of the contract.
package struct StorageError: Error, Sendable, Equatable {
  package enum Kind: Sendable, Equatable {
    /// No such object.
    case missing
    /// The key is taken.
    case exists
    /// No room: the disk, a quota.
    case full
    /// The store itself is not there: an unmounted directory, an unknown bucket.
    case storeMissing
    /// Nobody answers: the network, the server.
    case unreachable
    /// Its certificate is not one that we trust.
    case untrusted
    /// The store takes no writes, or not from us.
    case denied
    /// Anything else; another try may succeed.
    case failed
  }

  package let kind: Kind
  package let store: String
  package let key: String?
  /// The system's or the server's own words.
  package let reason: String

  package init(_ kind: Kind, store: String, key: ObjectKey? = nil, reason: String) {
    self.kind = kind
    self.store = store
    self.key = key?.path
    self.reason = reason
  }
}

extension StorageError {
  /// As the operator sees it.
  package var fault: Fault {
    let place = key.map { "'\($0)' in store '\(store)'" } ?? "store '\(store)'"
    return switch kind {
    case .missing:
      Fault(.objectMissing, "There is no object \(place).", cause: reason, hint: "pgbackupctl reconcile")
    case .exists:
      Fault(
        .storeConflict, "The object \(place) exists already, and stored objects are never overwritten.", cause: reason,
        hint: "pgbackupctl list")
    case .full:
      Fault(
        .storeFull, "No room is left in store '\(store)'; what was being written was removed again.", cause: reason,
        hint: "free space there, or shorten 'keep' and run: pgbackupctl reconcile --apply")
    case .storeMissing:
      Fault(
        .storeMissing, "The store '\(store)' is not there.", cause: reason,
        hint: "mount or create it, then: pgbackupctl status")
    case .unreachable:
      Fault(
        .storeUnreachable, "The store '\(store)' can't be reached.", cause: reason,
        hint: "look at its server and the network, then: pgbackupctl status")
    case .untrusted:
      Fault(
        .storeUntrusted, "The certificate of store '\(store)' is not trusted.", cause: reason,
        hint: "name its authority: 'ca_file' of the store")
    case .denied:
      Fault(
        .storeReadOnly, "The store '\(store)' does not let pgbackupd write or read.", cause: reason,
        hint:
          "look at the directory's owner (pgbackupd's user, mode 0700), or the bucket's credentials and policy, and the proxy's"
      )
    case .failed:
      Fault(.storeFailed, "Working on \(place) failed.", cause: reason, hint: "pgbackupctl status")
    }
  }
}
