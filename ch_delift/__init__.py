"""Which examples teach the most."""

import common  # noqa: F401  # before anything here loads PyTorch
