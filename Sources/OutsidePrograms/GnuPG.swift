package import Faults
import Units

/// `gpg(1)`, for those whose keys are OpenPGP's: it encrypts and opens small things. Keys are named by their whole fingerprints, so that it
/// needs no trust of its own and nobody's user id can stand for another's.
package struct GnuPG: Sendable, Hashable {
  /// Whom to encrypt to: fingerprints, upper case hexadecimal digits.
  package var recipients: [String]
  /// `GNUPGHOME`; the account's own where nil.
  package var home: String?
  /// A file with the passphrase of the secret key, for hosts where nobody is there to type it.
  package var passphraseFile: String?
  /// Somebody sits at the terminal: gpg may ask.
  package var canAsk = false

  package init(recipients: [String], home: String? = nil, passphraseFile: String? = nil) {
    self.recipients = recipients
    self.home = home
    self.passphraseFile = passphraseFile
  }

  /// Reads a fingerprint as gpg prints it, with blanks or without; nil where it is none. A short key id is none: it can be forged.
  package static func fingerprint(_ text: String) -> String? {
    let digits = text.filter { $0 != " " }.uppercased()
    guard [40, 64].contains(digits.utf8.count), digits.utf8.allSatisfy({ Self.hexadecimal.contains($0) }) else {
      return nil
    }
    return digits
  }

  private static let hexadecimal = Set("0123456789ABCDEF".utf8)

  /// Encrypts to all recipients.
  ///
  /// - Throws: `E-KEY-MISSING` with gpg's own words where it lacks a public key, or may not use it.
  package func encrypt(_ plain: [UInt8]) async throws(Fault) -> [UInt8] {
    let names = recipients.flatMap { ["--recipient", $0] }
    do throws(Fault) {
      return try await gpg(["--trust-model", "always"] + names + ["--encrypt"], plain)
    } catch {
      throw Fault(
        .keyMissing, "gpg can't encrypt to \(recipients.joined(separator: ", ")).", cause: error.cause ?? error.message,
        hint: "import the public keys: gpg\(home.map { " --homedir \($0)" } ?? "") --import KEY.asc")
    }
  }

  /// Opens what was encrypted to one of the secret keys here.
  ///
  /// - Throws: `E-KEY-MISSING` with gpg's own words where there is none, or it is locked.
  package func decrypt(_ sealed: [UInt8]) async throws(Fault) -> [UInt8] {
    let secret = passphraseFile.map { ["--pinentry-mode", "loopback", "--passphrase-file", $0] } ?? []
    do throws(Fault) {
      return try await gpg(secret + ["--decrypt"], sealed)
    } catch {
      throw Fault(
        .keyMissing, "gpg can't open it with a key of this host.", cause: error.cause ?? error.message,
        hint: "import the secret key, or set 'encryption: gpg: passphrase_file:', or ask on the host that has the key")
    }
  }

  /// Whether a secret key of the recipients is here (as a file, or as the stub of a card). A key that is locked counts.
  package func hasSecretKey() async -> Bool {
    for recipient in recipients {
      if (try? await gpg(["--list-secret-keys", "--with-colons", recipient], [])) != nil { return true }
    }
    return false
  }

  /// Throws what `encrypt` would.
  package func check() async throws(Fault) { _ = try await encrypt([0]) }

  private func gpg(_ arguments: [String], _ input: [UInt8]) async throws(Fault) -> [UInt8] {
    let base = ["gpg", "--quiet", "--no-auto-check-trustdb", "--no-auto-key-locate"]
    let words =
      base + (canAsk ? [] : ["--batch", "--no-tty"]) + (home.map { ["--homedir", $0] } ?? []) + arguments
    return try await OutsideCommand(words, environment: ["LC_ALL": "C"], timeout: canAsk ? .seconds(600) : .seconds(60))
      .output(input: input).standardOutput
  }
}
