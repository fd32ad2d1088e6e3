"""`python export/serve_demo.py` is the command `eet serve`."""

import sys

from eet_tf.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["serve", *sys.argv[1:]]))
