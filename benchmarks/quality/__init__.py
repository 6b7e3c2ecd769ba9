"""How good: rankings, the treatment of long documents, explanations."""
