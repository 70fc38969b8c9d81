"""What a picture can show: the kinds that the view classifier knows, and views seen in a mirror."""

# Why a picture is no usable car, after the first. One picture has one kind; its view is another matter.
KINDS = ("ok", "blank", "dark", "logo", "graphic", "not_a_car", "interior", "several_cars", "collage", "people", "part",
         "aspect")  # fmt: skip
NO_CAR = ("blank", "logo", "not_a_car", "interior", "collage", "part")  # kinds of which no view can be told
MIRRORED = {"left": "right", "front_left": "front_right", "rear_left": "rear_right", "front": "front", "rear": "rear",
            "other": "other"}  # fmt: skip
MIRRORED |= {there: here for here, there in MIRRORED.items()}
