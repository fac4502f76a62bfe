"""Fleet: the same questions to many machines at once, over Ray, and one answer made of theirs.

Only `cluster` knows Ray; `hand` is what runs on a node, and starts our own command line there as a
child; all else is thinking about what came back. Decision 16 says why it is cut like this.
"""
