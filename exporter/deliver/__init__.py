"""What comes out: cache, bundle, manifest, reports."""
