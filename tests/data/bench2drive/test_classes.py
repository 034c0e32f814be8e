"""CARLA types to classes."""

import pytest

from kd_runner.data.bench2drive.classes import CLASSES, class_of


@pytest.mark.parametrize(
    ("type_id", "name"),
    [
        ("vehicle.lincoln.mkz_2020", "car"),
        ("/Game/Carla/Static/Car/4Wheeled/ParkedVehicles/TeslaM3/SM_TeslaM3_parked.SM_TeslaM3_parked", "car"),
        ("/Game/Carla/Static/Car/4Wheeled/ParkedVehicles/VolkswagenT2/SM_VolkswagenT2_2021_Parked.SM_X", "van"),
        ("vehicle.carlamotors.firetruck", "truck"),
        ("vehicle.gazelle.omafiets", "bicycle"),
        ("traffic.speed_limit.120", "traffic_sign"),
        ("static.prop.trafficwarning", "traffic_cone"),
        ("walker.pedestrian.0047", "pedestrian"),
        ("static.prop.dirtdebris02", "others"),
        ("van", "van"),  # the public loader writes class names into its infos
    ],
)
def test_carla_types(type_id: str, name: str) -> None:
    assert CLASSES[class_of(type_id)] == name
    assert class_of("vehicle.nobody.knows") == -1
