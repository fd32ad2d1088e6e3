"""`python export/embed_beam.py` is the command `eet embed`."""

import sys

from eet_tf.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["embed", *sys.argv[1:]]))
