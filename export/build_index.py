"""`python export/build_index.py` is the command `eet index build`."""

import sys

from eet_tf.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["index", "build", *sys.argv[1:]]))
