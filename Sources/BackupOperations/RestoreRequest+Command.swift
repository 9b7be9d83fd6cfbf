package import BackupCatalog
package import ControlAPI
package import Faults
import PostgresTools

/// What a person asked for, with what can't be meant refused.
extension RestoreRequest {
  package init(_ command: RestoreCommand, _ backup: BackupID, _ database: String, jobs: Int) throws(Fault) {
    self.init(backup: backup, database: database)
    (tables, schemas) = (command.tables, command.schemas)
    self.jobs = min(64, max(1, command.jobs ?? jobs))
    withGlobals = command.globals
    options.withOwners = command.owner
    options.withPrivileges = command.privileges
    options.withTablespaces = command.tablespaces
    options.role = command.role
    makesStatistics = command.analyze ?? true
    keepsGoing = command.keepGoing ?? false
    if let name = command.into { target = .beside(name) }
    if command.inPlace { target = .inPlace }
    if command.replace { tableTarget = .replaceRows }
    if let schema = command.intoSchema { tableTarget = .schema(schema) }
    let ways = [command.into != nil, command.inPlace, command.replace, command.intoSchema != nil].count { $0 }
    guard ways <= 1 else {
      throw Fault(
        .usage, "--into, --in-place, --replace and --into-schema exclude each other.",
        hint: "pgbackupctl restore --help")
    }
    if isPartial, command.inPlace {
      throw Fault(
        .usage, "A restore in place is of the whole database; chosen tables go with --replace.",
        hint: "pgbackupctl restore --help")
    }
    if keepsGoing, command.inPlace || isPartial && command.into == nil {
      throw Fault(
        .usage,
        "--keep-going is for the whole database, or with --into: what lacks something must not replace anything unseen.",
        hint: "pgbackupctl restore --help")
    }
    if !isPartial, command.replace || command.intoSchema != nil {
      throw Fault(
        .usage, "--replace and --into-schema need a choice of tables: --table or --schema.",
        hint: "pgbackupctl restore --help")
    }
  }
}
