import ArtifactFormat
import BackupCatalog
import Faults
import Quoting
import Units

/// The short file beside each backup that says how to get the data back with stock tools alone. A test does what it says.
struct RecoverText {
  let manifest: Manifest
  let isSigned: Bool

  /// What a manifest commits, where this version writes the very same.
  static func committed(by manifest: Manifest) -> [UInt8]? {
    [true, false].lazy.map { Array(RecoverText(manifest: manifest, isSigned: $0).text.utf8) }
      .first { Digest.hexadecimal(of: $0) == manifest.recover?.sha256 }
  }

  var text: String {
    let artifact = manifest.artifact
    let database = manifest.server.database
    return """
      Backup \(line: manifest.id) of the PostgreSQL database "\(line: database)"
      taken \(manifest.started.rfc3339) from PostgreSQL \(line: manifest.server.version), \(manifest.totals.rows) rows in \
      \(manifest.totals.tables) tables.

      Everything here opens with stock tools; pgbackupd is not needed. In this folder:
      \(key)
      1. Check the files:

      sha256sum -c - <<END
      \(manifest.files.map { "\($0.sha256)  \($0.name)" }.joined(separator: "\n"))
      END

      \(signature)\(globals)\(manifest.globals == nil ? 2 : 3). Make an empty database and load the archive into it (PostgreSQL \(manifest.server.versionNumber / 10000) or newer):

      \(create)
      \(decode(artifact.compression, artifact.file.name)) | pg_restore --exit-on-error \(manifest.globals == nil ? "--no-owner --no-privileges " : "")--dbname=restored

      \(manifest.globals == nil ? "Leave out --no-owner and --no-privileges where the roles exist." : "Where the roles are not to be made: add --no-owner --no-privileges.") pg_restore gives the new database no settings and
      privileges of its own; --create does, under the old name. A list of what is inside:

      \(decode(artifact.compression, artifact.file.name)) | pg_restore --list

      One table's rows alone, as text (public.NAME; then psql can read it):

      \(decode(artifact.compression, artifact.file.name)) | pg_restore --data-only --schema=public --table=NAME --file=-
      """
  }

  private var create: String {
    guard var options = manifest.server.databaseOptions else {
      return "createdb --template=template0 --encoding=\(shell: manifest.server.encoding) restored"
    }
    // A place on the disk of another machine.
    options = DatabaseCreation.withoutTablespace(options)
    return "psql --dbname=postgres --command=\(shell: "CREATE DATABASE restored \(options)")"
  }

  private var globals: String {
    guard let globals = manifest.globals else { return "" }
    let note =
      globals.hasRolePasswords ? "" : " The role's rights did not suffice to read the passwords: set them anew."
    return """
      2. Roles and tablespaces of the whole server are in \(line: globals.file.name); read it before you run it: where a role is there
      already, psql says so and goes on, and sets what the file says of it.\(note)

      \(decode(globals.compression, globals.file.name)) | psql --dbname=postgres


      """
  }

  private var signature: String {
    guard isSigned else { return "" }
    return """
      The manifest names the files and their sums, and is signed. With the signing.pub of the daemon that made it (KEEP A COPY of it):

      signify-openbsd -V -p signing.pub -m manifest.json


      """
  }

  /// Where the files are encrypted, what opens them.
  private var key: String {
    guard let encryption = manifest.encryption else { return "" }
    if let key = encryption.key { return sealedKey(encryption, key) }
    return """

      The files are encrypted with age. Set KEY to the file that holds the identity (AGE-SECRET-KEY-1...) of one of these
      recipients, as in: export KEY=/root/key.txt

      \(encryption.recipients.map { "  \(line: $0)\n" }.joined())\(needsNewAge ? "\nThese are post-quantum recipients: age 1.3 or later opens them (age --version).\n" : "")
      """
  }

  /// The key of this backup alone, which GnuPG opens.
  private func sealedKey(_ encryption: Manifest.Encryption, _ key: Manifest.Encryption.Key) -> String {
    let others = encryption.recipients.dropFirst()
    let escrow =
      others.isEmpty
      ? ""
      : "\nThe identity (AGE-SECRET-KEY-1...) of one of these opens them as well; then set KEY to its file:\n\n\(others.map { "  \(line: $0)\n" }.joined())"
    return """

      The files are encrypted with age, to a key of this backup alone. That key is in \(line: key.file.name), sealed with GnuPG to

      \(key.recipients.map { "  \(line: $0)\n" }.joined())
      Whoever has one of those secret keys opens it, into memory here (take it away in the end: rm "$KEY"):

      export KEY=/dev/shm/backup-key-$$
      (umask 077 && gpg --decrypt \(shell: key.file.name) > "$KEY")
      \(escrow)
      """
  }

  private var needsNewAge: Bool {
    manifest.encryption?.recipients.contains { $0.starts(withBytes: "age1pq1") } ?? false
  }

  private func decode(_ compression: String, _ name: String) -> String {
    let name = ShellWord.quoted(name)
    let plain: String? =
      switch Compression.Algorithm(rawValue: compression) {
      case .zstd: "zstd -dc"
      case .gzip: "gzip -dc"
      default: nil
      }
    if manifest.encryption == nil { return plain.map { "\($0) \(name)" } ?? "cat \(name)" }
    return "age -d -i \"$KEY\" \(name)" + (plain.map { " | \($0)" } ?? "")
  }
}
