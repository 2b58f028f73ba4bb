"""The engine that runs a stage: artifacts, shards, leases, progress, lineage."""
