import ArtifactFormat
import BackupCatalog
import BackupOperations
import ControlAPI
import Faults
import Foundation
import Quoting
import SystemdSupport

/// What an auditor asks.
extension DaemonCore {
  /// All that is known of every backup, each claim with the record that it rests on.
  func report() async -> VerificationReport {
    let overview = await overview(.fresh)
    let status = overview.report
    let catalog = await keeper.catalog
    let history = await ledger.history
    let proofs = await proofs(catalog)
    let decisions = decisions(catalog, at: now())
    let backups = decisions.map { decision in
      var summary = BackupSummary(
        decision.backup, retention: decision.reasons.map(\.description).joined(separator: "; "))
      summary.note(proofs)
      return VerificationReport.Backup(
        summary: summary, madeRecord: history.made[decision.backup.id],
        // Of what counts: a failure that lies beside the backup rests on no record of a proof before it.
        proofRecord: proofs.failed[decision.backup.id].map(\.record) ?? history.proofRecords[decision.backup.id],
        proof: decision.backup.proof, notCompared: history.notCompared[decision.backup.id])
    }
    let placements = catalog.backups.flatMap { backup in
      backup.placements.map { placement in
        let known = history.verified[PlacementKey(backup: backup.id, store: placement.store)]
        return VerificationReport.Placement(
          backup: backup.id, type: backup.manifest.type, store: placement.store,
          storedBytes: backup.manifest.storedBytes, isWhole: placement.isWhole, verified: known?.time,
          level: known?.level, isSound: known?.isSound, record: known?.record)
      }
    }
    return VerificationReport(
      now: status.now, host: HostName.current, version: Backup.version, databases: status.databases, backups: backups,
      placements: placements, ledger: await verifyLedger(catalog),
      problems: overview.problems.map { problem in
        .init(fault: problem.fault, record: Self.record(of: problem, history, proofs, status.databases))
      })
  }

  /// What a problem rests on; nil for one that was seen just now, as a store that does not answer.
  private static func record(
    of problem: Problem, _ history: RunHistory, _ proofs: KnownProofs, _ databases: [StatusReport.Database]
  ) -> Int? {
    if let job = problem.job, let database = problem.database {
      return history.last[.init(job: job, database: database)]?.sequence
    }
    if let backup = problem.backup {
      return problem.fault.code == .proofFailed ? proofs.failed[backup]?.record : history.made[backup]
    }
    guard let database = databases.first(where: { $0.name.isExactly(problem.database) }) else { return nil }
    switch problem.aspect {
    case "rpo": return database.newest.flatMap { history.made[$0.id] }
    case "proved": return database.proved.flatMap { history.proofRecords[$0] }
    case "rto": return database.slowestRecovery?.measure?.record
    default: return nil
    }
  }

  /// Behind each verification: who goes by the ledger hears of it where it can't be gone by.
  func lookAtLedger() async {
    let report = await verifyLedger()
    guard !report.isWhole else { return }
    doubtLedger(
      Fault(
        .ledgerDamaged, "The ledger is not what this daemon has written.", cause: report.sentences,
        hint: "compare it with a copy of yours; pgbackupctl ledger verify tells what does not fit"))
  }

  /// Kept until the daemon starts anew: evidence is not mended.
  func doubtLedger(_ fault: Fault) {
    guard standingProblems["ledger"] == nil else { return }
    standingProblems["ledger"] = fault
    logger.error(.ledgerDamaged, fault)
  }

  func verifyLedger() async -> LedgerReport { await verifyLedger(await keeper.recent()) }

  /// The chain itself, and what manifests that this daemon has signed bear witness of. Others' manifests speak of other ledgers.
  private func verifyLedger(_ catalog: Catalog) async -> LedgerReport {
    let own = plan.backup.signingKey?.publicKey.description
    var witnesses = catalog.backups.compactMap { backup -> (BackupID, Manifest.LedgerWitness)? in
      guard backup.manifest.host == HostName.current, backup.manifest.sharedFrom == nil,
        backup.placements.contains(where: { $0.isWhole && $0.signer == own })
      else { return nil }
      return backup.manifest.ledger.map { (backup.id, $0) }
    }
    // Proofs are believed only with a signature.
    witnesses += catalog.backups.compactMap { backup in
      backup.proof.flatMap { proof in
        proof.host == HostName.current ? proof.ledger.map { (backup.id, $0) } : nil
      }
    }
    let found = await ledger.examine(witnessing: Set(witnesses.map(\.1.sequence)))
    return LedgerReport(
      records: found.records, lastSequence: found.lastSequence, digest: found.lastDigest, brokenLine: found.brokenLine,
      missing: found.missing,
      witnesses: witnesses.count,
      contradictions: witnesses.filter { $0.1.sequence > 0 && found.witnessed[$0.1.sequence] != $0.1.digest }.map(\.0))
  }
}
