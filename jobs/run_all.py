"""Ray job: extract, train and label in one go. The options are those of `flowerray run`.

ray job submit --working-dir . -- python jobs/run_all.py --help
"""

import sys

from flowerray.cli import main

if __name__ == "__main__":
    sys.exit(main(["run", *sys.argv[1:]]))
