import Foundation
import Glibc
import Synchronization

/// A real S3 server of a test process's own: SeaweedFS with TLS, under a certificate of a private authority. It ends with the process
/// that started it, however that ends.
package final class S3Server: Sendable {
  package let folder = TemporaryFolder()
  package let port: Int
  private let keeper: ChildProcess
  private let lifeline: Int32
  private let isRunning = Atomic(true)

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
    try TestAuthority.make(in: folder)
    try FileManager.default.createDirectory(atPath: folder.file("data"), withIntermediateDirectories: false)
    let identities = try folder.write(
      "s3.json",
      """
      {"kms": {"default_provider": "local", "providers": {"local": {"type": "local", "enableOnDemandCreate": true}}},
       "identities": [
         {"name": "admin", "credentials": [{"accessKey": "\(Self.accessKey)", "secretKey": "\(Self.secretKey)"}],
          "actions": ["Admin", "Read", "List", "Tagging", "Write"]},
         {"name": "reader", "credentials": [{"accessKey": "readkey", "secretKey": "readsecret"}],
          "actions": ["Read", "List"]}]}
      """)
    let ports = try FreePorts.take(11)
    port = ports[0]
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
    let (reader, writer) = makePipe()
    lifeline = writer
    keeper = try ChildProcess(
      "/bin/sh",
      [
        "-c",
        #"folder=$1 ports=$2; shift 2; "$@" >"$folder/log" 2>&1 </dev/null & server=$!; cat >/dev/null; kill -KILL $server; wait $server; rm -rf "$folder"; for port in $ports; do rm -f /tmp/seaweedfs-*-"$port".sock; done"#,
        "sh", folder.path, ports.map(String.init).joined(separator: " "),
      ] + server,
      // Server-side encryption needs a key.
      environment: ["WEED_S3_SSE_KEK": String(repeating: "07", count: 32)], input: reader)
    close(reader)
    // Its ports open before it can answer.
    let ready = try request(
      "GET", "/", ["--retry", "60", "--retry-delay", "1", "--retry-all-errors", "--max-time", "5"])
    guard ready.status == 0 else {
      throw Shell.Failure(
        description:
          "the S3 server did not start: \(ready.errors)\n\((try? String(contentsOfFile: folder.file("log"), encoding: .utf8))?.suffix(3000) ?? "no log")"
      )
    }
  }

  deinit { stop() }

  package func stop() {
    guard isRunning.exchange(false, ordering: .relaxed) else { return }
    close(lifeline)
    keeper.wait()
  }

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
    try Shell.run(
      "curl",
      [
        "-sS", "--fail-with-body", "-X", method, "--cacert", authorityFile, "--user",
        "\(Self.accessKey):\(Self.secretKey)", "--aws-sigv4", "aws:amz:us-east-1:s3",
      ] + more + [endpoint + path])
  }

  /// The store's section of a configuration file.
  package func configuration(bucket: String, prefix: String = "") -> String {
    """
    { s3: { bucket: \(bucket), prefix: "\(prefix)", endpoint: "\(endpoint)", ca_file: \(authorityFile), \
    access_key: \(Self.accessKey), secret_key: \(Self.secretKey) } }
    """
  }
}

/// Ports on the loopback address that nobody listens on.
package enum FreePorts {
  package static func take(_ count: Int) throws -> [Int] {
    var sockets: [Int32] = []
    defer { sockets.forEach { close($0) } }
    return try (0..<count).map { _ in
      let socket = Glibc.socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
      sockets.append(socket)
      var address = sockaddr_in()
      address.sin_family = sa_family_t(AF_INET)
      address.sin_addr.s_addr = UInt32(0x7f00_0001).bigEndian
      var length = socklen_t(MemoryLayout<sockaddr_in>.size)
      let outcome = withUnsafeMutablePointer(to: &address) { pointer in
        pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
          bind(socket, $0, length) == 0 ? getsockname(socket, $0, &length) : -1
        }
      }
      guard outcome == 0 else { throw Shell.Failure(description: "no free port") }
      return Int(UInt16(bigEndian: address.sin_port))
    }
  }
}
