"""Mixup between what the model is sure of and what it is not."""

import common  # noqa: F401  # before anything here loads PyTorch
