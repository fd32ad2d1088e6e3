"""`python -m eet_tf.convert` is the command `eet convert`."""

import sys

from eet_tf.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["convert", *sys.argv[1:]]))
