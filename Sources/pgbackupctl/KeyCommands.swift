import AgeEncryption
import ArgumentParser
import ControlAPI
import Faults
import Foundation
import Glibc
import Units

struct KeyCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "key", abstract: "Makes and shows age keys.",
    subcommands: [KeyGenerateCommand.self, KeyShowRecipientCommand.self])
}

struct KeyGenerateCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "generate", abstract: "Makes an identity (age-keygen would do as well), and shows its recipient.",
    discussion: """
      The recipient, age1…, belongs into the configuration. Whoever has the identity can read the backups, and without it nobody \
      can: keep a copy where no fire reaches it, and not on this host if a thief of it must not read old backups.
      """)

  @Option(name: .shortAndLong, help: "The file to write; it must not exist yet. Without it: standard output.")
  var output: String?

  @Flag(
    name: .long, help: "One that quantum computers leave closed (age1pq1…); reading such backups by hand needs age 1.3."
  )
  var postQuantum = false

  func run() throws {
    let identity = postQuantum ? try AgeIdentity.generatePostQuantum() : AgeIdentity.generate()
    guard let recipient = identity.recipient else { return }
    let text = "# created: \(SystemClock.now().rfc3339)\n# public key: \(recipient)\n\(identity.secretText)\n"
    guard let output else {
      FileHandle.standardOutput.write(Data(text.utf8))
      return
    }
    let file = open(output, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0o600)
    guard file >= 0 else {
      throw Fault(
        errno == EEXIST ? .storeConflict : .internal, "'\(output)' can't be made.",
        cause: String(cString: strerror(errno)),
        hint: "name another file; a key is never overwritten")
    }
    defer { close(file) }
    let bytes = Array(text.utf8)
    guard write(file, bytes, bytes.count) == bytes.count, fsync(file) == 0 else {
      let reason = String(cString: strerror(errno))
      unlink(output)
      throw Fault(.internal, "'\(output)' can't be written.", cause: reason)
    }
    print(recipient)
  }
}

struct KeyShowRecipientCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "show-recipient", abstract: "Shows the recipients of the identities in a file.")

  @Argument(help: "The file with AGE-SECRET-KEY-1…") var file: String

  func run() throws {
    let text: String
    do {
      text = try String(contentsOfFile: file, encoding: .utf8)
    } catch {
      throw Fault(.keyInvalid, "'\(file)' can't be read.", cause: error.localizedDescription)
    }
    do throws(AgeError) {
      for identity in try AgeIdentity.identities(inFile: text) {
        if let recipient = identity.recipient { print(recipient) }
      }
    } catch {
      throw Fault(
        .keyInvalid, "'\(file)' is no file of identities.", cause: "\(error)", hint: "pgbackupctl key generate")
    }
  }
}
