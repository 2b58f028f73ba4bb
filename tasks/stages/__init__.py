"""The stages, one file each, and beside them what only they use."""
