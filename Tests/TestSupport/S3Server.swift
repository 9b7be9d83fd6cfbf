import Foundation

/// A real S3 server of a test process's own: SeaweedFS with TLS, under a certificate of a private authority. It ends with the process
/// that started it, however that ends.
package final class S3Server: Sendable {
  package let folder: TemporaryFolder
  package let port: Int
  private let process: ServerProcess

  package static let accessKey = "testkey"
  package static let secretKey = "testsecret"

  /// One server for all tests; each makes buckets of its own.
  package static func shared() throws -> S3Server { try sharedResult.get() }
  private static let sharedResult = Result { try S3Server() }

  package var endpoint: String { "https://localhost:\(port)" }
  package var authorityFile: String { folder.file("ca.crt") }

  package init() throws {
    let program = "\(repositoryRoot)/.build/python/bin/weed"
    guard FileManager.default.isExecutableFile(atPath: program) else {
      throw Shell.Failure(
        description: "SeaweedFS is not installed under .build/python: run PGBACKUPD_TEST_PYTHON=1 scripts/setup.sh")
    }
    (port, folder, process) = try FreePorts.serve(11) { ports in
      let folder = TemporaryFolder()
      let process = try Self.start(program, ports, folder)
      // Its ports open before it can answer.
      try process.waitUntilReady("the S3 server") {
        try Self.request("GET", "https://localhost:\(ports[0])/", ["--max-time", "10"], folder).status == 0
      }
      return (ports[0], folder, process)
    }
  }

  private static func start(_ program: String, _ ports: [Int], _ folder: TemporaryFolder) throws -> ServerProcess {
    try TestAuthority.make(in: folder)
    try FileManager.default.createDirectory(atPath: folder.file("data"), withIntermediateDirectories: false)
    let identities = try folder.write(
      "s3.json",
      """
      {"kms": {"default_provider": "local", "providers": {"local": {"type": "local", "enableOnDemandCreate": true}}},
       "identities": [
         {"name": "admin", "credentials": [{"accessKey": "\(accessKey)", "secretKey": "\(secretKey)"}],
          "actions": ["Admin", "Read", "List", "Tagging", "Write"]},
         {"name": "reader", "credentials": [{"accessKey": "readkey", "secretKey": "readsecret"}],
          "actions": ["Read", "List"]}]}
      """)
    let names = [
      "s3.port", "master.port", "master.port.grpc", "volume.port", "volume.port.grpc", "filer.port",
      "filer.port.grpc", "s3.port.grpc", "s3.port.iceberg", "s3.port.lance",
    ]
    let server =
      [
        program, "-logdir=\(folder.path)", "server", "-dir=\(folder.file("data"))", "-ip=127.0.0.1",
        "-ip.bind=127.0.0.1", "-master.volumeSizeLimitMB=512", "-volume.max=2000", "-master.telemetry=false", "-s3",
        "-filer.localSocket=\(folder.file("filer.sock"))", "-s3.localSocket=\(folder.file("s3.sock"))",
        "-s3.config=\(identities)", "-s3.domainName=s3.localhost", "-s3.autoCreateBucket=false",
        "-s3.port.https=\(ports[0])",
        "-s3.cert.file=\(folder.file("server.crt"))", "-s3.key.file=\(folder.file("server.key"))",
      ] + zip(names, ports.dropFirst()).map { "-\($0)=\($1)" }
    return try ServerProcess(
      server, in: folder,
      // Server-side encryption needs a key.
      environment: ["WEED_S3_SSE_KEK": String(repeating: "07", count: 32)],
      after: ports.map { "rm -f /tmp/seaweedfs-*-\($0).sock" }.joined(separator: "; "))
  }

  package func stop() { process.stop() }

  /// Makes a bucket with a name that no other test has.
  package func makeBucket(withLock: Bool = false) throws -> String {
    let name = "bucket-\(UUID().uuidString.prefix(8).lowercased())"
    if withLock {
      // curl signs no header of ours; boto3 does.
      try Shell.must(
        "\(repositoryRoot)/.build/python/bin/python",
        [
          "-c",
          "import boto3, sys; boto3.client('s3', endpoint_url=sys.argv[1], verify=sys.argv[2], region_name='us-east-1', aws_access_key_id=sys.argv[3], aws_secret_access_key=sys.argv[4]).create_bucket(Bucket=sys.argv[5], ObjectLockEnabledForBucket=True)",
          endpoint, authorityFile, Self.accessKey, Self.secretKey, name,
        ])
    } else {
      let reply = try request("PUT", "/\(name)")
      guard reply.status == 0 else { throw Shell.Failure(description: "no bucket: \(reply.errors)\(reply.output)") }
    }
    return name
  }

  /// The keys of a bucket's objects, in order.
  package func keys(in bucket: String, prefix: String = "") throws -> [String] {
    try request("GET", "/\(bucket)?list-type=2&prefix=\(prefix)").output.components(separatedBy: "<Key>").dropFirst()
      .map { String($0.prefix { $0 != "<" }) }
  }

  /// A request by curl, which signs for itself.
  @discardableResult
  package func request(_ method: String, _ path: String, _ more: [String] = []) throws -> Shell.Result {
    try Self.request(method, endpoint + path, more, folder)
  }

  private static func request(
    _ method: String, _ address: String, _ more: [String], _ folder: TemporaryFolder
  ) throws -> Shell.Result {
    try Shell.run(
      "curl",
      [
        "-sS", "--fail-with-body", "-X", method, "--cacert", folder.file("ca.crt"), "--user",
        "\(accessKey):\(secretKey)", "--aws-sigv4", "aws:amz:us-east-1:s3",
      ] + more + [address])
  }

  /// The store's section of a configuration file.
  package func configuration(bucket: String, prefix: String = "") -> String {
    """
    { s3: { bucket: \(bucket), prefix: "\(prefix)", endpoint: "\(endpoint)", ca_file: \(authorityFile), \
    access_key: \(Self.accessKey), secret_key: \(Self.secretKey) } }
    """
  }
}
