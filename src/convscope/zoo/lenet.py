"""LeNet-5 (LeCun et al. 1998) with rectifiers and max pooling, which deconvnets need."""

from __future__ import annotations

from collections import OrderedDict

from torch import nn

MEAN, STD = 0.1307, 0.3081
"""Of MNIST's pixels in [0, 1]."""


def lenet5() -> nn.Sequential:
    """Build LeNet-5 for 28x28 grey digits: 61,706 parameters."""
    return nn.Sequential(
        OrderedDict(
            conv1=nn.Conv2d(1, 6, 5, padding=2),
            relu1=nn.ReLU(),
            pool1=nn.MaxPool2d(2),
            conv2=nn.Conv2d(6, 16, 5),
            relu2=nn.ReLU(),
            pool2=nn.MaxPool2d(2),
            conv3=nn.Conv2d(16, 120, 5),
            relu3=nn.ReLU(),
            flatten=nn.Flatten(),
            fc4=nn.Linear(120, 84),
            relu4=nn.ReLU(),
            fc5=nn.Linear(84, 10),
        )
    )
