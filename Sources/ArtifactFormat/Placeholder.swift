// ArtifactFormat
