// swift-tools-version: 6.2
import PackageDescription

// A target is the only wall Swift has, so each layer is a target and each row says what it may import.
// `make build` passes `--explicit-target-dependency-import-check error`: what is not listed here does not compile.

let strict: [SwiftSetting] = [
  .swiftLanguageMode(.v6),
  .enableUpcomingFeature("ExistentialAny"),
  .enableUpcomingFeature("MemberImportVisibility"),
  .enableUpcomingFeature("InternalImportsByDefault"),
  .enableUpcomingFeature("NonisolatedNonsendingByDefault"),
  .enableUpcomingFeature("InferIsolatedConformances"),
  .treatAllWarnings(as: .error),
  .treatWarning("DeprecatedDeclaration", as: .warning),
]

/// Only scripts/fuzz.sh sets it: then the rooms are instrumented for libFuzzer, and the fuzzer is the only program.
let isFuzzing = Context.environment["PGBACKUPD_FUZZ"] != nil
let instrumented = ["-sanitize=fuzzer,address"]

/// - Parameters:
///   - isAlwaysOptimised: also in a debug build. For rules that tests walk through by the million.
///   - path, sources: of a room whose files lie in another one's folder.
func room(
  _ name: String, _ dependencies: [Target.Dependency] = [], isAlwaysOptimised: Bool = false, path: String? = nil,
  sources: [String]? = nil
) -> Target {
  let optimised: [SwiftSetting] =
    isAlwaysOptimised || isFuzzing ? [.unsafeFlags(["-O"], .when(configuration: .debug))] : []
  let fuzzed: [SwiftSetting] = isFuzzing ? [.unsafeFlags(instrumented)] : []
  return .target(
    name: name, dependencies: dependencies, path: path, sources: sources, swiftSettings: strict + optimised + fuzzed)
}

func program(_ name: String, _ dependencies: [Target.Dependency]) -> Target {
  .executableTarget(name: name, dependencies: dependencies, swiftSettings: strict)
}

func tests(_ name: String, _ dependencies: [Target.Dependency], resources: [Resource] = []) -> Target {
  .testTarget(name: name, dependencies: dependencies, resources: resources, swiftSettings: strict)
}

let argumentParser = Target.Dependency.product(name: "ArgumentParser", package: "swift-argument-parser")
let crypto = Target.Dependency.product(name: "Crypto", package: "swift-crypto")
let cryptoExtras = Target.Dependency.product(name: "CryptoExtras", package: "swift-crypto")
let heap = Target.Dependency.product(name: "HeapModule", package: "swift-collections")
let hummingbird = Target.Dependency.product(name: "Hummingbird", package: "hummingbird")
let hummingbirdCore = Target.Dependency.product(name: "HummingbirdCore", package: "hummingbird")
let httpTypes = Target.Dependency.product(name: "HTTPTypes", package: "swift-http-types")
let lifecycle = Target.Dependency.product(name: "ServiceLifecycle", package: "swift-service-lifecycle")
let logging = Target.Dependency.product(name: "Logging", package: "swift-log")
let coreMetrics = Target.Dependency.product(name: "CoreMetrics", package: "swift-metrics")
let nioCore = Target.Dependency.product(name: "NIOCore", package: "swift-nio")
let nioPosix = Target.Dependency.product(name: "NIOPosix", package: "swift-nio")
let subprocess = Target.Dependency.product(name: "Subprocess", package: "swift-subprocess")
let systemPackage = Target.Dependency.product(name: "SystemPackage", package: "swift-system")
let unixSignals = Target.Dependency.product(name: "UnixSignals", package: "swift-service-lifecycle")
let yams = Target.Dependency.product(name: "Yams", package: "Yams")

