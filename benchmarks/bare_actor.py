"""The least that any Ray job with a VGG16 in an actor needs: prints when the model is built."""

import os
import time

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import ray


@ray.remote
class Actor:
    def __init__(self) -> None:
        import keras

        self.base = keras.applications.VGG16(
            weights=None, include_top=False, input_shape=(224, 224, 3)
        )

    def ready(self) -> float:
        return time.time()


ray.init("local", logging_level="ERROR", log_to_driver=False)
print(ray.get(Actor.remote().ready.remote()))
