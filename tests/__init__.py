"""They mirror the source tree."""

import common  # noqa: F401  # before anything here loads PyTorch
