import Faults
import Foundation
import Quoting
import S3Storage
import Units

/// Reads the `stores` section.
struct StoreReader {
  let surroundings: ConfigurationSurroundings
  let checkName: (String, ConfigurationNode, String) -> Void
  let secret: (String, [String: ConfigurationNode]) -> Secret?

  func stores(_ section: ConfigurationNode) -> [Configuration.Store] {
    guard let entries = section.entries() else { return [] }
    if entries.isEmpty { section.report("name at least one store") }
    var places = Places()
    return entries.compactMap { name, node in
      checkName(name, node, "a store")
      guard let values = node.section(["path", "s3", "rate_limit"]) else { return nil }
      let rate = values["rate_limit"].flatMap(rate)
      switch (values["path"], values["s3"]) {
      case (let path?, nil):
        guard let path = places.local(path, name) else { return nil }
        return Configuration.Store(name: name, place: .local(path: path), rateLimit: rate)
      case (nil, let bucket?):
        guard let settings = s3(bucket) else { return nil }
        places.add(settings, name, bucket)
        return Configuration.Store(name: name, place: .s3(settings), rateLimit: rate)
      case (_?, let bucket?):
        bucket.report("a store is a path or a bucket, not both")
      case (nil, nil):
        node.report("'path' or 's3' is missing: the store's directory, or its bucket")
      }
      return nil
    }
  }

  /// `20MiB/s`.
  private func rate(_ node: ConfigurationNode) -> ByteCount? {
    node.value(
      { text in
        guard text.ends(withBytes: "/s"), let bytes = ByteCount(parsing: String(text.dropLast(2))), bytes.bytes >= 1024
        else {
          return nil
        }
        return bytes
      }, "is no rate: write 20MiB/s (1KiB/s at least)")
  }

  private static let keys = [
    "bucket", "prefix", "region", "endpoint", "path_style", "ca_file", "proxy", "proxy_file", "profile", "access_key",
    "access_key_file", "secret_key", "secret_key_file", "session_token", "session_token_file", "storage_class",
    "server_side_encryption", "kms_key", "tags", "lock", "delete_versions",
  ]

  private enum ServerSide: String, CaseIterable {
    case storeKey = "AES256"
    case managedKey = "aws:kms"
  }

  private func s3(_ node: ConfigurationNode) -> S3Settings? {
    guard let values = node.section(Self.keys) else { return nil }
    guard let bucket = values["bucket"]?.text() else {
      if values["bucket"] == nil { node.report("'bucket' is missing") }
      return nil
    }
    // "Bucket naming rules", Amazon S3 User Guide; underscores and capitals are older and other servers'.
    if bucket.range(of: "^[A-Za-z0-9][A-Za-z0-9._-]{1,61}[A-Za-z0-9]$", options: .regularExpression) == nil {
      values["bucket"]?.report("'\(bucket)' is no bucket's name")
    }
    var settings = S3Settings(bucket: bucket, endpoint: values["endpoint"].flatMap(endpoint))
    if let prefix = values["prefix"].flatMap({ $0.isScalar ? $0.text() : nil }) {
      settings.prefix = prefix.split(separator: "/").joined(separator: "/")
    }
    if let region = values["region"]?.text() { settings.region = region }
    if values["region"] == nil, values["endpoint"] == nil {
      node.report("'region' is missing: eu-central-1, for example")
    }
    if let isPath = values["path_style"]?.boolean() { settings.usesPathStyle = isPath }
    settings.authorityFile = values["ca_file"].flatMap(authority)
    settings.proxy = (values["proxy"] ?? values["proxy_file"])?.proxy(secret("proxy", values))
    settings.storageClass = values["storage_class"].flatMap(storageClass)
    settings.lock = values["lock"]?.word(S3Settings.Lock.self)
    if let deletes = values["delete_versions"]?.boolean() { settings.deletesVersions = deletes }
    for (name, value) in values["tags"]?.entries() ?? [] { settings.tags[name] = value.text() }
    switch values["server_side_encryption"]?.word(ServerSide.self) {
    case .storeKey: settings.serverSideEncryption = .storeKey
    case .managedKey: settings.serverSideEncryption = .managedKey(values["kms_key"]?.text())
    case nil: break
    }
    if case .managedKey? = settings.serverSideEncryption {
    } else {
      values["kms_key"]?.report("it needs 'server_side_encryption: aws:kms'")
    }
    credentials(values, node, &settings)
    return settings
  }

