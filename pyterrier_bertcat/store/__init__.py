"""Scores kept by content, on disk: ``score_store`` is what users get; one SQLite file, its export and its repair."""
