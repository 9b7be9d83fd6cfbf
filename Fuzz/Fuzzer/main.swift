import Glibc

/// libFuzzer's own main function, as a library call: SwiftPM has a main of its own.
@_silgen_name("LLVMFuzzerRunDriver")
func runFuzzer(
  _ count: UnsafeMutablePointer<CInt>,
  _ arguments: UnsafeMutablePointer<UnsafeMutablePointer<UnsafeMutablePointer<CChar>?>>,
  _ test: @convention(c) (UnsafePointer<UInt8>?, Int) -> CInt
) -> CInt

// `fuzzer TARGET [libFuzzer's arguments]`, or `fuzzer --list`.
let name = CommandLine.arguments.count > 1 ? CommandLine.arguments[1] : ""
if name == "--list" {
  for target in FuzzTarget.all { print(target.name) }
  exit(0)
}
guard let target = FuzzTarget.all.first(where: { $0.name == name }) else {
  print("usage: pgbackupd-fuzz TARGET [libFuzzer arguments]; pgbackupd-fuzz --list names the targets")
  exit(2)
}
FuzzTarget.selected = target
// The target's name is no argument of libFuzzer's. `argc` counts anew each time: it is read before the arguments move.
var count = CommandLine.argc - 1
var arguments = CommandLine.unsafeArgv
for position in 1...Int(count) { arguments[position] = arguments[position + 1] }
exit(
  runFuzzer(&count, &arguments) { start, count in
    FuzzTarget.selected?.run(Array(UnsafeBufferPointer(start: start, count: count)))
    return 0
  })
