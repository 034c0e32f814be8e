"""A scene painted so that a small net can learn to read it in minutes: one color a class, and light that stays."""

from dataclasses import replace

import numpy as np

from kd_runner.synthetic.driving.scene import Scene, Weather

# Hues far from each other, from the ground and from the sky.
COLOURS = {
    "car": (0.90, 0.10, 0.10),
    "van": (0.98, 0.55, 0.05),
    "truck": (0.55, 0.12, 0.80),
    "bicycle": (0.05, 0.80, 0.80),
    "pedestrian": (0.10, 0.25, 0.95),
    "traffic_cone": (1.00, 0.40, 0.75),
    "traffic_sign": (0.98, 0.95, 0.10),
    "traffic_light": (0.10, 0.95, 0.20),
}
_GREY = 0.45


def in_toy_colors(scene: Scene) -> Scene:
    """The same scene with blocks of its class's color, darker behind, gray scenery, and mild weather.

    Args:
        scene: the clip.

    Returns:
        The clip in other colors.
    """
    objects, scenery = scene.objects, scene.scenery
    colors = np.array([COLOURS.get(name, (1.0, 1.0, 1.0)) for name in scene.names]).reshape(-1, 3)
    air = scene.weather
    return replace(
        scene,
        objects=replace(objects, colors=colors, surfaces=("block",) * len(scene.names)),
        scenery=replace(scenery, colors=np.full_like(scenery.colors, _GREY), surfaces=("",) * len(scenery.sizes)),
        weather=Weather(air.number, 0.9 + 0.1 * air.brightness, 0.25 * air.haze, air.noise, air.sky),
    )
