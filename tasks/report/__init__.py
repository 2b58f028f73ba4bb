"""The report of a run: what it shows, its figures, its page."""
