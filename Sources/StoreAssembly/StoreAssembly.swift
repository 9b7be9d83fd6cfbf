package import BackupConfiguration
import ControlAPI
import Foundation
import HTTPTransport
import S3Storage
package import Storage

/// Makes a store of its configuration: the one place where stores are built, for the daemon and for work without one.
package enum StoreAssembly {
  package static func make(_ store: Configuration.Store) -> any ObjectStore {
    let made: any ObjectStore
    switch store.place {
    case .local(let path): made = LocalStore(name: store.name, root: path)
    case .s3(let settings):
      made = S3Store(
        name: store.name, settings: settings,
        transport: CurlTransport(.init(authorityFile: settings.authorityFile, proxy: settings.proxy)),
        environment: ProcessInfo.processInfo.environment,
        readFile: { try String(contentsOfFile: $0, encoding: .utf8) }, now: SystemClock.now)
    }
    return store.rateLimit.map { ThrottledStore(made, bytesPerSecond: $0) } ?? made
  }
}
