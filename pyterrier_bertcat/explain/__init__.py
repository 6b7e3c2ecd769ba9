"""Looking inside: which words of a query and a text make their score, by occlusion and by integrated gradients.

``explainer`` is what the re-ranker calls; ``explanations`` is what users get; ``rendering`` draws it.
"""
