"""Ray job: label photographs with a classifier. The options are those of `flowerray label`.

ray job submit --working-dir . -- python jobs/label_images.py --help
"""

import sys

from flowerray.cli import main

if __name__ == "__main__":
    sys.exit(main(["label", *sys.argv[1:]]))
