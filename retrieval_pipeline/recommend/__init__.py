"""A person's taste: votes, the support vector machine that learns them, what to ask next.

Showing pictures and taking votes is left to `cli` and `web`.
"""
