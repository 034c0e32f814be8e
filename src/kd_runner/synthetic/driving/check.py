"""Whether annotations and pictures agree: boxes, read from an info, projected onto the pixels of a new rendering."""

from dataclasses import dataclass

import numpy as np

from kd_runner.geometry.projection import lidar2img, project
from kd_runner.synthetic.driving.bench2drive_writer import Info
from kd_runner.synthetic.driving.cameras import RIG
from kd_runner.synthetic.driving.raster import render
from kd_runner.synthetic.driving.scene import Scene


@dataclass(frozen=True)
class Reprojection:
    """How many box centers fell on pixels of their own object, of something nearer, or of neither.

    `off` must be empty; it lists (camera, object number, column, row).
    """

    own: int
    hidden: int
    off: list[tuple[str, int, int, int]]


def reproject(scene: Scene, frame: int, info: Info, *, width: int, height: int) -> Reprojection:
    """Project the centers of an info's boxes by nothing but the info, and look up whose pixels they meet.

    Boxes marked as hardly seen (num_points 0) and those narrower than three pixels are left out: no ray through the
    middle of a pixel may meet them.

    Args:
        scene: the clip.
        frame: its number in the clip.
        info: entry of the frame in the info pickle.
        width: of the pictures.
        height: of the pictures.

    Returns:
        The projected centers and what they meet.
    """
    own, hidden, off = 0, 0, []
    boxes = info["gt_boxes"]
    for camera in RIG:
        sensor = info["sensors"][camera.name]
        matrix = lidar2img(sensor["cam2ego"], sensor["intrinsic"], info["sensors"]["LIDAR_TOP"]["lidar2ego"])
        picture = render(scene, frame, camera, width=width, height=height, random=np.random.default_rng(0))
        places, depths = project(boxes[:, :3], matrix)
        columns, rows = np.floor(places).astype(int).T
        narrow = sensor["intrinsic"][0, 0] * boxes[:, 3:6].min(1) < 3 * depths
        inside = (depths > 0.5) & (columns >= 0) & (columns < width) & (rows >= 0) & (rows < height)
        for n in np.flatnonzero(inside & ~narrow & (info["num_points"] != 0)):
            number = int(np.flatnonzero(scene.ids == info["gt_ids"][n])[0])
            if picture.ids[rows[n], columns[n]] == number:
                own += 1
            elif picture.depth[rows[n], columns[n]] < depths[n]:
                hidden += 1
            else:
                off.append((camera.name, number, int(columns[n]), int(rows[n])))
    return Reprojection(own, hidden, off)