let package = Package(
  name: "pgbackupd",
  products: [
    .executable(name: "pgbackupd", targets: ["pgbackupd"]),
    .executable(name: "pgbackupctl", targets: ["pgbackupctl"]),
    // Preloaded into the daemon by tests: a clock of its own.
    .library(name: "ClockShift", type: .dynamic, targets: ["ClockShift"]),
    // And a disk that stops answering.
    .library(name: "HangingDisk", type: .dynamic, targets: ["HangingDisk"]),
    // And, into a server, a disk that is full.
    .library(name: "FullDisk", type: .dynamic, targets: ["FullDisk"]),
  ],
  dependencies: [
    .package(url: "https://github.com/apple/swift-argument-parser.git", from: "1.8.0"),
    .package(url: "https://github.com/apple/swift-collections.git", from: "1.6.0"),
    .package(url: "https://github.com/apple/swift-crypto.git", from: "4.5.0"),
    .package(url: "https://github.com/apple/swift-http-types.git", from: "1.8.0"),
    .package(url: "https://github.com/apple/swift-log.git", from: "1.16.0"),
    .package(url: "https://github.com/apple/swift-metrics.git", from: "2.13.0"),
    .package(url: "https://github.com/apple/swift-nio.git", from: "2.101.0"),
    .package(url: "https://github.com/apple/swift-system.git", from: "1.8.0"),
    .package(url: "https://github.com/hummingbird-project/hummingbird.git", from: "2.28.0", traits: []),
    .package(url: "https://github.com/jpsim/Yams.git", from: "6.2.0"),
    .package(url: "https://github.com/swift-server/swift-service-lifecycle.git", from: "2.13.0"),
    .package(url: "https://github.com/swiftlang/swift-subprocess.git", from: "1.0.2"),
  ],
  targets: [
    // C libraries, and what Glibc's Swift module hides
    .systemLibrary(name: "CCurl", pkgConfig: "libcurl", providers: [.apt(["libcurl4-openssl-dev"])]),
    .systemLibrary(name: "CLibPQ", pkgConfig: "libpq", providers: [.apt(["libpq-dev"])]),
    .systemLibrary(name: "CSeccomp", pkgConfig: "libseccomp", providers: [.apt(["libseccomp-dev"])]),
    .systemLibrary(name: "CSystemd", pkgConfig: "libsystemd", providers: [.apt(["libsystemd-dev"])]),
    .systemLibrary(name: "CXXHash", pkgConfig: "libxxhash", providers: [.apt(["libxxhash-dev"])]),
    .systemLibrary(name: "CZlib", pkgConfig: "zlib", providers: [.apt(["zlib1g-dev"])]),
    .systemLibrary(name: "CZstd", pkgConfig: "libzstd", providers: [.apt(["libzstd-dev"])]),
    .target(name: "CPlatform"),
    .target(name: "CConfinement", dependencies: ["CSeccomp"]),

    // Words that every layer speaks
    room("Faults", ["Quoting"]),
    room("Quoting"),
    room("Units", isAlwaysOptimised: true),
    room("QueueExecution"),

    // Rules: values in, values out
    room("CronSchedule", ["Units"], isAlwaysOptimised: true),
    room("PostgresArchive", ["CXXHash", "Quoting", "Units"]),
    room("BackupCatalog", ["Faults", "Quoting", "Units"]),
    room("AgeEncryption", ["Quoting", "Units", crypto, cryptoExtras]),
    room("MetricsText", ["Quoting", coreMetrics]),
    room("ArtifactFormat", ["AgeEncryption", "CZstd", "CZlib", "Quoting", "Units", crypto]),

    // Edges: each hides one thing outside the process
    room("Storage", ["CPlatform", "Faults", "QueueExecution", "Units"]),
    room("Confinement", ["CConfinement", "Faults", "QueueExecution", "Quoting", "Units"]),
    room(
      "PostgresTools",
      [
        "CLibPQ", "Confinement", "CPlatform", "Faults", "QueueExecution", "Quoting", "Units", logging,
      ]),
    room("HTTPTransport", ["CCurl", "QueueExecution", "Quoting", "Units"]),
    room(
      "S3Storage", ["Faults", "HTTPTransport", "OutsidePrograms", "Quoting", "Storage", "Units", coreMetrics, crypto]),
    room("OutsidePrograms", ["CPlatform", "Faults", "Quoting", "Units", subprocess, systemPackage]),
    room("Notifications", ["Faults", "HTTPTransport", "OutsidePrograms", "Quoting", "Units", crypto]),
    room("SystemdSupport", ["CSystemd", "Faults", "Quoting", logging]),
    room("ControlAPI", ["BackupCatalog", "Faults", "Quoting", "Units"]),

    // Pages: reports as HTML
    room("Pages", ["BackupCatalog", "ControlAPI", "Faults", "Quoting", "Units"]),

    // Operations: each runs once, given its collaborators
    room(
      "BackupOperations",
      [
        "AgeEncryption", "ArtifactFormat", "BackupCatalog", "ControlAPI", "CPlatform", "Faults",
        "OutsidePrograms", "PostgresArchive",
        "PostgresTools", "QueueExecution", "Quoting",
        "Storage",
        "Units", crypto, logging,
      ]),

    // The daemon: when an operation runs and what is running now
    room(
      "BackupDaemon",
      [
        "AgeEncryption", "ArtifactFormat", "BackupCatalog", "BackupOperations", "Confinement", "ControlAPI",
        "CPlatform",
        "CronSchedule", "Faults",
        "MetricsText", "Notifications", "OutsidePrograms", "Pages", "PostgresTools", "QueueExecution", "Quoting",
        "Storage", "SystemdSupport", "Units", heap, httpTypes, hummingbird, hummingbirdCore, lifecycle, logging,
        nioCore,
        nioPosix, unixSignals,
      ]),

    // Composition: a file becomes values, values become objects
    room(
      "BackupConfiguration",
      [
        "AgeEncryption", "ArtifactFormat", "BackupCatalog", "CronSchedule", "Faults", "HTTPTransport", "Notifications",
        "OutsidePrograms", "PostgresTools", "Quoting",
        "S3Storage",
        "Units", yams,
      ]),
    room(
      "StoreAssembly",
      ["BackupConfiguration", "ControlAPI", "HTTPTransport", "S3Storage", "Storage", "Units"]),
    program(
      "pgbackupd",
      [
        "AgeEncryption", "ArtifactFormat", "BackupCatalog", "BackupConfiguration", "BackupDaemon", "BackupOperations",
        "Confinement", "ControlAPI", "CPlatform", "Faults",
        "CronSchedule", "MetricsText", "OutsidePrograms", "PostgresTools", "Quoting", "Storage", "StoreAssembly",
        "SystemdSupport", "Units",
        argumentParser, coreMetrics, lifecycle, logging,
        unixSignals,
      ]),
    program(
      "pgbackupctl",
      [
        "AgeEncryption", "ArtifactFormat", "BackupCatalog", "BackupConfiguration", "BackupOperations", "Confinement",
        "ControlAPI",
        "CronSchedule", "Faults", "OutsidePrograms", "Pages", "PostgresTools", "Quoting", "S3Storage", "Storage",
        "StoreAssembly", "Units",
        argumentParser,
        logging,
      ]),

    // Tests: real servers, real processes; the helpers are a target of their own
    .target(
      name: "TestSupport", dependencies: ["CPlatform", "CronSchedule", "Storage", "Units"], path: "Tests/TestSupport",
      exclude: [
        "browser.py", "faults.py", "forward.py", "ledger_year.py", "lying_s3.py", "password_thief.py", "sinks.py",
        "tunnels.py",
      ],
      swiftSettings: strict),
    .target(name: "ClockShift", path: "Tests/ClockShift"),
    .target(name: "HangingDisk", path: "Tests/HangingDisk"),
    .target(name: "FullDisk", path: "Tests/FullDisk"),
    tests("QuotingTests", ["PostgresTools", "Quoting", "TestSupport"]),
    tests("UnitsTests", ["Units", "Faults", "TestSupport"]),
    tests("CronScheduleTests", ["CronSchedule", "TestSupport", "Units", crypto], resources: [.copy("Vectors")]),
    tests("PostgresArchiveTests", ["PostgresArchive"], resources: [.copy("Golden")]),
    tests("BackupCatalogTests", ["BackupCatalog", "Faults", "Quoting", "Units"]),
    tests("AgeEncryptionTests", ["AgeEncryption", "CZlib", "TestSupport", crypto], resources: [.copy("Vectors")]),
    tests("ArtifactFormatTests", ["ArtifactFormat", "TestSupport"]),
    tests("StorageTests", ["Faults", "HTTPTransport", "S3Storage", "Storage", "TestSupport", "Units", crypto]),
    tests(
      "BackupConfigurationTests",
      [
        "ArtifactFormat", "BackupCatalog", "BackupConfiguration", "CronSchedule", "Faults", "PostgresTools",
        "S3Storage", "TestSupport", "Units",
      ]),
    tests(
      "BackupDaemonTests",
      [
        "ArtifactFormat", "BackupCatalog", "BackupDaemon", "BackupOperations", "ControlAPI", "CronSchedule", "Faults",
        "HTTPTransport",
        "MetricsText", "Notifications", "PostgresTools", "Quoting", "Storage", "SystemdSupport", "TestSupport", "Units",
        httpTypes, logging,
      ]),
    tests(
      "BackupOperationsTests",
      [
        "AgeEncryption", "ArtifactFormat", "BackupCatalog", "BackupOperations", "Confinement", "Faults",
        "HTTPTransport", "OutsidePrograms", "PostgresArchive", "PostgresTools", "Quoting", "S3Storage", "Storage",
        "TestSupport", "Units", logging,
      ], resources: [.copy("Golden")]),
    tests("MetricsTextTests", ["MetricsText", coreMetrics]),
    tests(
      "NotificationsTests", ["Faults", "HTTPTransport", "Notifications", "OutsidePrograms", "TestSupport", "Units"]),
    tests("SystemdSupportTests", ["Faults", "SystemdSupport", "TestSupport", logging]),
    tests("EndToEndTests", ["TestSupport"]),
  ]
)

