import notebooks  # noqa: F401  # before nbformat is loaded
