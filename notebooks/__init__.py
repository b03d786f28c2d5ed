"""The chapters as stories, and exercises."""

import common  # noqa: F401  # before anything here loads PyTorch