if isFuzzing {
  package.products = [.executable(name: "pgbackupd-fuzz", targets: ["pgbackupd-fuzz"])]
  package.targets.removeAll {
    ["BackupDaemon", "pgbackupd", "pgbackupctl"].contains($0.name) || $0.type == .test
  }
  package.targets += [
    // The ledger's records alone: the daemon around them would bring Hummingbird and NIO.
    room(
      "LedgerRecords",
      ["ArtifactFormat", "BackupCatalog", "ControlAPI", "CronSchedule", "Faults", "Quoting", "Units", heap],
      path: "Sources/BackupDaemon",
      sources: ["LedgerRecord.swift", "RunHistory.swift", "RunTotals.swift", "ScheduleTable.swift"]),
    .executableTarget(
      name: "pgbackupd-fuzz",
      dependencies: [
        "AgeEncryption", "ArtifactFormat", "BackupCatalog", "BackupConfiguration", "ControlAPI", "CronSchedule",
        "Faults", "LedgerRecords", "PostgresArchive", "PostgresTools", "Quoting", "S3Storage", "Units",
      ],
      path: "Fuzz/Fuzzer", swiftSettings: strict + [.unsafeFlags(["-O"] + instrumented)],
      linkerSettings: [.unsafeFlags(instrumented + ["-use-ld=lld"])]),
  ]
}
