import PostgresArchive
import Synchronization

/// What the proving tasks find.
final class ProofFindings: Sendable {
  /// A partition whose rows were loaded through its root: which partition a row is in now is the server's choice, which may be another
  /// one than before (the hash of an enumeration's value is that of its OID).
  struct Partition {
    let name: String
    let rows: Int64
    let fingerprint: Fingerprint
    let columns: String
  }

  fileprivate struct Root {
    var partitions: [Partition] = []
    var found: [(rows: Int64, fingerprint: Fingerprint)] = []
  }

  fileprivate struct State {
    var result = RestoreProof.Result()
    var differences: [String] = []
    var roots: [String: Root] = [:]
  }

  private let state = Mutex(State())

  var value: (RestoreProof.Result, [String]) { state.withLock { ($0.result, $0.differences) } }

  func leave(_ name: String, _ reason: String) { state.withLock { $0.result.unproved.append("\(name): \(reason)") } }
  func differ(_ what: String) { state.withLock { $0.differences.append(what) } }

  func tell(_ name: String, rows: (Int64, Int64), isSame: Bool) {
    state.withLock { $0.tell(name, rows: rows, isSame: isSame) }
  }

  func tell(_ partition: Partition, of root: String, found: (rows: Int64, fingerprint: Fingerprint)) {
    state.withLock { state in
      state.roots[root, default: Root()].partitions.append(partition)
      state.roots[root]?.found.append(found)
    }
  }

  /// Compares the partitions that were loaded through their roots, when all of them have been read: one by one, or all rows of the root
  /// together, where they have changed places.
  func settlePartitions() {
    state.withLock { state in
      for (name, root) in state.roots.sorted(by: { $0.key < $1.key }) { state.settle(name, root) }
      state.roots = [:]
    }
  }
}

extension ProofFindings.State {
  fileprivate mutating func tell(_ name: String, rows: (Int64, Int64), isSame: Bool) {
    if rows.0 == rows.1 && isSame {
      result.tables += 1
      result.rows += rows.1
    } else if rows.0 != rows.1 {
      differences.append("\(name): \(rows.1) rows instead of \(rows.0)")
    } else {
      differences.append("\(name): \(rows.0) rows, but not the same ones")
    }
  }

  fileprivate mutating func settle(_ name: String, _ root: ProofFindings.Root) {
    let pairs = zip(root.partitions, root.found)
    let expected = root.partitions.reduce(into: (rows: Int64(0), sum: Fingerprint())) { total, partition in
      total.rows += partition.rows
      total.sum.add(partition.fingerprint)
    }
    let found = root.found.reduce(into: (rows: Int64(0), sum: Fingerprint())) { total, one in
      total.rows += one.rows
      total.sum.add(one.fingerprint)
    }
    let isInPlace = pairs.allSatisfy { $0.rows == $1.rows && $0.fingerprint == $1.fingerprint }
    if isInPlace || expected == found {
      result.tables += root.partitions.count
      result.rows += found.rows
    } else if expected.rows == found.rows, Set(root.partitions.map(\.columns)).count > 1 {
      // The text of a row is that of its partition's order of columns.
      for partition in root.partitions {
        result.unproved.append(
          "\(partition.name): its rows have changed places with those of partitions whose columns are in another order")
      }
    } else {
      tell("the partitions of \(name)", rows: (expected.rows, found.rows), isSame: false)
    }
  }
}
