"""Files that the runner loads by their path, for artifacts that are not ours."""
