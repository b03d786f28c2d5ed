"""From plain text to a base model that continues it."""

import common  # noqa: F401  # before anything here loads PyTorch
