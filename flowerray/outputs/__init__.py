"""What is written: the manifest, the record, shards and what is made of them, and whose turn it is
to write. Knows no engine and no Ray; imports `stores`, `sources` and the spec of `bases`.
"""
