"""`python export/main.py` is the command `eet export`."""

import sys

from eet_tf.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["export", *sys.argv[1:]]))
