// BackupDaemon
