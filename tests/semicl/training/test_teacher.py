"""The teacher is the moving average of the network that is trained."""

import torch
from torch import nn

from semicl.training.teacher import follow


def test_the_teacher_is_the_moving_average_of_the_student() -> None:
    teacher, student = nn.Linear(2, 1), nn.Linear(2, 1)
    expected = teacher.weight.detach().clone()
    for step in range(1, 30):
        with torch.no_grad():
            student.weight.normal_()
        follow(teacher, student, decay=0.9, steps=step)
        share = min(0.9, 1 - 1 / (step + 1))
        expected = share * expected + (1 - share) * student.weight.detach()
        torch.testing.assert_close(teacher.weight.detach(), expected)
