"""`python export/index_admin.py` is the command `eet index`."""

import sys

from eet_tf.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["index", *sys.argv[1:]]))
