"""Trains as tests/rrt/training/test_resume.py says and kills itself at a step: `python killed_training.py
ARGUMENTS.json STEP`."""

import json
import os
import signal
import sys

from rrt.configs import read_settings
from rrt.training.run import train_run
from rrt.training.settings import ExperimentSettings
from rrt.training.trainer import Trainer

if __name__ == "__main__":
    with open(sys.argv[1]) as file:
        arguments = json.load(file)
    step = Trainer._step

    def killed(self, *rest):
        if self.progress.step == int(sys.argv[2]):
            os.kill(os.getpid(), signal.SIGKILL)
        step(self, *rest)

    Trainer._step = killed
    train_run(read_settings(ExperimentSettings, arguments))
