// BackupConfiguration
