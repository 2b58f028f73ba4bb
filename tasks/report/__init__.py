"""The report of a run: its data, texts, figures and page."""
