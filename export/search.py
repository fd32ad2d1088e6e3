"""`python export/search.py` is the command `eet search`."""

import sys

from eet_tf.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["search", *sys.argv[1:]]))
