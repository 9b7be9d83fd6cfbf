// BackupOperations
