"""People look at labels and decide: a page on this machine, and the server behind it."""
