"""`python -m trainer.ckpt`."""

import sys

from trainer.cli.ckpt import main

if __name__ == "__main__":
    sys.exit(main())
