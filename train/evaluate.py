"""`python train/evaluate.py` is the command `eet evaluate`."""

import sys

from eet_tf.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["evaluate", *sys.argv[1:]]))
