"""A classifier in one file, which other programs run: resize, preparation, base and head as one
graph, and with it what must be known of it."""
