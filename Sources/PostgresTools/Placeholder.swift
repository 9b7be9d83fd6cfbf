// PostgresTools
