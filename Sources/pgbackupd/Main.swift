import ArgumentParser
import Crypto
import Hummingbird
import Logging
import NIOCore
import NIOPosix
import ServiceLifecycle
import Subprocess
import SystemPackage
import UnixSignals
import Yams

@main struct Probe { static func main() { print(SHA256.byteCount) } }
