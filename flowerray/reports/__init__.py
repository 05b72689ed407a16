"""Pages and pictures for people: the report of a classifier or of labels, and galleries. Knows no
Ray; imports `sources`, `outputs`, `heads` and `trust`.
"""
