"""How it runs: the connection to Ray, the plan of actors, photographs through a base into shards,
the trainer task. Here and in `commands` alone Ray is known; imports every room before.
"""
