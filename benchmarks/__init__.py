"""Side by side: our bundle against what the peers give by default, and our own cost."""
