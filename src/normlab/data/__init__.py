"""Images as files, the split, distributions of features."""
