package import AgeEncryption

/// How stored files are encrypted, behind compression.
package enum Encryption: Sendable, Hashable {
  case none
  case age([AgeRecipient])

  /// What a file name gets appended: `.age` or nothing.
  package var suffix: String {
    switch self {
    case .none: ""
    case .age: ".age"
    }
  }

  /// Who can open the files, `age1…` each.
  package var recipients: [String] {
    switch self {
    case .none: []
    case .age(let recipients): recipients.map(\.description)
    }
  }

  package func makeStage() throws(AgeError) -> EncryptionStage {
    switch self {
    case .none: EncryptionStage(encryptor: nil)
    case .age(let recipients): EncryptionStage(encryptor: try AgeEncryptor(to: recipients))
    }
  }

  /// A small file in one go.
  package func encrypt(_ plain: [UInt8]) throws(AgeError) -> [UInt8] {
    var stage = try makeStage()
    return try stage.update(plain) + stage.finish()
  }
}

/// One file's way through encryption; without any, bytes pass as they are.
package struct EncryptionStage: Sendable {
  fileprivate var encryptor: AgeEncryptor?

  package mutating func update(_ plain: [UInt8]) throws(AgeError) -> [UInt8] {
    guard encryptor != nil else { return plain }
    return try encryptor?.update(plain) ?? []
  }

  package mutating func finish() throws(AgeError) -> [UInt8] { try encryptor?.finish() ?? [] }
}
