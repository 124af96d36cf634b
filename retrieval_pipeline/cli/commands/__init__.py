"""The subcommands of `retrieval`, one in each module.

Their modules import only what is light; heavy modules are imported inside the functions, so that
`--help` answers at once.
"""
