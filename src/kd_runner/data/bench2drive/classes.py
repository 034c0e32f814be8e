"""Cameras and classes of Bench2Drive, and the mapping from CARLA's type names to classes."""

CAMERAS = ("CAM_FRONT", "CAM_FRONT_LEFT", "CAM_FRONT_RIGHT", "CAM_BACK", "CAM_BACK_LEFT", "CAM_BACK_RIGHT")
CLASSES = ("car", "van", "truck", "bicycle", "traffic_sign", "traffic_cone", "traffic_light", "pedestrian", "others")
LINE_CLASSES = ("Broken", "Solid", "SolidSolid", "Center", "TrafficLight", "StopSign")

# CARLA types of each class, as in ORION's configuration; _CLASS_OF_PREFIX holds the two families with many members.
_TYPES = {
    "bicycle": "vehicle.bh.crossbike vehicle.diamondback.century vehicle.gazelle.omafiets",
    "car": "vehicle.audi.etron vehicle.audi.tt vehicle.chevrolet.impala vehicle.dodge.charger_2020 "
    "vehicle.dodge.charger_police vehicle.dodge.charger_police_2020 vehicle.ford.crown vehicle.ford.mustang "
    "vehicle.lincoln.mkz_2017 vehicle.lincoln.mkz_2020 vehicle.mercedes.coupe_2020 vehicle.mini.cooper_s_2021 "
    "vehicle.nissan.patrol_2021 vehicle.tesla.model3",
    "van": "vehicle.ford.ambulance",
    "truck": "vehicle.carlamotors.firetruck",
    "traffic_sign": "traffic.stop traffic.yield",
    "traffic_light": "traffic.traffic_light",
    "traffic_cone": "static.prop.constructioncone static.prop.trafficwarning static.prop.warningaccident "
    "static.prop.warningconstruction",
    "others": "static.prop.dirtdebris01 static.prop.dirtdebris02",
}
_CLASS_OF = {type_id: name for name, type_ids in _TYPES.items() for type_id in type_ids.split()}
_CLASS_OF_PREFIX = {"walker.pedestrian.": "pedestrian", "traffic.speed_limit.": "traffic_sign"}


def class_of(type_id: str) -> int:
    """Class number of a CARLA type.

    Args:
        type_id: CARLA type, the path of a parked vehicle's mesh, or a class name.

    Returns:
        Index in CLASSES, -1 for types that are not detected.
    """
    name = _CLASS_OF.get(type_id, type_id)
    if "/ParkedVehicles/" in type_id:
        name = "van" if "VolkswagenT2" in type_id else "car"
    for prefix, class_name in _CLASS_OF_PREFIX.items():
        if name.startswith(prefix):
            name = class_name
    return CLASSES.index(name) if name in CLASSES else -1