  /// One whose objects can be read at once. ("Understanding S3 Glacier storage classes", Amazon S3 User Guide.)
  private func storageClass(_ node: ConfigurationNode) -> String? {
    node.value(
      { ["GLACIER", "DEEP_ARCHIVE"].contains($0) ? nil : $0 },
      "can't be read without hours of waiting, and backups are read each day: GLACIER_IR can")
  }

  private func credentials(
    _ values: [String: ConfigurationNode], _ node: ConfigurationNode, _ settings: inout S3Settings
  ) {
    settings.profile = values["profile"]?.text()
    let named = ["access_key", "secret_key", "session_token"].filter { values[$0] ?? values[$0 + "_file"] != nil }
    guard !named.isEmpty else { return }
    if let profile = values["profile"] { profile.report("it and '\(named[0])' exclude each other") }
    let (key, secret) = (self.secret("access_key", values), self.secret("secret_key", values))
    let token = self.secret("session_token", values)
    for name in ["access_key", "secret_key"] where !named.contains(name) { node.report("'\(name)' is missing") }
    guard let key, let secret else { return }
    settings.credentials = S3Credentials(accessKey: key.revealed, secretKey: secret, sessionToken: token)
    settings.credentialFiles = S3CredentialFiles(
      accessKey: values["access_key_file"]?.text(), secretKey: values["secret_key_file"]?.text(),
      sessionToken: values["session_token_file"]?.text())
  }

  private func endpoint(_ node: ConfigurationNode) -> String? {
    node.value(
      { text in
        guard let url = URL(string: text), ["http", "https"].contains(url.scheme), url.host?.isEmpty == false,
          ["", "/"].contains(url.path), url.query == nil, url.user == nil
        else { return nil }
        // In one form, so that two names of one server are seen to be one.
        let scheme = url.scheme?.lowercased() ?? "https"
        let port = url.port.flatMap { $0 == (scheme == "https" ? 443 : 80) ? nil : ":\($0)" } ?? ""
        return "\(scheme)://\((url.host ?? "").lowercased())\(port)"
      }, "is no endpoint: write https://host or https://host:port")
  }

  private func authority(_ node: ConfigurationNode) -> String? {
    guard let path = node.text() else { return nil }
    guard FileManager.default.isReadableFile(atPath: path) else {
      node.report("'\(path)' can't be read")
      return nil
    }
    return path
  }

  /// What stores occupy: two in one place would take each other's objects for their own.
  private struct Places {
    private var paths: [String: String] = [:]
    private var buckets: [String: String] = [:]

    mutating func local(_ place: ConfigurationNode, _ name: String) -> String? {
      guard let path = place.text() else { return nil }
      guard path.starts(withBytes: "/") else {
        place.report("'\(path)' is no absolute path")
        return nil
      }
      let plain = NSString(string: path).standardizingPath
      for (other, otherPath) in paths.sorted(by: { $0.key < $1.key }) {
        if otherPath == plain {
          place.report("store '\(other)' has the same path")
        } else if plain.starts(withBytes: otherPath + "/") || otherPath.starts(withBytes: plain + "/") {
          place.report("it and store '\(other)' lie one in the other")
        }
      }
      paths[name] = plain
      return path
    }

    mutating func add(_ settings: S3Settings, _ name: String, _ node: ConfigurationNode) {
      let place = [settings.endpoint ?? settings.region, settings.bucket, settings.prefix].filter { !$0.isEmpty }
        .joined(separator: "/")
      for (other, otherPlace) in buckets.sorted(by: { $0.key < $1.key })
      where (place + "/").starts(withBytes: otherPlace + "/") || (otherPlace + "/").starts(withBytes: place + "/") {
        node.report("it and store '\(other)' lie one in the other")
      }
      buckets[name] = place
    }
  }
}
