"""Adapters to external services (store, tracking, engines, settings) and deployment files."""
