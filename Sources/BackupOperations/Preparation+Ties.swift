import BackupCatalog
import Faults
import PostgresArchive
import PostgresTools
import Quoting

extension TableOfContents {
  /// Told at the backup already, and refused before a restore touches anything.
  func unreadableNames(of id: BackupID) -> Fault? {
    guard let first = unreadable.first else { return nil }
    return Fault(
      .restoreRefused,
      "\(id) has \(unreadable.count) tables or sequences whose names are no text in any encoding: restores here can't name them.",
      cause: first.label, hint: "restore it with pg_restore, as its RECOVER.txt says; or give them other names")
  }
}

/// What ties the live database to others: it goes by the database itself, and not by its name.
extension Preparation {
  /// The database that leaves its place; nil where none does.
  private var leaving: PostgresSession.DatabaseFacts? {
    guard !request.isPartial, [.swap, .inPlace].contains(request.target) else { return nil }
    return database(names.live)
  }

  /// What would keep it from leaving, hours later.
  func checkTies() throws(Fault) {
    guard let leaving else { return }
    if let fault = leaving.heldByPrepared { throw fault }
    guard untouchable.isEmpty else {
      throw Fault(
        .restoreRefused,
        "Somebody is connected to '\(leaving.name)' whom '\(inventory.role)' may not end: superusers alone may end superusers.",
        cause: untouchable.prefix(5).joined(separator: ", "),
        hint: "end them first, or set 'restore_connect' of the database to a superuser")
    }
    if request.target == .inPlace, !leaving.subscriptions.isEmpty {
      let list = leaving.subscriptions.joined(separator: ", ")
      throw Fault(
        .restoreRefused, "'\(leaving.name)' can't be dropped: it subscribes to publications of others (\(list)).",
        hint: "restore without --in-place, or drop the subscription first")
    }
  }

  /// What the restored database does not get, and somebody has to see to.
  var ties: [Fault] {
    guard let leaving else { return published }
    var ties: [Fault] = []
    if !leaving.replicationSlots.isEmpty {
      let list = leaving.replicationSlots.joined(separator: ", ")
      ties.append(
        request.target == .inPlace
          ? Fault(
            .replicationLeft, "The logical replication slot \(list) goes with the database that is dropped.",
            hint: "set up anew what reads from it")
          : Fault(
            .replicationLeft,
            "The logical replication slot \(list) belongs to what was '\(leaving.name)' and holds WAL for it: it does not follow the name.",
            hint:
              "make a new one in the restored database for what reads from it, then SELECT pg_drop_replication_slot('…')"
          )
      )
    }
    if !leaving.enabledSubscriptions.isEmpty {
      ties.append(
        Fault(
          .replicationLeft,
          "The subscription \(leaving.enabledSubscriptions.joined(separator: ", ")) goes on in what was '\(leaving.name)'; the restored database's is disabled, as pg_dump makes it.",
          hint:
            "in what was '\(leaving.name)': ALTER SUBSCRIPTION … DISABLE; in the restored one: ALTER SUBSCRIPTION … REFRESH PUBLICATION, and ENABLE"
        ))
    }
    let resting = leaving.subscriptions.filter { one in !leaving.enabledSubscriptions.contains { $0.isExactly(one) } }
    if !resting.isEmpty {
      ties.append(
        Fault(
          .replicationLeft,
          "The subscription \(resting.joined(separator: ", ")) is disabled, and stays so in what was '\(leaving.name)' and in the restored one.",
          hint: "in what was '\(leaving.name)': DROP SUBSCRIPTION …; else it can't be dropped when its time has come"))
    }
    return ties
  }
}

extension PostgresSession.DatabaseFacts {
  /// Why it can't be renamed: somebody has to decide first.
  var heldByPrepared: Fault? {
    guard let first = preparedTransactions.first else { return nil }
    let count = preparedTransactions.count
    return Fault(
      .restoreRefused,
      "'\(name)' can't be renamed: \(count) prepared transaction\(count == 1 ? " waits" : "s wait") in it.",
      cause: preparedTransactions.prefix(5).joined(separator: ", "),
      hint: "in '\(name)': COMMIT PREPARED \(SQLName.literal(first)), or ROLLBACK PREPARED; then run this again")
  }
}
