import ArtifactFormat
import BackupCatalog
import Units

/// The short file beside each backup that says how to get the data back with stock tools alone. A test does what it says.
struct RecoverText {
  let manifest: Manifest

  var text: String {
    let artifact = manifest.artifact
    let database = manifest.server.database
    return """
      Backup \(manifest.id) of the PostgreSQL database "\(database)"
      taken \(manifest.started.rfc3339) from PostgreSQL \(manifest.server.version), \(manifest.totals.rows) rows in \
      \(manifest.totals.tables) tables.

      Everything here opens with stock tools; pgbackupd is not needed. In this folder:

      1. Check the files:

      sha256sum -c - <<END
      \(manifest.files.map { "\($0.sha256)  \($0.name)" }.joined(separator: "\n"))
      END

      2. Make an empty database and load the archive into it (PostgreSQL \(manifest.server.versionNumber / 10000) or newer):

      createdb --template=template0 --encoding=\(manifest.server.encoding) restored
      \(Self.decode(artifact.compression, artifact.file.name)) | pg_restore --exit-on-error --no-owner --dbname=restored

      Leave out --no-owner where the roles exist. One table only: add --table=NAME. A list of what is inside:

      \(Self.decode(artifact.compression, artifact.file.name)) | pg_restore --list
      \(globals)
      """
  }

  private var globals: String {
    guard let globals = manifest.globals else { return "" }
    let note =
      globals.hasRolePasswords ? "" : " The role's rights did not suffice to read the passwords: set them anew."
    return """

      Roles and tablespaces of the whole server are in \(globals.file.name); read it before you run it.\(note)

      \(Self.decode(globals.compression, globals.file.name)) | psql --dbname=postgres

      """
  }

  private static func decode(_ compression: String, _ name: String) -> String {
    switch Compression.Algorithm(rawValue: compression) {
    case .zstd: "zstd -dc \(name)"
    case .gzip: "gzip -dc \(name)"
    default: "cat \(name)"
    }
  }
}
