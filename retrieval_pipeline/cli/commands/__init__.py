"""The subcommands of `retrieval`, one a module.

Only click is imported at the top: what is heavy is imported inside, so that --help is immediate.
"""
