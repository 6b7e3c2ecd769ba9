"""How fast: against other ways of scoring, and what each part of the package costs."""
