"""Engines: each answers prompts through the `Sampler` port."""
