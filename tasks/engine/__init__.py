"""Brings a stage to completion: artifacts, shards, leases, progress, lineage; knows no stage."""
