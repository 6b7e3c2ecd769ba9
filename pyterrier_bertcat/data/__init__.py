"""The files of a run: the run itself, its topics, texts and qrels, read as they come, and runs written."""
