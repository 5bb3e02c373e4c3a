"""Subcommands of `anypool`, one a file: `add_arguments` describes it, `run` does it."""
