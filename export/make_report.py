"""`python export/make_report.py` is the command `eet report`."""

import sys

from eet_tf.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["report", *sys.argv[1:]]))
