package import Faults
import Glibc
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
  /// - Throws: `E-KEY-MISSING` with gpg's own words where it lacks a public key, or may not use it; `E-TOOL-MISSING` and `E-KEY-FAILED` as
  ///   `gpg` does.
  package func encrypt(_ plain: [UInt8]) async throws(Fault) -> [UInt8] {
    let names = recipients.flatMap { ["--recipient", $0] }
    return try await gpg(
      ["--trust-model", "always", "--no-encrypt-to"] + names + ["--encrypt"], plain,
      "gpg can't encrypt to \(recipients.joined(separator: ", ")).",
      hint: "import the public keys: gpg\(home.map { " --homedir \(shell: $0)" } ?? "") --import KEY.asc")
  }

  /// Opens what was encrypted to one of the secret keys here.
  ///
  /// - Throws: `E-KEY-MISSING` with gpg's own words where there is none, or it is locked; else as `gpg` does.
  package func decrypt(_ sealed: [UInt8]) async throws(Fault) -> [UInt8] {
    let secret = passphraseFile.map { ["--pinentry-mode", "loopback", "--passphrase-file", $0] } ?? []
    return try await gpg(
      secret + ["--decrypt"], sealed, "gpg can't open it with a key of this host.",
      hint: "import the secret key, or set 'encryption: gpg: passphrase_file:', or ask on the host that has the key")
  }

  /// Whether what is sealed here can be opened here: with a secret key that nothing locks.
  ///
  /// - Throws: what `encrypt` throws.
  package func check() async throws(Fault) -> Bool {
    let sealed = try await encrypt([0])
    return (try? await decrypt(sealed)) == [0]
  }

  /// Runs gpg.
  ///
  /// - Throws: `E-TOOL-MISSING` where it is not there, `E-KEY-FAILED` where it does not end; else `E-KEY-MISSING`, with its own words.
  private func gpg(
    _ arguments: [String], _ input: [UInt8], _ failure: String, hint: String
  ) async throws(Fault) -> [UInt8] {
    let base = ["gpg", "--quiet", "--no-auto-check-trustdb", "--no-auto-key-locate"]
    let words =
      base + (canAsk ? [] : ["--batch", "--no-tty"]) + (home.map { ["--homedir", $0] } ?? []) + arguments
    var environment = ["LC_ALL": "C"]
    // Its input is none of the terminal's: it would not know where to ask.
    if canAsk, getenv("GPG_TTY") == nil, let name = ttyname(STDIN_FILENO) {
      environment["GPG_TTY"] = String(cString: name)
    }
    do throws(OutsideCommand.Failure) {
      return try await OutsideCommand(
        words, environment: environment, timeout: canAsk ? .seconds(600) : .seconds(60)
      ).attempt(input: input).standardOutput
    } catch {
      switch error {
      case .unrunnable(let reason):
        throw Fault(.toolMissing, "gpg can't be run.", cause: reason, hint: "apt install gnupg")
      case .late(let limit, _):
        throw Fault(
          .keyFailed, "gpg did not end within \(limit.configurationText), and was killed.",
          hint:
            "run it by hand, as the daemon's user: gpg\(home.map { " --homedir \(shell: $0)" } ?? "") --list-secret-keys"
        )
      case .overlong: throw Fault(.keyFailed, "gpg printed more than 1 MiB.")
      case .ended(let status, let lines):
        throw Fault(.keyMissing, failure, cause: lines.isEmpty ? status : lines.joined(separator: "\n"), hint: hint)
      }
    }
  }
}
