"""Features to classes: the recipes that fit a head, cross-validation, and the classifier on disk.
Knows no Ray; imports `stores`, `sources`, `bases` and `outputs`.
"""
