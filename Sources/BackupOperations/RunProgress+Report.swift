package import ControlAPI

extension RunReport.Progress {
  /// As it is told over the control socket.
  package init(_ progress: RunProgress) {
    self.init(
      phase: progress.phase.rawValue, archiveBytes: progress.archiveBytes, storedBytes: progress.storedBytes,
      expectedBytes: progress.expectedBytes, table: progress.table)
  }
}
