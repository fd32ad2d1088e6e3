"""`python export/publish.py` is the command `eet publish`."""

import sys

from eet_tf.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["publish", *sys.argv[1:]]))
