"""`python train/compare.py` is the command `eet compare`."""

import sys

from eet_tf.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["compare", *sys.argv[1:]]))
