// swift-tools-version: 6.2
import PackageDescription

// A package of its own, so that normal builds don't pay for it. Its targets are links to the product's sources: what is
// measured is the same code, reached through its `package` access.

let settings: [SwiftSetting] = [
  .swiftLanguageMode(.v6),
  .enableUpcomingFeature("ExistentialAny"),
  .enableUpcomingFeature("MemberImportVisibility"),
  .enableUpcomingFeature("InternalImportsByDefault"),
  .enableUpcomingFeature("NonisolatedNonsendingByDefault"),
]

let package = Package(
  name: "Benchmarks",
  dependencies: [
    .package(url: "https://github.com/apple/swift-collections.git", from: "1.6.0"),
    .package(url: "https://github.com/apple/swift-crypto.git", from: "4.5.0"),
    .package(url: "https://github.com/apple/swift-metrics.git", from: "2.13.0"),
    .package(url: "https://github.com/apple/swift-system.git", from: "1.8.0"),
    .package(url: "https://github.com/swiftlang/swift-subprocess.git", from: "1.0.2"),
  ],
  targets: [
    .systemLibrary(name: "CCurl", pkgConfig: "libcurl"),
    .systemLibrary(name: "CXXHash", pkgConfig: "libxxhash"),
    .systemLibrary(name: "CZlib", pkgConfig: "zlib"),
    .systemLibrary(name: "CZstd", pkgConfig: "libzstd"),
    .target(name: "Units", swiftSettings: settings),
    .target(name: "CronSchedule", dependencies: ["Units"], swiftSettings: settings),
    .target(name: "PostgresArchive", dependencies: ["CXXHash", "Units"], swiftSettings: settings),
    .target(
      name: "AgeEncryption",
      dependencies: [
        .product(name: "Crypto", package: "swift-crypto"), .product(name: "CryptoExtras", package: "swift-crypto"),
      ], swiftSettings: settings),
    .target(
      name: "ArtifactFormat",
      dependencies: ["AgeEncryption", "CZstd", "CZlib", .product(name: "Crypto", package: "swift-crypto")],
      swiftSettings: settings),
    .target(name: "CPlatform"),
    .target(name: "Faults", swiftSettings: settings),
    .target(name: "QueueExecution", swiftSettings: settings),
    .target(name: "Storage", dependencies: ["CPlatform", "Faults", "QueueExecution", "Units"], swiftSettings: settings),
    .target(name: "HTTPTransport", dependencies: ["CCurl", "QueueExecution", "Units"], swiftSettings: settings),
    .target(
      name: "OutsidePrograms",
      dependencies: [
        "CPlatform", "Faults", "Units", .product(name: "Subprocess", package: "swift-subprocess"),
        .product(name: "SystemPackage", package: "swift-system"),
      ], swiftSettings: settings),
    .target(
      name: "S3Storage",
      dependencies: [
        "Faults", "HTTPTransport", "OutsidePrograms", "Storage", "Units", .product(name: "CoreMetrics", package: "swift-metrics"),
        .product(name: "Crypto", package: "swift-crypto"),
      ],
      swiftSettings: settings),
    .executableTarget(
      name: "micro",
      dependencies: [
        "AgeEncryption", "ArtifactFormat", "CronSchedule", "HTTPTransport", "PostgresArchive", "S3Storage", "Storage", "Units", .product(name: "HeapModule", package: "swift-collections"),
      ], swiftSettings: settings),
  ]
)
