import numpy as np

from kd_runner.synthetic.driving.cameras import RIG
from kd_runner.synthetic.driving.raster import render
from kd_runner.synthetic.driving.scene import make_scene
from kd_runner.synthetic.driving.toy_colors import COLOURS, in_toy_colors


def test_pixels_of_an_object_have_its_class_s_hue_and_nothing_else_moves() -> None:
    scene = make_scene(random=np.random.default_rng(3), route=0, town="Town01", origin=(0.0, 0.0), frames=[0])
    toy, seen = in_toy_colors(scene), set()
    assert toy.names == scene.names and np.array_equal(toy.objects.centers, scene.objects.centers)
    for camera in RIG:
        plain, picture = (
            render(s, 0, camera, width=160, height=90, random=np.random.default_rng(0)) for s in (scene, toy)
        )
        assert np.array_equal(plain.ids, picture.ids)
        for number in np.unique(picture.ids[picture.ids >= 0]):
            pixels, name = picture.image[picture.ids == number].astype(float), toy.names[number]
            if len(pixels) >= 30:
                hue = pixels.mean(0) / np.linalg.norm(pixels.mean(0))
                scores = {other: hue @ np.array(c) / np.linalg.norm(c) for other, c in COLOURS.items()}
                assert max(scores, key=scores.get) == name
                seen.add(name)
    assert len(seen) >= 3
