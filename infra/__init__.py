"""Adapters to the outside (store, tracking, engines, settings) and deployment files."""
