"""Kinds of pictures that the view classifier knows, and views: their mirror images and the side of the nose."""

# The first is usable; the others are reasons against a picture. Each picture has one kind; its view is separate.
KINDS = ("ok", "blank", "dark", "logo", "graphic", "not_a_car", "interior", "several_cars", "collage", "people", "part",
         "aspect")  # fmt: skip
NO_CAR = ("blank", "logo", "not_a_car", "interior", "collage", "part")  # kinds without a view
MIRRORED = {"left": "right", "front_left": "front_right", "rear_left": "rear_right", "front": "front", "rear": "rear",
            "other": "other"}  # fmt: skip
MIRRORED |= {there: here for here, there in MIRRORED.items()}
NOSE_LEFT = ("left", "front_left", "rear_right")  # where the nose points; rear_right: the tail points right
NOSE_RIGHT = tuple(MIRRORED[view] for view in NOSE_LEFT)
