"""The stages, one file each, and their helper modules."""
