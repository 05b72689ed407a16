"""Ray job: turn photographs into feature shards. The options are those of `flowerray extract`.

ray job submit --working-dir . -- python jobs/extract_features.py --help
"""

import sys

from flowerray.cli import main

if __name__ == "__main__":
    sys.exit(main(["extract", *sys.argv[1:]]))
