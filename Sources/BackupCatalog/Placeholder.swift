// BackupCatalog
