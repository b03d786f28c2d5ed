"""What every chapter needs."""

from common.support import threads

threads.prepare()  # before anything loads PyTorch; every chapter imports this first
