/// What the journal's entries are about: each kind has a MESSAGE_ID of its own (journalctl(1), `-x`), which never changes. The
/// texts that explain them are in `systemd/pgbackupd.catalog`; a test sees that none is missing.
package enum JournalEvent: String, Sendable, CaseIterable {
  case daemonReady = "3ceaaf30814248ea91d93080f9b439fc"
  case daemonStopping = "9dfb369bab134faea27655daa05f1119"
  case backupSucceeded = "6301bbfca0c5454e8ff9bb510944fe0c"
  case runFailed = "6fced11d2bd841e6847a8387cdde8d51"
  case runAborted = "3a124c647e024f05b7c1dce27f7695f5"
  case runInterrupted = "66080f174c9648e29cbd0ba3a1a6bcde"
  case runSkipped = "b120a366f0bb49cf82f2dc05873f9bd0"
  case runPostponed = "a4e3ba46701347bb9e5f2e8b13e59142"
  case configurationReloaded = "78b7d0ac84774ce08e4cda11b43c589b"
  case configurationRejected = "2330fcf1562a44b888668d77e827062c"
  case ledgerRepaired = "c1acc9906424450aa36bf9b3ddcb369d"
  case ledgerDamaged = "9ad9b9a25e78454db065a1c284cc4549"
  case watchdogWithheld = "993565976fba4662b6a730b7b12e9eed"
  case storeUnusable = "8df08078a22e418085c2c2af3977a654"
  case restoreSucceeded = "24a29836a8474bb5870700f7609c7791"
  case databaseRolledBack = "7591d6048d264c64b1331b4024511082"
  case keptDropped = "3db62098977343ceae9ae0f809fdac66"
  case backupDoubtful = "d1f6b3a2c8e74f0a9b5d6e1c4a7f8b90"
  case backupsVerified = "5b8cbd7a2fbd4f4d9f8d2d4a7e5e6c31"
  case placementDamaged = "a7e3c1f0b9d24c6e8a51f2d07c3b9e64"
  case drillSucceeded = "c2f4a9d81e6b4b7f93a0d5e8174c6b2f"
  case backupCopied = "7cb91f3d9c39401d94d7563a69e54aef"
  case backupDeleted = "f3194a3b381e43e7952c466e473a1797"
  case leftoversSwept = "c498b6e73648445e9afa3a387f006745"
  case zonesChanged = "ab57f985433243daa75a2e199b58ba8d"
  case clockCorrected = "3f1c5c0be4a84bb0a2d8b7b90f2c6d11"
  case stateDump = "c1b87f1a7323491b99f9cbef0f69a4d0"

  package var messageID: String { rawValue }
}
