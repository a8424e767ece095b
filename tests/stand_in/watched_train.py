"""`python -m metaapo.train` under observation, for tests: a slow disk, a sudden death, and what memory holds.

SLOW_SAVE=20           the first checkpoint takes so many seconds to write
DIE=1                  the process is killed when it starts to train
ALIVE=FILE             note the shapes of all large tensors that are alive when an engine starts
"""

import gc
import json
import os
import signal
import time

import torch
from transformers import PreTrainedModel

from metaapo.loop import trainer
from metaapo.models.vllm_backend import Engine
from metaapo.train import main

LARGE = 1000  # elements; the smallest matrix of the tests' models has 1024, the meta-learner's largest 64
save, start, train_epoch = PreTrainedModel.save_pretrained, Engine._start, trainer.train_epoch
slow = [float(os.environ.get("SLOW_SAVE", "0"))]


def slow_save(self, *args, **kwargs):
    time.sleep(slow.pop() if slow else 0)
    return save(self, *args, **kwargs)


def noted_start(self, request):
    if os.environ.get("ALIVE"):
        found = [o for o in gc.get_objects() if isinstance(o, torch.Tensor) and o.numel() >= LARGE]
        with open(os.environ["ALIVE"], "a") as file:
            file.write(json.dumps([list(tensor.shape) for tensor in found]) + "\n")
    return start(self, request)


def deadly_epoch(*args, **kwargs):
    if os.environ.get("DIE"):
        os.kill(os.getpid(), signal.SIGKILL)
    return train_epoch(*args, **kwargs)


PreTrainedModel.save_pretrained, Engine._start, trainer.train_epoch = slow_save, noted_start, deadly_epoch

if __name__ == "__main__":
    main()
