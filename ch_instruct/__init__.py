"""From a base model to one that follows instructions."""

import common  # noqa: F401  # before anything here loads PyTorch
