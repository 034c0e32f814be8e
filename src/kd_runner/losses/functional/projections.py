"""Trained projections from the student's channels to the teacher's, one per level."""

from torch import nn

from kd_runner.losses.functional.maps import Features, matched


def projections(
    student: Features, teacher: Features, channel_dim: int = 1, bias: bool = False, always: bool = True
) -> nn.ModuleList:
    """1x1 convolutions from student to teacher channels, sized from example features.

    They stand on the student's side: on the teacher's they could shrink the target to a constant.

    Args:
        student: features as for `maps.matched`.
        teacher: likewise.
        channel_dim: 1, or -1 for tokens and token grids.
        bias: give each convolution a bias.
        always: also where the numbers of channels are equal; else such a level gets the identity.

    Returns:
        One layer per level.

    Source:
        Romero et al., "FitNets: Hints for Thin Deep Nets", ICLR 2015, section 3.
    """
    layers = nn.ModuleList()
    for maps, target, _ in matched(student, teacher, channel_dim=channel_dim):
        channels = maps.shape[1], target.shape[1]
        needed = always or channels[0] != channels[1]
        layers.append(nn.Conv2d(*channels, 1, bias=bias) if needed else nn.Identity())
    return layers
